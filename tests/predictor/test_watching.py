"""What operators and readers see: metrics, logs, the API's description, and the review queue."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from components.review import ReviewQueue
from components.storage import open_store
from components.validate_serving.predictor_process import PredictorProcess, predictor
from tests import tiny
from tests.predictor.versions import INFER, NAME, PREDICT, b64, png, tensor


def value(client: httpx.Client, name: str) -> float:
    """The sum of a metric's samples whose text begins with `name`."""
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_metrics_count_requests_pictures_classes_doubt_and_version(
    client: httpx.Client, pictures: np.ndarray, expected: np.ndarray
) -> None:
    label = str(expected[0].argmax())
    doubts = int((expected.max(axis=1) < 0.8).sum())
    names = {
        'penstock_requests_total{code="200",protocol="v1"}': 2,
        'penstock_requests_total{code="400",protocol="v1"}': 1,
        'penstock_requests_total{code="200",protocol="v2"}': 1,
        'penstock_request_seconds_count{protocol="v1"}': 3,
        "penstock_images_total": 2 * len(pictures) + 1,
        "penstock_confidence_count": 2 * len(pictures) + 1,
        "penstock_low_confidence_total": 2 * doubts + int(expected[0].max() < 0.8),
    }
    before = {name: value(client, name) for name in names}
    for _ in range(2):
        client.post(PREDICT, json={"instances": pictures.tolist()})
    client.post(PREDICT, json={"instances": []})
    client.post(INFER, json={"inputs": [tensor([1, 8, 8, 1], data=pictures[0].ravel().tolist())]})
    assert {name: value(client, name) - before[name] for name in names} == names
    version = client.get("/v2/models/digits").json()["versions"][0]
    text = client.get("/metrics").text
    assert f'penstock_predictions_total{{label="{label}",version="{version}"}}' in text
    assert f'penstock_model_info{{architecture="logistic",name="digits",version="{version}"}} 1.0' in text
    for gauge in ("penstock_queue_depth", "penstock_requests_in_flight", "penstock_pending_bytes"):
        assert value(client, f"{gauge} ") == 0


def test_logs_are_few_json_lines(server: tuple[PredictorProcess, str], client: httpx.Client, pictures: np.ndarray) -> None:
    before = len(server[0].events())
    client.post(PREDICT, json={"instances": pictures.tolist()})
    client.post(PREDICT, json={"instances": 7})
    client.get("/nope")
    events = server[0].events()
    assert len(events) == before
    assert [event["event"] for event in events[:2]] == ["listening", "serving"]
    assert all({"event", "level", "timestamp"} <= event.keys() for event in events)


def test_every_example_of_the_description_works_as_it_stands(client: httpx.Client) -> None:
    api = client.get("/openapi.json").json()
    assert api["openapi"].startswith("3.")
    tried = 0
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            if method == "get":
                assert client.get(path).status_code == 200
            for example in operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("examples", {}).values():
                version = client.get("/v2/models/digits").json()["versions"][0]
                assert client.post(path.replace("{version}", version), json=example["value"]).status_code == 200
                tried += 1
    assert tried >= 5


def test_the_description_has_no_dangling_reference(client: httpx.Client) -> None:
    api = client.get("/openapi.json").json()
    for kind, name in re.findall(r'"#/components/(\w+)/(\w+)"', json.dumps(api)):
        assert name in api["components"][kind]


def test_the_docs_page_needs_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page.text)
    assert "openapi.json" in page.text


@pytest.fixture
def reviewed(served_dir: Path, tmp_path: Path) -> Iterator[tuple[str, ReviewQueue]]:
    store = str(tmp_path / "reviews")
    options = ("--review_store", store, "--audit_rate", "0.05", "--drain_seconds", "0")
    with predictor(NAME, served_dir, 60, *options) as (_, started):
        yield started.url, ReviewQueue(open_store(store), NAME)


def test_doubtful_pictures_and_an_audit_sample_are_queued_once(reviewed: tuple[str, ReviewQueue]) -> None:
    url, queue = reviewed
    images, _ = tiny.digits()
    with httpx.Client(base_url=url, timeout=30) as client:
        sent = images[:200]
        answers = [client.post(PREDICT, json={"instances": part.tolist()}).json()["predictions"] for part in (sent[:100], sent[100:])]
        doubtful = sum(entry["needs_review"] for entry in [*answers[0], *answers[1]])
        assert 0 < doubtful < 100
        unsure = next(picture for picture, entry in zip(sent, answers[0], strict=False) if entry["needs_review"])
        for _ in range(5):  # the same picture, by other ways in
            client.post(PREDICT, json={"instances": [{"b64": b64(png(unsure))}]}, headers={"x-request-id": "again"})
            client.post(INFER, json={"inputs": [tensor([1, 8, 8, 1], data=unsure.ravel().tolist())]})
        client.post(PREDICT, json={"instances": images[300:340].tolist(), "threshold": 0})  # a request's own bound moves nothing
        entries, low, before = queue.entries(), [], -1
        deadline = time.monotonic() + 60
        while len(low) < doubtful or len(entries) != before:  # written by a thread of its own: until nothing more comes
            assert time.monotonic() < deadline
            before = len(entries)
            time.sleep(0.5)
            entries = queue.entries()
            low = [entry for entry in entries if "low_confidence" in entry.reasons or entry.prediction.confidence < 0.8]
        assert len({entry.id for entry in entries}) == len(entries) == value(client, "penstock_review_queued_total")
        sure = [entry for entry in entries if entry.prediction.confidence >= 0.8]
        assert 0 < len(sure) < 40
        assert all(entry.reasons == {"audit"} for entry in sure)
        assert set(entries[0].prediction.probabilities) == {str(digit) for digit in range(10)}
        assert value(client, "penstock_review_dropped_total") == 0


def test_without_a_review_store_nothing_is_written(server: tuple[PredictorProcess, str], client: httpx.Client) -> None:
    assert value(client, "penstock_review_queued_total") == 0
