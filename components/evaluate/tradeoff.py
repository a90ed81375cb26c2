"""Time a variant beside its parents and the champion, in turns, so that a machine that slows down slows all of them."""

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from components.bundle import files
from components.bundle.dataset import Labels
from components.bundle.evaluation import Measured, Role, Tradeoff
from components.bundle.model import Classifier, Probabilities
from components.classifier.cpu import available_cpus
from components.classifier.errors import EvaluationError, IntegrityError
from components.classifier.images import Pixels
from components.classifier.intervals import proportion_interval
from components.evaluate.comparison import VersionFiles
from components.evaluate.inference import score

BATCH, THREADS = 64, 1
RUNS, WARM_UP = 100, 3
SECONDS = 10.0
"""Slow models are timed less often, but MIN_RUNS times at least."""
MIN_RUNS = 5


@dataclass(frozen=True)
class Candidate:
    """A model to be timed: its version ("" for the one that is evaluated), what it is to that one, and its folder."""

    version: str
    role: Role
    path: Path


def candidates(model: Path, parents: Mapping[str, Path], champion: VersionFiles | None) -> list[Candidate]:
    """The model, its parents and the champion, each once; a champion that could not be fetched is left out."""
    found = [Candidate("", "this model", model)]
    serves = champion.version if champion else ""
    found += [Candidate(version, "parent and champion" if version == serves else "parent", path) for version, path in parents.items()]
    if champion and champion.path and serves not in parents:
        found.append(Candidate(serves, "champion", champion.path))
    return found


def measure_tradeoff(
    chosen: Sequence[Candidate], images: Pixels, labels: Labels, known: Mapping[str, Probabilities], warnings: list[str]
) -> Tradeoff:
    """Score and time the models on the same pictures, uint8 (N, H, W, C), with one thread each; `known` are answers by version, (N, K).

    Models that take other pictures, know other classes or cannot be scored are left out, with a line in `warnings`.
    """
    first = Classifier(chosen[0].path, threads=THREADS)
    models, correct = [], []
    for one in chosen:
        without = f"accuracy against latency is shown without the {one.role} {one.version}"
        try:
            classifier = first if one is chosen[0] else Classifier(one.path, threads=THREADS)
            if (classifier.spec, classifier.classes) != (first.spec, first.classes):
                warnings.append(f"{without}: it takes other pictures, or knows other classes")
                continue
            answers = known[one.version] if one.version in known else score(classifier, images).probabilities
        except (EvaluationError, IntegrityError) as error:
            warnings.append(f"{without}: {error}")
            continue
        models.append((one, classifier))
        correct.append(int((answers.argmax(axis=1) == labels).sum()))
    batch = np.ascontiguousarray(images[np.arange(BATCH) % len(images)])
    alone, runs = _medians([classifier for _, classifier in models], batch, 1)
    together, more_runs = _medians([classifier for _, classifier in models], batch, BATCH)
    measured = []
    for (one, classifier), right, one_ms, batch_ms in zip(models, correct, alone, together, strict=True):
        low, high = proportion_interval(right, len(labels))
        measured.append(
            Measured(
                version=one.version,
                role=one.role,
                made=classifier.config.architecture,
                accuracy=right / len(labels),
                low=low,
                high=high,
                size_bytes=(one.path / files.ONNX).stat().st_size,
                one_ms=one_ms,
                batch_ms=batch_ms / BATCH,
            )
        )
    return Tradeoff(models=measured, batch=BATCH, threads=THREADS, runs=min(runs, more_runs), hardware=hardware())


def _medians(models: Sequence[Classifier], pictures: Pixels, size: int) -> tuple[list[float], int]:
    """Milliseconds of a run, for each model, and the number of runs."""
    times: list[list[float]] = []
    begun = time.perf_counter()
    for k in range(WARM_UP + RUNS):
        row = k % len(pictures)
        batch = pictures[row : row + 1] if size == 1 else pictures
        turn = []
        for model in models:
            start = time.perf_counter()
            model.probabilities(batch, batch_size=size)
            turn.append((time.perf_counter() - start) * 1000)
        times.append(turn)
        if len(times) >= WARM_UP + MIN_RUNS and time.perf_counter() - begun > SECONDS:
            break
    timed = np.array(times[WARM_UP:])
    return np.median(timed, axis=0).tolist(), len(timed)


def hardware() -> str:
    """What measured: the CPU's name, how many the process may use, and the version of onnxruntime."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8", "replace").splitlines() if info.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "") or platform.machine()
    count = available_cpus()
    return f"{name}, {count} CPU{'' if count == 1 else 's'}, onnxruntime {onnxruntime.__version__}"
