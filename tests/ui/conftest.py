"""A store with two versions that were really evaluated and one that was not, a ledger and a review queue, and a recorded run."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from components.registry import Record, Registry
from components.registry.publication import publish_directory
from components.review import ReviewQueue
from components.storage import open_store
from pipelines.local_runs import LocalRun, RunStep
from pipelines.ui.app import create_app
from pipelines.ui.stored import Stored
from tests import tiny
from tests.registry import evaluated
from tests.review import queue_of

ODD = "<script>alert('odd')</script>&\"x"
"""A reason that must not become markup."""
TIMES = ("2026-01-02T03:04:05+00:00", "2026-02-01T00:00:00+00:00", "2026-03-01T00:00:00+00:00")


@dataclass(frozen=True)
class Site:
    """A store's address, the folder of runs, and the versions, oldest first."""

    url: str
    runs: Path
    versions: list[str]

    @property
    def stored(self) -> Stored:
        """A reader that has read nothing yet."""
        return Stored(self.url, self.runs)


def make_site(root: Path) -> Site:
    url = str(root / "store")
    registry, dataset = Registry(open_store(url), "digits"), tiny.write_dataset(root / "data")
    versions = [
        evaluated.publish(registry, root / str(samples), dataset, samples, trained_at=time, familiarity=samples > 100)
        for samples, time in zip((60, 1200), TIMES, strict=False)
    ]
    bare = tiny.write_bundle(root / "bare", samples=1200, trained_at=TIMES[2])
    versions.append(publish_directory(registry, bare).version)
    weak, good, held = versions
    registry.ledger.append(Record(action="deployed", version=weak, strategy="quality", actor="ann", reason="the first one"))
    registry.ledger.append(Record(action="deployed", version=good, strategy="quality", actor="ann", reason=ODD, run="run-1200"))
    reasons = ["minimum_accuracy: pass: accuracy 0.95 meets the floor 0.9", f"champion: fail: {ODD}"]
    decision = {"verdict": "hold", "summary": "worse than the champion", "reasons": reasons}
    registry.ledger.append(Record(action="held", version=held, strategy="quality", reason="worse than the champion", decision=decision))
    queue = ReviewQueue(registry.store, "digits")
    for number, (confidence, reason) in enumerate([(0.3, "low_confidence"), (0.4, "low_confidence"), (0.9, "audit"), (0.95, "audit")]):
        queue.put(queue_of.entry(number, "3", confidence, version=good, reason=reason, threshold=0.8, rate=0.1))  # type: ignore[arg-type]
    runs = root / "runs"
    run = LocalRun(
        id="20260102-030405-aaaa", pipeline="training", arguments={"name": "digits", "store": url, "source": ODD},
        time=TIMES[0], pid=0, status="failed", seconds=75.0, error="no such folder", steps=[RunStep(name="ingest-data", state="failed")],
    )  # fmt: skip
    (runs / run.id).mkdir(parents=True)
    run.save(runs / run.id)
    (runs / run.id / "run.log").write_text(f"line\n{ODD}\n")
    return Site(url, runs, versions)


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The site that no test changes."""
    return make_site(tmp_path_factory.mktemp("ui"))


@pytest.fixture
def own(made: Site, tmp_path: Path) -> Site:
    """A copy of it for one test."""
    shutil.copytree(made.url, tmp_path / "store")
    return Site(str(tmp_path / "store"), made.runs, made.versions)


@pytest.fixture(scope="package")
def client(made: Site) -> Iterator[TestClient]:
    """A browser without scripts on that site; what one test has opened is drawn for all."""
    with TestClient(create_app(made.stored, "ann"), base_url="http://127.0.0.1:8008") as client:
        yield client
