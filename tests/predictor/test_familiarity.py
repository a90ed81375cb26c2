"""Pictures that look like nothing in training are said to, by every protocol, and go to review."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.infer_type import RequestedOutput
from prometheus_client import CollectorRegistry

from components.bundle import files
from components.bundle.golden import load_golden
from components.bundle.model import Classifier
from components.classifier.errors import ServingError
from components.predictor.dispatch import Dispatcher
from components.predictor.loaded_model import check_golden, load
from components.predictor.metrics import Metrics
from components.predictor.model import ServingModel
from components.predictor.protocol.request import PredictRequest
from components.predictor.reviewing import ReviewWriter
from components.predictor.settings import PredictorSettings
from components.review import ReviewQueue
from components.storage import open_store
from components.validate_serving.predictor_process import predictor
from components.validate_serving.validation import validate
from tests import tiny
from tests.predictor.versions import INFER, NAME, PREDICT, model_dir, tensor

WHITE = np.full((1, 8, 8, 1), 255, np.uint8)


@pytest.fixture(scope="module")
def familiar_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version with the second output."""
    return model_dir(tmp_path_factory.mktemp("familiar"), familiarity=True)


@pytest.fixture(scope="module")
def served(familiar_dir: Path) -> Iterator[tuple[str, str]]:
    """Its addresses for HTTP and for gRPC."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with predictor(NAME, familiar_dir, 60, "--enable_grpc", "true", "--grpc_port", str(port), "--drain_seconds", "0") as (_, started):
        yield started.url, f"127.0.0.1:{port}"


@pytest.fixture
def asked(served: tuple[str, str]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served[0], timeout=30) as client:
        yield client


@pytest.fixture
def grpc_address(served: tuple[str, str]) -> str:
    return served[1]


@pytest.fixture
def both() -> np.ndarray:
    """A digit and a white picture."""
    return np.concatenate([tiny.digits()[0][:1], WHITE])


def test_v1_says_so_and_asks_for_review(asked: httpx.Client, familiar_dir: Path, both: np.ndarray) -> None:
    rows = asked.post(PREDICT, json={"instances": both.tolist(), "threshold": 0}).json()["predictions"]
    assert [row["unfamiliar"] for row in rows] == [row["needs_review"] for row in rows] == [False, True]
    familiarity = Classifier(familiar_dir, threads=1).answer(both).familiarity
    np.testing.assert_allclose([row["familiarity"] for row in rows], familiarity, atol=1e-6)


def test_v2_has_two_more_outputs_for_those_who_name_them(asked: httpx.Client, both: np.ndarray) -> None:
    body = {"inputs": [tensor([2, 8, 8, 1], data=both.ravel().tolist())]}
    assert [output["name"] for output in asked.post(INFER, json=body).json()["outputs"]] == ["label", "confidence", "needs_review"]
    named = {**body, "outputs": [{"name": "unfamiliar"}, {"name": "familiarity"}]}
    unfamiliar, familiarity = asked.post(INFER, json=named).json()["outputs"]
    assert (unfamiliar["datatype"], unfamiliar["data"], familiarity["datatype"]) == ("BOOL", [False, True], "FP32")
    assert {"familiarity", "unfamiliar"} <= {output["name"] for output in asked.get(f"/v2/models/{NAME}").json()["outputs"]}


def test_metrics_count_it(asked: httpx.Client, both: np.ndarray) -> None:
    asked.post(PREDICT, json={"instances": both.tolist()})
    text = asked.get("/metrics").text
    assert "penstock_unfamiliar_total{" in text
    assert "penstock_familiarity_bucket{" in text


def test_a_version_without_it_refuses_the_outputs_and_says_nothing(client: httpx.Client, both: np.ndarray) -> None:
    body = {"inputs": [tensor([2, 8, 8, 1], data=both.ravel().tolist())], "outputs": [{"name": "unfamiliar"}]}
    answer = client.post(INFER, json=body)
    assert answer.status_code == 400
    assert "has no output 'unfamiliar'" in answer.json()["error"]
    assert set(client.post(PREDICT, json={"instances": both.tolist()}).json()["predictions"][0]) == {"label", "confidence", "needs_review"}
    assert len(client.get(f"/v2/models/{NAME}").json()["outputs"]) == 4


def test_grpc_has_them_too(grpc_address: str, both: np.ndarray) -> None:
    async def ask() -> Any:
        client = InferenceGRPCClient(grpc_address, timeout=60)
        given = InferInput("image", [2, 8, 8, 1], "UINT8", both.ravel().tolist())
        answer = await client.infer(InferRequest(NAME, [given], request_outputs=[RequestedOutput("unfamiliar")]))
        await client.close()
        return answer

    (output,) = asyncio.run(ask()).outputs
    assert (output.name, list(output.data)) == ("unfamiliar", [False, True])


def test_unfamiliar_pictures_go_to_review_however_sure_the_answer_is(familiar_dir: Path, both: np.ndarray, tmp_path: Path) -> None:
    loaded, metrics = load(NAME, familiar_dir, 1), Metrics(CollectorRegistry())
    settings = PredictorSettings(model_name=NAME, review_store=str(tmp_path), review_threshold=0, audit_rate=0)
    review = ReviewWriter(settings, metrics)
    model = ServingModel(settings, Dispatcher(settings, 1), metrics, review)
    metrics.serving(loaded)
    model.predict(loaded, PredictRequest(both, [None, None]), "id")
    review.close(20)
    model.dispatcher.close()
    (entry,) = ReviewQueue(open_store(str(tmp_path)), NAME).entries()
    assert entry.prediction.familiarity is not None
    assert entry.prediction.familiarity < 0.5


def test_golden_requests_hold_it_to_what_was_evaluated(familiar_dir: Path, tmp_path: Path) -> None:
    classifier, (images, probabilities) = Classifier(familiar_dir, threads=1), load_golden(familiar_dir)
    with pytest.raises(ServingError, match="golden pictures give familiarity up to"):
        check_golden(classifier, images, probabilities, np.asarray(classifier.answer(images).familiarity) + np.float32(0.1))
    with pytest.raises(ServingError, match=f"{files.GOLDEN} and the model disagree"):
        check_golden(classifier, images, probabilities)


def test_it_is_validated_before_it_serves(familiar_dir: Path) -> None:
    assert validate(familiar_dir, NAME).differences["V1, familiarity"] <= 1e-4
