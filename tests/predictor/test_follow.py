"""`penstock serve`: follows the ledger's champion, swaps without losing a request, and never serves what is not sound."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from components.bundle.model import Classifier
from components.classifier.errors import DiskError
from components.predictor.dispatch import Dispatcher
from components.predictor.follow import Follower, champion_of
from components.predictor.metrics import Metrics
from components.predictor.model import ServingModel
from components.predictor.settings import PredictorSettings
from components.registry import Registry
from components.registry.publication import publish_directory
from components.storage import open_store
from tests import tiny
from tests.predictor.versions import NAME, PREDICT, promote, publish
from tests.storage.servers import BUCKET, Server, ministack


class Serving:
    """`penstock serve` in a folder of its own."""

    def __init__(self, folder: Path, store: str = "") -> None:
        self.folder, self.log = folder, folder / "log"
        where = ["--store", store or str(folder / "store"), "--port", "0"]
        command = [sys.executable, "-c", "from pipelines.cli import main; main()", "serve", *where]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PENSTOCK_STOP_WITH_PARENT": "1"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
        self.url = f"http://127.0.0.1:{self.wait_for('listening')['port']}"
        self.wait_for("serving")

    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]

    def wait_for(self, event: str, **fields: str) -> dict:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for found in self.events():
                if found["event"] == event and fields.items() <= found.items():
                    return found
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry, version = publish(tmp_path)
    promote(registry, version)
    return registry


@pytest.fixture
def serving(registry: Registry, tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(tmp_path)
    yield serving
    serving.stop()


@pytest.fixture
def s3(tmp_path: Path, clean_environment: None) -> Iterator[Server]:
    with ministack(tmp_path / "server") as server:
        server.make_bucket()
        yield server


def spoil(registry: Registry, version: str, name: str = "model.onnx") -> None:
    path = Path(registry.uri(version)) / name
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def published(folder: Path, seed: int) -> tuple[Registry, str]:
    return publish(folder, seed=seed, samples=300 + seed, trained_at=f"2026-01-02T03:05:{seed:02d}+00:00")


def answer(client: httpx.Client, picture: np.ndarray) -> dict:
    response = client.post(PREDICT, json={"instances": [picture.tolist()], "return_probabilities": True})
    assert response.status_code == 200, response.text
    return response.json()


def test_a_new_champion_takes_over_and_a_bad_one_does_not(
    serving: Serving, registry: Registry, tmp_path: Path, pictures: np.ndarray
) -> None:
    with httpx.Client(base_url=serving.url, timeout=60) as client:
        first = answer(client, pictures[0])["model_version"]
        _, second = published(tmp_path, 1)
        promote(registry, second)
        serving.wait_for("serving", version=second)
        found = answer(client, pictures[0])
        assert found["model_version"] == second != first
        wanted = Classifier(registry.fetch(second, tmp_path / "second"), threads=1).probabilities(pictures[:1])[0]
        np.testing.assert_allclose(list(found["predictions"][0]["probabilities"].values()), wanted, atol=1e-6)

        _, bad = published(tmp_path, 2)
        spoil(registry, bad)
        promote(registry, bad)
        told = serving.wait_for("new champion refused", version=bad)
        assert "model.onnx" in told["error"]
        assert told["still_serving"] == second
        assert answer(client, pictures[0])["model_version"] == second
        assert client.get("/v2/health/ready").status_code == 200
        time.sleep(2.5)  # polls of the ledger, in which the refused version is not tried again

        promote(registry, first)
        serving.wait_for("serving", version=first, before=second)
        metrics = client.get("/metrics").text
        assert 'penstock_model_swaps_total{outcome="switched"} 2.0' in metrics
        assert 'penstock_model_swaps_total{outcome="refused"} 1.0' in metrics
        assert f'version="{first}"' in next(line for line in metrics.splitlines() if line.startswith("penstock_model_info"))
    assert sum(event["event"] == "new champion refused" for event in serving.events()) == 1
    copies = {folder.name for folder in (tmp_path / ".penstock" / "cache" / NAME).iterdir()}
    assert copies == {first, second}, "copies of other versions are removed"
    assert serving.stop() == 0


def test_a_ledger_that_is_damaged_for_a_while_changes_nothing_and_is_reported_once(
    serving: Serving, registry: Registry, tmp_path: Path, pictures: np.ndarray
) -> None:
    with httpx.Client(base_url=serving.url, timeout=60) as client:
        first = answer(client, pictures[0])["model_version"]
        damaged = tmp_path / "store" / "deployments" / NAME / "000002.json"
        damaged.write_text("damaged")
        serving.wait_for("the ledger cannot be trusted; the loaded version goes on serving")
        time.sleep(2.5)
        assert answer(client, pictures[0])["model_version"] == first
        assert sum("cannot be trusted" in event["event"] for event in serving.events()) == 1
        damaged.unlink()
        _, second = published(tmp_path, 1)
        promote(registry, second)
        serving.wait_for("serving", version=second)


@pytest.mark.integration
def test_records_replaced_or_taken_away_are_reported_and_change_nothing(
    serving: Serving, registry: Registry, tmp_path: Path, pictures: np.ndarray
) -> None:
    ledger = tmp_path / "store" / "deployments" / NAME
    with httpx.Client(base_url=serving.url, timeout=60) as client:
        first = answer(client, pictures[0])["model_version"]
        _, second = published(tmp_path, 1)
        promote(registry, second)
        serving.wait_for("serving", version=second)
        (tmp_path / "store").rename(tmp_path / "not mounted")
        serving.wait_for("cannot read the store; the loaded version goes on serving")
        assert state_of(client)[0] == "unreachable"
        (tmp_path / "not mounted").rename(tmp_path / "store")
        serving.wait_for("the ledger is followed again", champion=second)
        kept = (ledger / "000002.json").read_text()
        (ledger / "000002.json").unlink()
        told = serving.wait_for("the ledger cannot be trusted; the loaded version goes on serving")
        assert "000002.json was the last record and is gone" in told["error"]
        (ledger / "000002.json").write_text(kept.replace(second, first))
        time.sleep(2.5)
        assert answer(client, pictures[0])["model_version"] == second
        assert sum("cannot be trusted" in event["event"] for event in serving.events()) == 1
        assert state_of(client) == ("untrusted", {"ready": True, "ledger": "untrusted"})
    serving.stop()
    again = Serving(tmp_path)
    try:
        told = again.wait_for("the ledger cannot be trusted; the loaded version goes on serving")
        assert "000002.json was replaced by another record" in told["error"], "also after a restart"
        with httpx.Client(base_url=again.url, timeout=60) as client:
            assert answer(client, pictures[0])["model_version"] == second
            assert state_of(client) == ("untrusted", {"ready": True, "ledger": "untrusted"})
            (ledger / "000002.json").write_text(kept)
            wait_until(lambda: state_of(client)[0] == "trusted")
    finally:
        again.stop()
    shutil.rmtree(tmp_path / ".penstock")
    (ledger / "000001.json").write_text(kept)
    done = run_serve(tmp_path, "--port", "0")
    assert "000001.json says it is record 2" in done.stderr, "whoever never saw the ledger does not start by a broken one"
    assert done.returncode == 1


def state_of(client: httpx.Client) -> tuple[str, dict]:
    """What the metrics and the health say about the ledger."""
    lines = client.get("/metrics").text.splitlines()
    (state,) = [line.split('"')[1] for line in lines if line.startswith("penstock_ledger{") and line.endswith(" 1.0")]
    return state, client.get("/v2/health/ready").json()


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.integration
def test_a_ledger_on_s3_that_was_tampered_with_changes_nothing(
    s3: Server, tmp_path: Path, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://{BUCKET}/followed")
    registry = Registry(store, NAME)
    directories = [tiny.write_bundle(tmp_path / f"b{n}", seed=n, samples=300 + n) for n in range(2)]
    first, second = (publish_directory(registry, it).version for it in directories)
    promote(registry, first)
    promote(registry, second)
    serving = Serving(tmp_path, f"s3://{BUCKET}/followed")
    try:
        with httpx.Client(base_url=serving.url, timeout=60) as client:
            assert state_of(client)[0] == "trusted"
            key = f"deployments/{NAME}/000002.json"
            kept = store.read(key)
            for tamper in (lambda: store.replace(key, kept.replace(second.encode(), first.encode())), lambda: store.delete(key)):
                tamper()
                wait_until(lambda: state_of(client)[0] == "untrusted")
                assert answer(client, pictures[0])["model_version"] == second
                store.replace(key, kept)
                wait_until(lambda: state_of(client)[0] == "trusted")
    finally:
        serving.stop()


def test_a_damaged_copy_in_the_cache_is_fetched_again(registry: Registry, tmp_path: Path, pictures: np.ndarray) -> None:
    version = registry.ledger.champion()
    copy = registry.fetch(version, tmp_path / ".penstock" / "cache" / NAME / version)
    (copy / "model.onnx").write_bytes(b"damaged")
    serving = Serving(tmp_path)
    try:
        with httpx.Client(base_url=serving.url, timeout=60) as client:
            assert answer(client, pictures[0])["model_version"] == version
    finally:
        serving.stop()


def run_serve(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from pipelines.cli import main; main()", "serve", "--store", str(folder / "store"), *options]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300, check=False)


def test_without_a_champion_it_says_what_to_do(tmp_path: Path) -> None:
    publish(tmp_path)
    done = run_serve(tmp_path)
    assert done.returncode == 1
    assert "penstock run training" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_first_champion_that_is_corrupt_is_never_served(registry: Registry, tmp_path: Path) -> None:
    spoil(registry, registry.ledger.champion())
    done = run_serve(tmp_path, "--port", "0")
    assert done.returncode == 1
    last = json.loads(done.stderr.strip().splitlines()[-1])
    assert last["event"] == "cannot serve"
    assert "model.onnx" in last["error"]


def test_a_port_that_is_taken_is_told(registry: Registry, tmp_path: Path, url: str) -> None:
    done = run_serve(tmp_path, "--port", url.rpartition(":")[2])
    assert done.returncode == 2
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.integration
def test_ten_promotions_under_load_lose_no_request(serving: Serving, registry: Registry, tmp_path: Path, pictures: np.ndarray) -> None:
    body = {"instances": [pictures[0].tolist()]}
    seen: Counter[tuple[int, str]] = Counter()
    stop = threading.Event()
    failures: list[str] = []

    def load() -> None:
        with httpx.Client(base_url=serving.url, timeout=30) as client:
            while not stop.is_set():
                try:
                    response = client.post(PREDICT, json=body)
                    seen[response.status_code, response.json().get("model_version", "")] += 1
                except httpx.HTTPError as error:
                    failures.append(repr(error))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    good, bad = [], ""
    try:
        for number in range(1, 11):
            _, version = published(tmp_path, number)
            if number == 5:
                spoil(registry, version)
                promote(registry, version)
                serving.wait_for("new champion refused", version=version)
                bad = version
            else:
                promote(registry, version)
                serving.wait_for("serving", version=version)
                good.append(version)
            time.sleep(0.3)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert {status for status, _ in seen} == {200}
    assert set(good) <= {version for _, version in seen}
    assert bad not in {version for _, version in seen}
    assert sum(seen.values()) > 500


def test_a_full_disk_is_told_once_as_what_it_is_and_tried_again_later(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, numbers = PredictorSettings(model_name=NAME), CollectorRegistry()
    metrics = Metrics(numbers)
    model = ServingModel(settings, Dispatcher(settings, 1), metrics)
    server: Any = SimpleNamespace(settings=settings, metrics=metrics, model=model, serve=lambda loaded: setattr(model, "loaded", loaded))
    follower = Follower(str(tmp_path / "store"), NAME, tmp_path / "cache")
    first = champion_of(registry)
    model.loaded = follower.load(first, settings)
    _, second = published(tmp_path, seed=7)
    promote(registry, second)

    told: list[str] = []

    def tell(event: str, error: str = "", **_: object) -> None:
        told.append(f"{event}: {error}")

    monkeypatch.setattr("components.predictor.follow.log", lambda: SimpleNamespace(error=tell, warning=tell))

    def full(**_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    def behind() -> float | None:
        return numbers.get_sample_value("penstock_behind", {"why": "disk"})

    def write(*_: object) -> None:
        raise DiskError("the disk is full")

    follower._server = server
    with monkeypatch.context() as patched:
        patched.setattr("components.storage.files.tempfile.mkdtemp", full)
        patched.setattr("components.predictor.follow.write_file", write)
        for _ in range(3):
            follower._retry_at = 0
            follower.check(server)
    assert len(told) == 2
    assert told[0] == "the cache does not take the ledger's newest record: the disk is full"
    assert "the cache does not take the new champion: " in told[1]
    assert "the disk is full" in told[1]
    assert behind() == 1
    assert model.behind == f"{second}: disk"
    assert model.loaded.version == first
    follower.check(server)  # not yet
    assert model.loaded.version == first
    follower._retry_at = 0
    follower.check(server)
    assert model.loaded.version == second
    assert (behind(), model.behind) == (0, "")
    model.dispatcher.close()
