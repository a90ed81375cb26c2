"""A model version in memory: verified against its manifest, loaded, and checked with its golden pictures."""

import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.bundle import files
from components.bundle.golden import GOLDEN_TOLERANCE, difference, load_golden, load_golden_familiarity
from components.bundle.model import Classifier
from components.bundle.reference import Reference, Sureness
from components.classifier.cpu import available_cpus
from components.classifier.errors import IntegrityError, ServingError
from components.classifier.images import ImageSpec, Pixels
from components.predictor.batching import MAX_PICTURES, MAX_TOGETHER, run_together
from components.predictor.speed import QUICK_SECONDS

Floats = npt.NDArray[np.float32]

_SMALL_SECONDS = 0.001
_MIN_SPEEDUP = 1.4
_MEASURING_SECONDS = 0.2
MODELCAR_SECONDS = 60.0
"""How long a model is waited for that a container beside this one mounts."""


@dataclass(frozen=True)
class LoadedModel:
    """One loaded model version; requests in flight keep theirs when another takes over."""

    name: str
    version: str
    classifier: Classifier
    spec: ImageSpec
    """What the model takes."""
    classes: list[str]
    """Class names in the order of the model's outputs."""
    threads: int
    """Of onnxruntime."""
    quick: bool
    """Whether one picture takes so little time that the event loop may run the model."""
    together: bool
    """Whether it is a small model that gives a picture the same answer, bit for bit, alone and in a batch."""
    example: Pixels = field(repr=False)
    """A picture for examples, uint8 (H, W, C)."""
    sureness: Sureness | None = None
    """By which accuracy is estimated without labels; None for a version without reference.json, or of an older release."""


def load(name: str, directory: Path, threads: int = 0, device: str = "cpu", batches: bool = False) -> LoadedModel:
    """Verify every digest of a model folder, load it and run its golden pictures.

    `batches`: requests will be batched. Raises UsageError for a device that cannot be used, IntegrityError for files that differ
    from the manifest or do not belong together, and where a key is configured for another model's version, ServingError when the
    golden pictures do not give the probabilities that evaluation saw.
    """
    from components.registry import verify_directory
    from components.registry.signing import require_name

    _await_modelcar(directory)
    if not directory.is_dir():
        raise IntegrityError(f"{directory} is not a folder; name one that holds a model version and its {files.MANIFEST}")
    manifest = verify_directory(directory)
    require_name(manifest.name, name, str(directory))
    version = manifest.version
    pictures, expected = load_golden(directory)
    if device == "cpu" and not batches:
        classifier, used = _load_classifier(directory, threads, pictures[:1])
    else:
        used = threads or available_cpus()
        classifier = Classifier(directory, used, device, bound=True)
    if classifier.device != "cpu":
        _warm_up(classifier)
    check_golden(classifier, pictures, expected, load_golden_familiarity(directory))
    seconds = _seconds(classifier, pictures[:1])
    together = seconds < _SMALL_SECONDS and same_in_batches(classifier, pictures)
    reference = Reference.find(directory)
    sureness = reference.sureness if reference and reference.classes == classifier.classes else None
    quick = seconds < QUICK_SECONDS
    return LoadedModel(name, version, classifier, classifier.spec, classifier.classes, used, quick, together, pictures[0], sureness)


def _await_modelcar(directory: Path) -> None:
    """Wait until the version is there, where KServe says by MODEL_INIT_MODE that it comes from a container that starts beside this one."""
    end = time.monotonic() + MODELCAR_SECONDS
    while os.environ.get("MODEL_INIT_MODE") == "async" and not os.access(directory / files.MANIFEST, os.R_OK) and time.monotonic() < end:
        time.sleep(0.1)


def _load_classifier(directory: Path, threads: int, picture: Pixels) -> tuple[Classifier, int]:
    """Load with `threads`; 0 takes the container's CPU quota, or one thread where more do not make one picture much faster.

    Several threads slow small models down: waking them costs more than they save, and takes CPU from other requests.
    Returns the number too.
    """
    if threads:
        return Classifier(directory, threads=threads), threads
    one, cpus = Classifier(directory, threads=1), available_cpus()
    if cpus == 1 or len(picture) == 0 or picture.shape[1:] != one.spec.shape:
        return one, 1
    alone = _seconds(one, picture)
    if alone < _SMALL_SECONDS:
        return one, 1
    many = Classifier(directory, threads=cpus)
    return (many, cpus) if _seconds(many, picture) * _MIN_SPEEDUP < alone else (one, 1)


def _warm_up(classifier: Classifier) -> None:
    """Run each size of batch once: a GPU's first run of a size takes long."""
    size = 1
    while size <= MAX_PICTURES:
        classifier.answer(np.zeros((size, *classifier.spec.shape), np.uint8), size)
        size *= 2


def _seconds(classifier: Classifier, picture: Pixels) -> float:
    """Time of one picture's run: the shortest of up to 20, because other load only ever makes a run longer."""
    best, end = math.inf, time.perf_counter() + _MEASURING_SECONDS
    for _ in range(20):
        began = time.perf_counter()
        classifier.probabilities(picture)
        now = time.perf_counter()
        best = min(best, now - began)
        if now > end:
            break
    return best


def same_in_batches(classifier: Classifier, pictures: Pixels) -> bool:
    """Whether pictures get the same bits alone and in every batch of up to MAX_TOGETHER.

    Libraries choose their way of computing by the shape of a batch, not by the pixels.
    """
    some = np.resize(pictures, (MAX_TOGETHER, *pictures.shape[1:]))
    alone = [classifier.answer(some[index : index + 1]) for index in range(MAX_TOGETHER)]
    for number in range(2, MAX_TOGETHER + 1):
        for one, found in zip(alone, run_together(classifier, [some[index : index + 1] for index in range(number)]), strict=False):
            if any(a is not None and b is not None and a.tobytes() != b.tobytes() for a, b in zip(one, found, strict=True)):
                return False
    return True


def check_golden(classifier: Classifier, pictures: Pixels, expected: Floats, familiarity: Floats | None = None) -> None:
    """Raise ServingError unless the golden pictures give their probabilities and familiarity, within GOLDEN_TOLERANCE."""
    if len(pictures) == 0 or expected.shape != (len(pictures), len(classifier.classes)):
        raise ServingError(
            f"{files.GOLDEN} holds {len(pictures)} pictures and probabilities of shape {expected.shape}, "
            f"but the model has {len(classifier.classes)} classes; publish the model version again"
        )
    try:
        found = classifier.answer(pictures)
    except ValueError as error:
        raise ServingError(f"{files.GOLDEN} does not fit the model ({error}); publish the model version again") from error
    distances = {"probabilities": difference(found.probabilities, expected)}
    if familiarity is not None and found.familiarity is not None:
        distances["familiarity"] = difference(found.familiarity, familiarity)
    for what, distance in distances.items():
        if distance > GOLDEN_TOLERANCE:
            raise ServingError(
                f"golden pictures give {what} up to {distance:.4g} away from the evaluated ones "
                f"(allowed: {GOLDEN_TOLERANCE}); the model is not the one that was evaluated: publish it again"
            )
    if (familiarity is None) != (found.familiarity is None):
        raise ServingError(f"{files.GOLDEN} and the model disagree on whether there is a familiarity; publish the model version again")
