"""A version's evaluation with its predictions, read from the registry."""

from dataclasses import dataclass

from components.bundle.evaluation import Evaluation
from components.bundle.files import EVALUATION, PREDICTIONS, TRAINING
from components.bundle.predictions import Predictions
from components.bundle.training import LearningCurves
from components.classifier.errors import EvaluationError
from components.registry.registry import Registry


@dataclass(frozen=True)
class Evaluated:
    """A version and how it did on its sealed test pictures; `training` is None where its epochs are not known."""

    name: str
    version: str
    evaluation: Evaluation
    predictions: Predictions
    training: LearningCurves | None


def read_evaluated(registry: Registry, version: str) -> Evaluated:
    """Read a version's evaluation and predictions, checked by digest.

    Raises VersionNotFound, IntegrityError for changed files, and EvaluationError where there are none that this release can read.
    """
    there = registry.get(version).manifest.files.keys()
    if missing := {EVALUATION, PREDICTIONS} - there:
        raise EvaluationError(f"version {version} was published without {', '.join(sorted(missing))}; evaluate the model again")
    with registry.opened(version, {EVALUATION, PREDICTIONS, TRAINING} & there) as folder:
        training = LearningCurves.of(folder) if TRAINING in there else None
        return Evaluated(registry.name, version, Evaluation.load(folder), Predictions.load(folder), training)
