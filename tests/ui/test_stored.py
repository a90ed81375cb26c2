"""What is read from the store for the pages: runs of scoring, and few requests for many versions."""

import json
from collections import Counter

import pytest
from fastapi.testclient import TestClient

from components.registry import Record, Registry
from components.registry.publication import publish_directory
from components.storage import Store
from components.storage.s3 import S3Store
from pipelines.cli import main
from pipelines.local_runs import RUNS
from pipelines.ui.app import create_app
from pipelines.ui.stored import MAX_VERSIONS, Stored
from tests.registry import bundles
from tests.storage.fixtures import address, kind, ministack_server, rgw_server, s3rver_server, store
from tests.ui.conftest import Site

__all__ = ["address", "kind", "ministack_server", "rgw_server", "s3rver_server", "store"]

SUMMARY = {
    "input": "s3://data/<b>monday</b>", "output": "o", "model": "digits", "rows": 3, "scored": 2, "errors": 1, "passed_over": 0,
    "needs_review": 0, "review_share": 0.0, "mean_confidence": 0.9, "classes": {"1": 2}, "error_examples": [],
    "passed_over_reasons": {}, "warnings": [],
    "drift": [{"feature": "contrast", "psi": 7.41, "p_value": 1e-9, "drifted": True, "adjusted": 1e-8, "moved": None}],
    "expected_accuracy": {
        "value": 0.81, "low": 0.76, "high": 0.85, "evaluated": 0.95, "change": -0.14, "change_low": -0.2, "change_high": -0.1,
    },
}  # fmt: skip


def test_the_drift_of_complete_outputs_is_shown_and_a_damaged_one_named(own: Site) -> None:
    store, version = own.stored.store, own.versions[1]
    for folder, text, complete in (("a", json.dumps(SUMMARY | {"version": version}), True), ("b", "{}", True), ("c", "unfinished", False)):
        store.create(f"scores/digits/{folder}/summary.json", text.encode())
        if complete:
            store.create(f"scores/digits/{folder}/manifest.json", b"{}")
    text = TestClient(create_app(own.stored, "ann"), base_url="http://localhost").get("/models/digits/live.html").text
    assert "2 of 3 rows scored" in text
    assert "&lt;b&gt;monday" in text
    assert text.count(">drifted<") == text.count(">harmful<") == 1
    assert "not the summary.json of a scoring run" in text
    assert "unfinished" not in text


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["ministack"])
def test_a_site_in_a_bucket_is_shown_by_browsers(address: str, store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    Registry(store, "digits").ledger.append(Record(action="held", version="20260101-000000-000000000000", strategy="quality"))
    monkeypatch.setattr("sys.argv", ["penstock", "ui", "--store", address, "--export", f"{address}/site"])
    with pytest.raises(SystemExit, match="0"):
        main()
    found = store._client.head_object(Bucket=store._bucket, Key=store._key("site/index.html"))
    assert found["ContentType"] == "text/html"
    with pytest.raises(SystemExit, match="2"):  # what is there is not overwritten
        main()


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["ministack"])
def test_a_page_of_200_versions_on_s3_costs_a_few_requests_once_it_was_opened(
    store: Store, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, root = Registry(store, "digits"), tmp_path_factory.mktemp("many")
    for number in range(MAX_VERSIONS):
        time = f"2026-01-01T{number // 60:02d}:{number % 60:02d}:00+00:00"
        version = publish_directory(registry, bundles.quick(root / str(number), b"x", time, files=1)).version
    registry.ledger.append(Record(action="deployed", version=version, strategy="quality"))
    assert isinstance(store, S3Store)
    client = TestClient(create_app(Stored(store.url, RUNS), "ann"), base_url="http://localhost")
    asked = Counter[str]()
    send = S3Store.chunks

    def counted(self: S3Store, key: str) -> object:
        asked["read"] += 1
        return send(self, key)

    monkeypatch.setattr(S3Store, "chunks", counted)
    assert client.get("/models/digits.html").text.count('class="id"') == MAX_VERSIONS
    assert asked["read"] < MAX_VERSIONS + 10
    asked.clear()
    for page in ("/models/digits.html", "/", f"/models/digits/{version}.html", "/models/digits/timeline.html"):
        assert client.get(page).status_code == 200
    assert asked["read"] < 10
