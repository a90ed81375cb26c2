"""A store with a champion, and scoring as the steps do it, in this process."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.registry import Record, Registry
from components.registry.publication import publish_directory
from components.score.merge import merge
from components.score.plan import Plan
from components.score.plan_step import make_plan
from components.score.shard import score_shard
from components.score.summary import Summary
from components.settings.scoring import ScoringSettings
from components.storage import open_store
from tests import tiny

SIZE = 8


@dataclass(frozen=True)
class Model:
    """A published champion: its store, name and version."""

    store: str
    version: str


@dataclass(frozen=True)
class Done:
    """What a run left in its output."""

    output: Path
    summary: Summary

    @property
    def rows(self) -> list[dict[str, Any]]:
        return list(pq.read_table(self.output / "predictions.parquet").to_pylist())

    @property
    def data(self) -> bytes:
        return (self.output / "predictions.parquet").read_bytes()

    @property
    def passed_over(self) -> dict[str, str]:
        return {row["input"]: row["reason"] for row in pq.read_table(self.output / "_passed_over" / "passed_over.parquet").to_pylist()}

    @property
    def names(self) -> list[str]:
        return [row["input"] for row in self.rows]

    @property
    def labels(self) -> list[str | None]:
        return [row["label"] for row in self.rows]

    @property
    def errors(self) -> dict[tuple[str, int], str]:
        return {(row["input"], row["index"]): row["error"] for row in self.rows if row["error"]}


def publish(bundle: Path, store: str) -> Model:
    registry = Registry(open_store(store), "digits")
    version = publish_directory(registry, bundle).version
    registry.ledger.append(Record(action="deployed", version=version, champion=version, strategy="force"))
    return Model(store, version)


@pytest.fixture(scope="session")
def model(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Digits, 8x8 grey."""
    return publish(tiny_bundle, str(tmp_path_factory.mktemp("score") / "store"))


@pytest.fixture(scope="session")
def colour_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Digits, 32x32 RGB."""
    folder = tmp_path_factory.mktemp("colour")
    return publish(tiny.write_bundle(folder / "bundle", size=32, channels=3), str(folder / "store"))


def plan_of(model: Model, folder: Path, source: Path | str, output: Path | str, shards: int = 0, **settings: Any) -> Plan:
    return make_plan(
        folder,
        store=model.store,
        name="digits",
        version=model.version,
        input=str(source),
        output=str(output),
        settings=ScoringSettings(**settings),
        shards=shards,
    )


Score = Callable[..., Done]


@pytest.fixture
def score(model: Model, tmp_path: Path) -> Score:
    """Score an input; `output` and `using` (another model) may be given, and Settings' fields."""
    runs = iter(range(100))

    def run(source: Path | str, *, output: Path | None = None, shards: int = 0, using: Model = model, **settings: Any) -> Done:
        scratch = tmp_path / f"run-{next(runs)}"
        output = output or scratch / "output"
        plan = plan_of(using, scratch / "plan", source, output, shards, **settings)
        results = [score_shard(Plan.load(plan.folder), shard).to_json() for shard in plan.shards()]
        return Done(output, merge(plan, results, scratch / "predictions"))

    return run
