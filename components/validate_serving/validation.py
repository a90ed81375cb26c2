"""Holds a served version against its evaluation: the same probabilities by every way in, the right names, in time."""

import base64
import io
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image

from components.bundle import files
from components.bundle.files import INPUT_NAME, OUTPUT_NAME
from components.bundle.golden import GOLDEN_TOLERANCE, load_golden
from components.classifier.errors import IntegrityError, ServingError
from components.classifier.images import Pixels
from components.registry import Registry, verify_directory
from components.storage import open_store
from components.validate_serving.predictor_process import PredictorProcess, predictor

START_SECONDS = 120.0
_REQUESTS = 50
_MOST_MEMORY = 2 * 2**30
_BATCH = 16

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ServingReport:
    """What was found; times in seconds, memory in bytes."""

    name: str
    version: str
    classes: int
    golden: int
    differences: dict[str, float]
    """By way in: the largest distance of a served probability from the evaluated one."""
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
            f"{self.cold_start:.1f} s, {self.latency_median * 1000:.1f} ms a request (p95 {self.latency_p95 * 1000:.1f} ms), "
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


def validate_version(
    version: str, store: str, name: str, latency_budget_ms: float = 0.0, report: str | Path | None = None
) -> ServingReport:
    """Fetch a published version, validate it and write the report as Markdown.

    Raises ServingError when it does not serve as it was evaluated, IntegrityError when its files are not those published.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-validate-") as scratch:
        directory = Registry(open_store(store), name).fetch(version, Path(scratch) / version)
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
    except IntegrityError as error:
        raise ServingError(f"{name} {version or model_dir.name} does not serve: {error}") from error
    classes = _evaluated_classes(model_dir)
    with predictor(name, model_dir, start_seconds) as (process, started), httpx.Client(base_url=started.url, timeout=30) as client:
        _check_metadata(client, name, version, classes)
        differences = _check_golden(client, name, version, images, expected, classes)
        median, p95 = _measure(client, name, images[0])
        return _judge(
            process,
            ServingReport(
                name,
                version,
                len(classes),
                len(images),
                differences,
                started.cold_start,
                median,
                p95,
                process.memory(),
                latency_budget_ms / 1000,
            ),
        )


def _judge(process: PredictorProcess, report: ServingReport) -> ServingReport:
    if report.latency_budget and report.latency_p95 > report.latency_budget:
        raise ServingError(
            f"{report.name} {report.version} takes {report.latency_p95 * 1000:.1f} ms a request (95th percentile), "
            f"the budget is {report.latency_budget * 1000:g} ms; take a smaller architecture or raise latency_budget_ms"
        )
    if report.memory > _MOST_MEMORY:
        raise ServingError(
            f"{report.name} {report.version} takes {report.memory / 2**20:.0f} MiB of memory, more than the {_MOST_MEMORY / 2**20:.0f} MiB "
            "that a predictor may; take a smaller architecture"
        )
    return report


def _evaluated_classes(model_dir: Path) -> list[str]:
    """Class names in the order in which the evaluation had them, from its own record and not from config.json."""
    try:
        evaluation = json.loads((model_dir / files.EVALUATION).read_bytes())
        names = [entry["name"] if isinstance(entry, dict) else entry for entry in evaluation["classes"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServingError(
            f"{files.EVALUATION} of {model_dir.name} has no list of classes; evaluate and publish the model again"
        ) from error
    return [str(name) for name in names]


def _check_metadata(client: httpx.Client, name: str, version: str, classes: list[str]) -> None:
    metadata = _get(client, f"/v2/models/{name}")
    if metadata["versions"] != [version]:
        raise ServingError(f"the predictor serves version {metadata['versions']}, not {version}")
    served = metadata["classes"]
    if served != classes:
        first = next((k for k, pair in enumerate(zip(served, classes, strict=False)) if pair[0] != pair[1]), min(len(served), len(classes)))
        raise ServingError(
            f"{name} {version} serves its labels in another order than evaluated (first at class {first}: "
            f"{served[first : first + 1]}, evaluated as {classes[first : first + 1]}); publish the model again"
        )


def _check_golden(client: httpx.Client, name: str, version: str, images: Pixels, expected: Array, classes: list[str]) -> dict[str, float]:
    ways = {
        "V1, arrays": _v1_arrays,
        "V1, PNG in base64": _v1_pictures,
        "V2, JSON": _v2_json,
        "V2, binary": _v2_binary,
        "V2, pictures": _v2_pictures,
    }
    found: dict[str, float] = {}
    for way, ask in ways.items():
        labels, rows = [], []
        for start in range(0, len(images), _BATCH):
            some_labels, some_rows, some_version = ask(client, name, images[start : start + _BATCH], classes)
            if some_version != version:
                raise ServingError(f"{way}: the answer names version {some_version}, not {version}")
            labels += some_labels
            rows.append(some_rows)
        probabilities = np.concatenate(rows)
        found[way] = difference = float(np.abs(probabilities - expected).max())
        if not difference <= GOLDEN_TOLERANCE:
            worst = int(np.abs(probabilities - expected).max(axis=1).argmax())
            raise ServingError(
                f"{name} {version} gives other probabilities than evaluated ({way}, golden picture {worst}: {difference:.4g} away, "
                f"allowed {GOLDEN_TOLERANCE:g}); the model is not prepared as it was evaluated: publish it again"
            )
        _check_labels(way, labels, probabilities, classes)
    return found


def _check_labels(way: str, labels: list[str], probabilities: Array, classes: list[str]) -> None:
    for index, (label, row) in enumerate(zip(labels, probabilities, strict=True)):
        if label not in classes or row[classes.index(label)] < row.max() - GOLDEN_TOLERANCE:
            raise ServingError(f"{way}, golden picture {index}: the label is {label!r}, but {classes[int(row.argmax())]!r} is likeliest")


def _v1_arrays(client: httpx.Client, name: str, images: Pixels, classes: list[str]) -> tuple[list[str], Array, str]:
    return _v1(client, name, images.tolist(), classes)


def _v1_pictures(client: httpx.Client, name: str, images: Pixels, classes: list[str]) -> tuple[list[str], Array, str]:
    return _v1(client, name, [{"b64": base64.b64encode(_png(image)).decode()} for image in images], classes)


def _v1(client: httpx.Client, name: str, instances: list[Any], classes: list[str]) -> tuple[list[str], Array, str]:
    answer = _post(client, f"/v1/models/{name}:predict", json={"instances": instances, "return_probabilities": True})
    predictions = answer["predictions"]
    rows = np.array([[entry["probabilities"].get(label, np.nan) for label in classes] for entry in predictions])
    return [entry["label"] for entry in predictions], rows, answer["model_version"]


def _v2_json(client: httpx.Client, name: str, images: Pixels, classes: list[str]) -> tuple[list[str], Array, str]:
    tensor = {"name": INPUT_NAME, "shape": list(images.shape), "datatype": "UINT8", "data": images.ravel().tolist()}
    return _v2(_post(client, f"/v2/models/{name}/infer", json={"inputs": [tensor], "outputs": _WANTED}))


def _v2_pictures(client: httpx.Client, name: str, images: Pixels, classes: list[str]) -> tuple[list[str], Array, str]:
    data = [base64.b64encode(_png(image)).decode() for image in images]
    tensor = {"name": INPUT_NAME, "shape": [len(data)], "datatype": "BYTES", "data": data}
    return _v2(_post(client, f"/v2/models/{name}/infer", json={"inputs": [tensor], "outputs": _WANTED}))


def _v2_binary(client: httpx.Client, name: str, images: Pixels, classes: list[str]) -> tuple[list[str], Array, str]:
    raw = np.ascontiguousarray(images).tobytes()
    tensor = {"name": INPUT_NAME, "shape": list(images.shape), "datatype": "UINT8", "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor], "outputs": _WANTED}).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    return _v2(_post(client, f"/v2/models/{name}/infer", content=head + raw, headers=headers))


_WANTED = [{"name": "label"}, {"name": OUTPUT_NAME}]


def _v2(answer: dict[str, Any]) -> tuple[list[str], Array, str]:
    outputs = {output["name"]: output for output in answer["outputs"]}
    rows = np.array(outputs[OUTPUT_NAME]["data"]).reshape(outputs[OUTPUT_NAME]["shape"])
    return outputs["label"]["data"], rows, answer["model_version"]


def _png(image: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def _measure(client: httpx.Client, name: str, image: Pixels) -> tuple[float, float]:
    """Median and 95th percentile of one picture's requests, in seconds."""
    body, times = json.dumps({"instances": [image.tolist()]}), []
    for _ in range(_REQUESTS):
        began = time.perf_counter()
        _post(client, f"/v1/models/{name}:predict", content=body)
        times.append(time.perf_counter() - began)
    return float(np.median(times)), float(np.quantile(times, 0.95))


def _get(client: httpx.Client, path: str) -> dict[str, Any]:
    return _answer(client.get, path)


def _post(client: httpx.Client, path: str, **content: Any) -> dict[str, Any]:
    return _answer(client.post, path, **content)


def _answer(send: Any, path: str, **content: Any) -> dict[str, Any]:
    try:
        response = send(path, **content)
    except httpx.HTTPError as error:
        raise ServingError(f"{path} was not answered ({type(error).__name__}); see the predictor's log") from error
    if response.status_code != 200:
        raise ServingError(f"{path} was answered with status {response.status_code}: {response.text[:200]}")
    document: dict[str, Any] = response.json()
    return document
