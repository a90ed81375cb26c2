"""What each step reports: one function per step, with the arguments of its work, and its result first.

The types of arguments that a step declares itself are Protocols here, since no package of this floor imports a step.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from components.bundle import files
from components.bundle.dataset import Dataset, DatasetInfo, kept_address
from components.bundle.decision import Decision
from components.bundle.training import LearningCurves
from components.integrations.observe import Data, Report
from components.registry import Record, Registry
from components.registry.manifest import hash_file
from components.settings.scoring import GOLDEN_INPUT
from components.settings.training import TrainingSettings
from components.storage import open_store

MAIN_PARAMETERS = {"architecture", "pretrained", "epochs", "batch_size", "learning_rate", "optimizer", "seed"}
"""Settings of a training that are always told; the others where they differ from their defaults."""
_ARTIFACTS = {"minio": "minio", "s3": "s3", "gcs": "gs"}
"""The folder in which Kubeflow keeps a step's artifacts -> the scheme of their address, of which the rest of the path is the rest."""


class TrainingFigures(Protocol):
    """What a training gives."""

    def as_metrics(self) -> dict[str, float | str]:
        """The figures by name."""


class EvaluationFigures(Protocol):
    """What an evaluation gives."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """The figures by name."""

    @property
    def champion(self) -> str:
        """The version that it was compared with."""


class ServingFigures(Protocol):
    """What the validation of a server gives."""

    def metadata(self) -> dict[str, float]:
        """The figures by name."""


class Asked(Protocol):
    """What a deployment is asked to do."""

    @property
    def version(self) -> str:
        """The version."""

    @property
    def target(self) -> str:
        """Where it shall serve."""


class Concluded(Protocol):
    """How a run that deploys ended."""

    @property
    def decision(self) -> str:
        """deployed, unchanged, held, awaiting or failed."""

    @property
    def version(self) -> str:
        """The version, empty where there is none."""

    @property
    def champion(self) -> str:
        """Who serves now."""


class ScoringPlan(Protocol):
    """What is scored, and where the rows go."""

    store: str
    name: str
    version: str
    input: str
    output: str


class Shard(Protocol):
    """What one shard did."""

    scored: int


class ScoringSummary(Protocol):
    """What came of a scoring."""

    rows: int
    errors: int

    def figures(self) -> dict[str, float]:
        """The figures by name."""


def ingest(info: DatasetInfo | None, source: str, path: str | Path, *_: Any, store: str = "", **__: Any) -> Report:
    """A source is read into a dataset version."""
    made = [_dataset(info, path, store)] if info else []
    return Report("ingest", inputs=[Data(source)], outputs=made)


def train(
    result: TrainingFigures | None, dataset: str | Path, model: str | Path, options: TrainingSettings, store: str = "", *_: Any
) -> Report:
    """A dataset version is trained on, on one node or several."""
    info = Dataset.load(dataset).info
    report = Report("train", options.name, [_dataset(info, dataset, store)], parameters=chosen(options))
    if result is None:
        return report
    curves, figures = LearningCurves.of(Path(model)), result.as_metrics()
    return replace(
        report,
        outputs=[_trained(model)],
        metrics={name: float(value) for name, value in figures.items() if isinstance(value, int | float)},
        epochs=curves.history if curves else [],
        tags={"dataset_digest": info.digest, "dataset_source": info.source}
        | {name: value for name, value in figures.items() if isinstance(value, str)},
    )


def evaluate(
    result: EvaluationFigures | None, dataset: str, model: str, evaluation: str, report: str, summary: str, store: str, name: str
) -> Report:
    """A trained model is evaluated on the sealed split."""
    read = [_dataset(Dataset.load(dataset).info, dataset, store), _trained(model)]
    if result is None:
        return Report("evaluate", name, read)
    return Report(
        "evaluate",
        name,
        read,
        [Data(_address(evaluation), "REPORT")],
        metrics={f"test_{figure.removeprefix('test_')}": value for figure, value in result.metrics.items()},
        tags={"compared_with": result.champion},
        files={files.REPORT: Path(evaluation) / files.REPORT},
    )


def publish(version: str | None, model: Path, evaluation: Path, *, store: str, name: str, run: str = "") -> Report:
    """A model with its evaluation becomes a version."""
    read = [_trained(model), Data(_address(evaluation), "REPORT")]
    if version is None:
        return Report("publish", name, read)
    registry = Registry(open_store(store), name)
    manifest = registry.get(version).manifest
    digests = {"content_digest": manifest.content_digest, "dataset_digest": manifest.dataset_digest}
    where = {"version": version, "uri": registry.uri(version)}
    about = {"architecture": manifest.architecture, "code_version": manifest.code_version, "trained_at": manifest.trained_at, "run": run}
    return Report(
        "publish",
        name,
        read,
        [_version(registry, version)],
        tags=where | digests,
        files={
            files.CARD: partial(registry.store.read, registry.key(version, files.CARD)),
            files.ONNX: Path(model) / files.ONNX,
        },
        registered={**where, **digests, **about, **manifest.metrics},
    )


def gate(decision: Decision | None, directory: str | Path, registry: Registry, version: str, *_: Any, **__: Any) -> Report:
    """The gate decides on a version."""
    if decision is None:
        return Report("gate", registry.name, [_version(registry, version), Data(_address(directory), "REPORT")])
    checks = {rule.rule: rule.outcome == "pass" for rule in decision.rules if rule.outcome != "skipped"}
    return Report(
        "gate",
        registry.name,
        [_version(registry, version, checks), Data(_address(directory), "REPORT")],
        tags={
            "decision": decision.verdict,
            "decision_reason": decision.summary,
            "environment": decision.environment,
        },
    )


def validate_serving(result: ServingFigures | None, version: str, store: str, name: str, *_: Any, **__: Any) -> Report:
    """The predictor serves a version, and its answers are compared."""
    figures = {f"serving_{figure}": value for figure, value in result.metadata().items()} if result else {}
    return Report("validate_serving", name, [_version(Registry(open_store(store), name), version)], metrics=figures)


def deploy(outcome: str | None, registry: Registry, request: Asked) -> Report:
    """A version comes to serve, or not."""
    report = Report("deploy", registry.name, [_version(registry, request.version)])
    if outcome is None:
        return report
    champion = registry.ledger.champion() or ""
    tags = {"deployment": outcome, "target": request.target}
    return replace(report, outputs=[_service(registry, champion)], tags=tags, champion=champion)


def conclude(outcome: Concluded | None, registry: Registry, *_: Any) -> Report:
    """The run ends; what serves may have been put back."""
    if outcome is None:
        return Report("conclude", registry.name)
    return Report(
        "conclude",
        registry.name,
        [_version(registry, outcome.version)] if outcome.version else [],
        [_service(registry, outcome.champion)],
        tags={"deployment": outcome.decision},
        champion=outcome.champion,
        run_ended="FAILED" if outcome.decision == "failed" else "FINISHED",
    )


def rollback(record: Record | None, registry: Registry, **_: Any) -> Report:
    """A person goes back to a version that served before."""
    if record is None:
        return Report("rollback", registry.name)
    serves = record.champion
    return Report("rollback", registry.name, [_version(registry, serves)], [_service(registry, serves)], champion=serves)


def score(result: Shard | None, plan: ScoringPlan, shard: str, *_: Any, **__: Any) -> Report:
    """One shard of a scoring."""
    rows = {f"rows_of_shard_{shard}": float(result.scored)} if result else {}
    return Report("score", plan.name, _scored(plan), [Data(plan.output, "TABLE")], metrics=rows)


def merge(summary: ScoringSummary | None, plan: ScoringPlan, *_: Any, **__: Any) -> Report:
    """The parts of a scoring become its output."""
    if summary is None:
        return Report("merge", plan.name, _scored(plan), [Data(plan.output, "TABLE")])
    checks = {"every_input_was_scored": not summary.errors}
    output = Data(plan.output, "TABLE", rows=summary.rows, checks=checks)
    figures = {name: float(value) for name, value in summary.figures().items()}
    return Report("merge", plan.name, _scored(plan), [output], metrics=figures, tags={"version": plan.version}, run_ended="FINISHED")


def chosen(options: TrainingSettings) -> dict[str, Any]:
    """Return the main settings of a training, and every other that differs from its default."""
    fields = TrainingSettings.model_fields
    return {
        name: value for name, value in options.as_parameters().items() if name in MAIN_PARAMETERS or value != fields[name].get_default()
    }


def _dataset(info: DatasetInfo, path: str | Path, store: str) -> Data:
    """A dataset version, by the address that it has in the store where it is kept: its digest says what it is, wherever a copy lies."""
    counts: dict[str, int] = {}
    for split in info.counts.values():
        for name, count in split.items():
            counts[name] = counts.get(name, 0) + count
    checks = {check["name"]: check["passed"] for check in info.checks}
    address = kept_address(open_store(store), info.digest) if store else _address(path)
    return Data(address, version=info.digest, rows=sum(counts.values()), classes=counts, checks=checks)


def _trained(model: str | Path) -> Data:
    graph = Path(model) / files.ONNX
    return Data(_address(model), "MODEL", version=hash_file(graph).sha256 if graph.is_file() else "")


def _version(registry: Registry, version: str, checks: dict[str, bool] | None = None) -> Data:
    return Data(registry.uri(version).rstrip("/"), "MODEL", version=version, checks=checks or {})


def _service(registry: Registry, champion: str) -> Data:
    return Data(f"{registry.store.url}/deployments/{registry.name}", "SERVICE", version=champion)


def _scored(plan: ScoringPlan) -> list[Data]:
    registry = Registry(open_store(plan.store), plan.name)
    own = f"{registry.uri(plan.version).rstrip('/')}/{files.GOLDEN}"
    return [Data(own if plan.input == GOLDEN_INPUT else plan.input), _version(registry, plan.version)]


def _address(path: str | Path) -> str:
    """Return the address of an artifact: in a pod of Kubeflow its path tells the bucket that it is copied to."""
    path = Path(path).absolute()
    folder, *rest = path.parts[1:] or [""]
    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ and folder in _ARTIFACTS
    return f"{_ARTIFACTS[folder]}://{'/'.join(rest)}" if in_pod else str(path)
