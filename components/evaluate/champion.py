"""The version that serves, scored on the challenger's test pictures, or why the two cannot be compared."""

from dataclasses import dataclass
from pathlib import Path

from components.bundle.dataset import Labels
from components.bundle.evaluation import Champion
from components.bundle.model import Classifier, Probabilities
from components.classifier.errors import EvaluationError, IntegrityError
from components.classifier.images import Pixels
from components.evaluate.comparison import compare
from components.evaluate.inference import score


@dataclass(frozen=True)
class VersionFiles:
    """A published version and where its files are; `path` is None where `problem` says why they could not be fetched."""

    version: str
    path: Path | None
    problem: str = ""


def score_champion(
    files: VersionFiles,
    challenger: Classifier,
    images: Pixels,
    labels: Labels,
    probabilities: Probabilities,
    groups: Labels | None = None,
) -> tuple[Champion, Probabilities | None]:
    """Score the champion on `images` and pair it with the challenger's `probabilities`; `groups`: see `compare`.

    Where they cannot be compared, the reason is recorded and nothing is raised: the gate then holds.
    """
    if files.path is None:
        return _not_compared(files, files.problem or "its files could not be fetched"), None
    try:
        champion = Classifier(files.path)
    except IntegrityError as error:
        return _not_compared(files, f"it cannot be loaded: {error}"), None
    classes_equal, shape_equal = champion.classes == challenger.classes, champion.spec == challenger.spec
    digest = champion.config.dataset_digest
    if not classes_equal:
        reason = f"it knows other classes: {difference(champion.classes, challenger.classes)}"
        return _not_compared(files, reason, classes_equal=False, shape_equal=shape_equal, digest=digest), None
    if not shape_equal:
        reason = f"it takes {champion.spec} pictures, the challenger {challenger.spec}"
        return _not_compared(files, reason, classes_equal=True, shape_equal=False, digest=digest), None
    try:
        theirs = score(champion, images).probabilities
    except EvaluationError as error:
        return _not_compared(files, f"it cannot be scored: {error}", classes_equal=True, shape_equal=True, digest=digest), None
    paired = compare(labels, probabilities, theirs, challenger.classes, groups)
    return (
        Champion(
            version=files.version,
            classes_equal=True,
            shape_equal=True,
            same_images=True,
            dataset_digest=digest,
            reason="",
            paired=paired,
        ),
        theirs,
    )


def difference(mine: list[str], theirs: list[str]) -> str:
    """Say in a few words how two class lists differ."""
    if len(mine) != len(theirs):
        return f"{len(mine)} against {len(theirs)}"
    if sorted(mine) == sorted(theirs):
        return "the same names in another order"
    first = next(k for k, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b)
    return f"number {first} is {mine[first]!r} against {theirs[first]!r}"


def _not_compared(
    files: VersionFiles, reason: str, *, classes_equal: bool = False, shape_equal: bool = False, digest: str = ""
) -> Champion:
    return Champion(
        version=files.version,
        classes_equal=classes_equal,
        shape_equal=shape_equal,
        same_images=False,
        dataset_digest=digest,
        reason=reason,
        paired=None,
    )
