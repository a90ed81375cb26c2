"""Compares a served version with its evaluation: the same probabilities in every protocol, the right labels, fast enough."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.bundle.evaluation import load_class_names
from components.bundle.golden import GOLDEN_TOLERANCE, difference, load_golden, load_golden_familiarity
from components.classifier.errors import EvaluationError, IntegrityError, ServingError
from components.classifier.images import Pixels
from components.inference_client import Inference, InferenceClient, batches, png_base64
from components.integrations import steps
from components.integrations.observe import observed
from components.registry import Registry, verify_directory
from components.storage import open_store
from components.validate_serving.predictor_process import predictor

START_SECONDS = 120.0
_REQUESTS = 50
_MAX_MEMORY_BYTES = 2 * 2**30

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ServingReport:
    """What was measured; times in seconds, memory in bytes."""

    name: str
    version: str
    classes: int
    golden: int
    differences: dict[str, float]
    """Per way in: the largest distance of a served probability from the evaluated one."""
    cold_start: float
    latency_median: float
    latency_p95: float
    memory: int
    latency_budget: float

    def metadata(self) -> dict[str, float]:
        """The figures by name, for Kubeflow."""
        return {
            "cold_start_seconds": round(self.cold_start, 3),
            "latency_median_ms": round(self.latency_median * 1000, 3),
            "latency_p95_ms": round(self.latency_p95 * 1000, 3),
            "memory_mib": round(self.memory / 2**20, 1),
            "largest_difference": max(self.differences.values()),
        }

    def summary(self) -> str:
        """One line for people."""
        return (
            f"{self.name} {self.version} serves: {self.golden} golden pictures agree by {len(self.differences)} ways in, ready after "
            f"{self.cold_start:.1f} s, {self.latency_median * 1000:.1f} ms per request (p95 {self.latency_p95 * 1000:.1f} ms), "
            f"{self.memory / 2**20:.0f} MiB"
        )

    def markdown(self) -> str:
        """The report as a page."""
        budget = f"budget {self.latency_budget * 1000:g} ms" if self.latency_budget else "no budget set"
        ways = "\n".join(f"| {way} | {self.golden} | {difference:.1e} |" for way, difference in self.differences.items())
        return (
            f"# Serving of {self.name} {self.version}\n\n"
            f"The predictor was started on the published files, and its golden requests were sent over HTTP.\n\n"
            f"| way in | pictures | largest difference (allowed: {GOLDEN_TOLERANCE:g}) |\n|---|---|---|\n{ways}\n\n"
            f"| measured | |\n|---|---|\n"
            f"| process start to ready | {self.cold_start:.2f} s |\n"
            f"| one request, median | {self.latency_median * 1000:.2f} ms |\n"
            f"| one request, 95th percentile | {self.latency_p95 * 1000:.2f} ms ({budget}) |\n"
            f"| memory, highest | {self.memory / 2**20:.0f} MiB |\n"
            f"| classes | {self.classes}, in the evaluation's order |\n"
        )


@observed(steps.validate_serving)
def validate_version(
    version: str, store: str, name: str, latency_budget_ms: float = 0.0, report: str | Path | None = None
) -> ServingReport:
    """Fetch a published version, validate it and write the report as Markdown.

    Raises ServingError when it does not serve as it was evaluated, IntegrityError when its files are not those published.
    """
    with Registry(open_store(store), name).opened(version) as directory:
        result = validate(directory, name, version=version, latency_budget_ms=latency_budget_ms)
    if report is not None:
        Path(report).write_text(result.markdown(), "utf-8")
    return result


def validate(
    model_dir: Path, name: str, *, version: str = "", latency_budget_ms: float = 0.0, start_seconds: float = START_SECONDS
) -> ServingReport:
    """Boot the predictor on a model folder, send its golden requests, and compare.

    `version`: the one that must serve; empty takes the manifest's. Raises ServingError naming what differs.
    """
    try:
        version = version or verify_directory(model_dir).version
        images, expected = load_golden(model_dir)
        familiarity = load_golden_familiarity(model_dir)
        classes = load_class_names(model_dir)  # in the order of the evaluation, from its own record and not from config.json
    except IntegrityError as error:
        raise ServingError(f"{name} {version or model_dir.name} does not serve: {error}") from error
    except EvaluationError as error:
        raise ServingError(str(error)) from error
    with predictor(name, model_dir, start_seconds) as (process, started):
        client = InferenceClient(started.url, name)
        _check_metadata(client, name, version, classes)
        differences = _check_golden(client, name, version, images, expected, classes)
        if familiarity is not None:
            differences["V1, familiarity"] = _check_familiarity(client, name, version, images, familiarity)
        median, p95 = _measure(client, name, images[0])
        report = ServingReport(
            name=name,
            version=version,
            classes=len(classes),
            golden=len(images),
            differences=differences,
            cold_start=started.cold_start,
            latency_median=median,
            latency_p95=p95,
            memory=process.memory(),
            latency_budget=latency_budget_ms / 1000,
        )
    return _check_budgets(report)


def _check_budgets(report: ServingReport) -> ServingReport:
    if report.latency_budget and report.latency_p95 > report.latency_budget:
        raise ServingError(
            f"{report.name} {report.version} takes {report.latency_p95 * 1000:.1f} ms per request (95th percentile), "
            f"the budget is {report.latency_budget * 1000:g} ms; take a smaller architecture or raise latency_budget_ms"
        )
    if report.memory > _MAX_MEMORY_BYTES:
        raise ServingError(
            f"{report.name} {report.version} takes {report.memory / 2**20:.0f} MiB of memory, the limit of a predictor is "
            f"{_MAX_MEMORY_BYTES / 2**20:.0f} MiB; take a smaller architecture"
        )
    return report


def _check_metadata(client: InferenceClient, name: str, version: str, classes: list[str]) -> None:
    metadata = client.metadata()
    if metadata["versions"] != [version]:
        raise ServingError(f"the predictor serves version {metadata['versions']}, not {version}")
    served = metadata["classes"]
    if served != classes:
        first = next((k for k, pair in enumerate(zip(served, classes, strict=False)) if pair[0] != pair[1]), min(len(served), len(classes)))
        raise ServingError(
            f"{name} {version} serves its labels in another order than evaluated (first at class {first}: "
            f"{served[first : first + 1]}, evaluated as {classes[first : first + 1]}); publish the model again"
        )


def _check_golden(
    client: InferenceClient, name: str, version: str, images: Pixels, expected: Probabilities, classes: list[str]
) -> dict[str, float]:
    ways: dict[str, Callable[[Pixels], Inference]] = {
        "V1, arrays": lambda batch: _v1(client, batch.tolist(), classes),
        "V1, PNG in base64": lambda batch: _v1(client, [{"b64": png_base64(image)} for image in batch], classes),
        "V2, JSON": lambda batch: client.infer(batch, "json", labels=True),
        "V2, binary": lambda batch: client.infer(batch, "binary", labels=True),
        "V2, pictures": lambda batch: client.infer(batch, "png", labels=True),
    }
    differences: dict[str, float] = {}
    for way, ask in ways.items():
        answers = [ask(images[batch]) for batch in batches(images)]
        for answer in answers:
            if answer.version != version:
                raise ServingError(f"{way}: the response names version {answer.version}, not {version}")
        probabilities = np.concatenate([answer.probabilities for answer in answers])
        differences[way] = difference(probabilities, expected)
        if differences[way] > GOLDEN_TOLERANCE:
            raise ServingError(
                f"{name} {version} gives other probabilities than evaluated ({way}: up to {differences[way]:.4g} away, "
                f"allowed {GOLDEN_TOLERANCE:g}); the model is not prepared as it was evaluated: publish it again"
            )
        _check_labels(way, [label for answer in answers for label in answer.labels], probabilities, classes)
    return differences


def _check_familiarity(client: InferenceClient, name: str, version: str, images: Pixels, expected: npt.NDArray[np.float32]) -> float:
    answers = [row for batch in batches(images) for row in client.predict(images[batch].tolist())["predictions"]]
    away = difference(np.array([row.get("familiarity", np.nan) for row in answers], np.float32), expected)
    if away > GOLDEN_TOLERANCE:
        raise ServingError(
            f"{name} {version} gives another familiarity than evaluated (up to {away:.4g} away, allowed {GOLDEN_TOLERANCE:g}); "
            "the model is not prepared as it was evaluated: publish it again"
        )
    return away


def _check_labels(way: str, labels: list[str], probabilities: Probabilities, classes: list[str]) -> None:
    for index, (label, row) in enumerate(zip(labels, probabilities, strict=True)):
        if label not in classes or row[classes.index(label)] < row.max() - GOLDEN_TOLERANCE:
            raise ServingError(f"{way}, golden picture {index}: the label is {label!r}, but {classes[int(row.argmax())]!r} is likeliest")


def _v1(client: InferenceClient, instances: list[object], classes: list[str]) -> Inference:
    document = client.predict(instances, return_probabilities=True)
    rows = [[entry["probabilities"].get(name, np.nan) for name in classes] for entry in document["predictions"]]
    return Inference(document["model_version"], np.array(rows, np.float32), [entry["label"] for entry in document["predictions"]])


def _measure(client: InferenceClient, name: str, image: Pixels) -> tuple[float, float]:
    """Return median and 95th percentile of the time of a request with one picture, in seconds."""
    body, times = json.dumps({"instances": [image.tolist()]}).encode(), []
    for _ in range(_REQUESTS):
        began = time.perf_counter()
        client.ask("POST", f"/v1/models/{name}:predict", body)
        times.append(time.perf_counter() - began)
    return float(np.median(times)), float(np.quantile(times, 0.95))
