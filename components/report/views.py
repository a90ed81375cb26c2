"""What the report shows of an evaluation: chosen, sorted and put into words; no markup."""

import base64
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.bundle.dataset import Labels
from components.bundle.decision import HEADINGS, Outcome, RuleResult, Verdict
from components.bundle.evaluation import ClassResult, Evaluation, Mistake, Paired, PairedClass, Slice
from components.bundle.mistakes import MAX_SUSPECT, THUMBNAIL_SIDE, WrongPicture, most_suspect
from components.classifier.images import Pixels, as_image

MAX_CLASSES = 30
"""Rows of the confusion heatmap; of more classes, those with the most mistakes."""
MAX_PICTURE_BYTES = 2_500_000
"""Of all wrong pictures in the report together; the report stays below 5 MB."""
MIN_FALL = 0.1
"""A confidence that falls by less than this is not coloured as deeply as others: no part decides by itself."""
VERDICT_TONES: dict[Verdict, str] = {"promote": "good", "hold": "bad", "insufficient_data": "warn"}
OUTCOME_TONES: dict[Outcome, str] = {"pass": "good", "fail": "bad", "insufficient": "warn", "skipped": "plain"}
MARK_COLOUR, MARK_DEPTH, MARK_TONES = (255, 120, 0), 0.75, 64
MAX_LISTED = 5_000
"""Wrong pictures that the report lists, the most confident."""


@dataclass(frozen=True)
class Cell:
    """One cell of the heatmap: `count` pictures, `share` of the label's; `strength` 0 to 1 is how deep it is coloured."""

    count: int
    share: float
    strength: float
    right: bool
    predicted: str


@dataclass(frozen=True)
class Heatmap:
    """The row-normalised confusion matrix: `rows` of (label, number of pictures, cells), in the order of `columns`.

    `left_out` classes are not shown.
    """

    columns: list[str]
    rows: list[tuple[str, int, list[Cell]]]
    left_out: int


@dataclass(frozen=True)
class Picture:
    """A mistake with its picture as a data address; `pixelated` where it is drawn larger than it is.

    Where it is known which parts the model looked at, `marked` is the picture with these coloured, and `without` the confidence that
    is left when the most important one is hidden; "" and None elsewhere.
    """

    mistake: Mistake
    address: str
    pixelated: bool
    marked: str = ""
    without: float | None = None


@dataclass(frozen=True)
class ShownWrong:
    """A wrong picture; `address` is "" where the version or the page has no room for the picture itself."""

    picture: WrongPicture
    address: str
    pixelated: bool


@dataclass(frozen=True)
class Mistakes:
    """All wrong pictures by (label, predicted), the most frequent pair and the most confident picture first; `left_out` are not listed."""

    pairs: list[tuple[str, str, list[ShownWrong]]]
    total: int
    left_out: int
    without_picture: int


@dataclass(frozen=True)
class Banner:
    """What stands at the head of the report; `tone` is good, bad, warn or plain."""

    tone: str
    title: str
    text: str
    rules: list[RuleResult] = field(default_factory=list)
    about: str = ""


def heatmap(evaluation: Evaluation) -> Heatmap:
    """Choose the classes to show and normalise their rows over all classes."""
    matrix = np.array(evaluation.confusion_matrix)
    totals = matrix.sum(axis=1)
    chosen = most_confused(matrix, MAX_CLASSES)
    names = [evaluation.classes[k] for k in chosen]
    rows = []
    for i in chosen:
        cells = []
        for j in chosen:
            share = float(matrix[i, j] / totals[i]) if totals[i] else 0.0
            # The square root lifts rare confusions out of the background; a share of 1% is drawn at a tenth.
            strength = share if i == j else share**0.5
            cells.append(Cell(int(matrix[i, j]), share, round(strength, 3), bool(i == j), evaluation.classes[j]))
        rows.append((evaluation.classes[i], int(totals[i]), cells))
    return Heatmap(names, rows, len(matrix) - len(chosen))


def most_confused(matrix: Labels, most: int) -> Labels:
    """Return which classes have the most mistakes in a confusion matrix, int64 (K, K): at most `most` of them, in their own order."""
    mistakes = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diag(matrix)
    return np.sort(np.argsort(-mistakes, kind="stable")[:most])


def pictures(evaluation: Evaluation, images: Pixels, occluded: npt.NDArray[np.float32] | None) -> list[Picture]:
    """Pair the mistakes with their pictures, as small PNGs inside the page, and with what the model looked at."""
    shown = [Picture(mistake, *picture_address(image)) for mistake, image in zip(evaluation.mistakes, images, strict=True)]
    for k, hidden in enumerate([] if occluded is None else occluded):
        confidence = shown[k].mistake.confidence
        marked = _marked_address(images[k], confidence - hidden)
        shown[k] = replace(shown[k], marked=marked, without=min(confidence, float(hidden.min())))
    return shown


def suspects(every: Sequence[WrongPicture], images: Mapping[int, Pixels]) -> list[ShownWrong]:
    """Choose the pictures whose labels are most suspect; within a quarter of the page's room for pictures."""
    return _shown(most_suspect(every)[:MAX_SUSPECT], images, MAX_PICTURE_BYTES // 4)


def mistakes(every: Sequence[WrongPicture], images: Mapping[int, Pixels]) -> Mistakes:
    """Group all wrong pictures by label and prediction, with as many pictures as the page has room for."""
    pairs: dict[tuple[str, str], list[ShownWrong]] = {}
    for wrong in _shown(every[:MAX_LISTED], images, MAX_PICTURE_BYTES):
        pairs.setdefault((wrong.picture.label, wrong.picture.predicted), []).append(wrong)
    ordered = sorted(((*pair, shown) for pair, shown in pairs.items()), key=lambda pair: -len(pair[2]))
    without = sum(not wrong.address for _, _, shown in ordered for wrong in shown)
    return Mistakes(ordered, len(every), max(0, len(every) - MAX_LISTED), without)


def banner(evaluation: Evaluation, decision: Mapping[str, Any] | None) -> Banner:
    """The gate's verdict where there is one, else what the numbers say by themselves."""
    if decision is not None and decision.get("verdict"):
        return _judged(decision)
    return Banner(*_standing(evaluation))


def weak_slices(evaluation: Evaluation) -> list[Slice]:
    """The slices other than classes, least accurate first, those that are significantly worse than the rest first."""
    return sorted(
        (s for s in evaluation.slices if s.column != "class"),
        key=lambda s: (s.p_worse is None or s.p_worse >= 0.05, s.accuracy.value),
    )


def classes_by_recall(evaluation: Evaluation) -> list[ClassResult]:
    """Every class, weakest recall first, those without test pictures last."""
    return sorted(evaluation.per_class, key=lambda c: (c.recall is None, c.recall or 0.0))


def recall_floor(evaluation: Evaluation) -> float:
    """Where the axis of recalls begins: the tenth below every interval, 0.9 at most."""
    return min(0.9, math.floor(10 * min(c.recall_low for c in evaluation.per_class if c.recall_low is not None)) / 10)


def moved_classes(paired: Paired) -> list[PairedClass]:
    """The classes on which champion and challenger differ most in pictures, largest first."""
    moved = [c for c in paired.per_class if c.only_challenger != c.only_champion]
    return sorted(moved, key=lambda c: -abs(c.only_challenger - c.only_champion))[:8]


def against_champion(paired: Paired) -> tuple[str, str]:
    """Whether the difference is more than chance, as (tone, words)."""
    if paired.mcnemar_p < 0.05:
        return ("good", "better than the champion") if paired.difference > 0 else ("bad", "worse than the champion")
    return ("plain", "not clearly different from the champion")


def _standing(evaluation: Evaluation) -> tuple[str, str, str]:
    accuracy, champion = evaluation.accuracy, evaluation.champion
    right = f"{accuracy.correct:,} of {accuracy.n:,} sealed test pictures right"
    if champion is None:
        return "plain", "Evaluated, not judged yet", f"{right}. Nothing serves yet, so there is nothing to compare with."
    if champion.paired is None:
        return "warn", "Not comparable with the champion", f"{right}. {champion.version}: {champion.reason}."
    tone, words = against_champion(champion.paired)
    return tone, f"Evaluated: {words}", f"{right}, the champion {champion.paired.accuracy.correct:,}. The gate has not judged it yet."


def _judged(decision: Mapping[str, Any]) -> Banner:
    verdict = decision["verdict"]
    rules = [RuleResult.model_validate(rule) for rule in decision.get("rules") or ()]
    rules = rules or [_rule(line) for line in decision.get("reasons") or ()]
    about = {"environment": "environment", "strategy": "strategy", "actor": "asked for by", "reason": "because"}
    summary = str(decision.get("summary") or "")
    text = " · ".join(f"{words} {decision[key]}" for key, words in about.items() if decision.get(key) not in {None, "", summary})
    return Banner(VERDICT_TONES.get(verdict, "plain"), HEADINGS.get(verdict, verdict), summary, rules, text)


def _rule(line: str) -> RuleResult:
    try:
        return RuleResult.parse(line)
    except ValueError:
        return RuleResult(rule="", outcome="skipped", reason=line)


def _shown(wrong: Sequence[WrongPicture], images: Mapping[int, Pixels], room: int) -> list[ShownWrong]:
    addresses = picture_addresses((it.row for it in wrong), images, room)
    return [ShownWrong(it, *address) for it, address in zip(wrong, addresses, strict=True)]


def picture_addresses(rows: Iterable[int], images: Mapping[int, Pixels], room: int) -> Iterator[tuple[str, bool]]:
    """Yield `picture_address` for each row; ("", False) without a picture of it, and once they have `room` bytes together."""
    for row in rows:
        address, pixelated = picture_address(images[row]) if room > 0 and row in images else ("", False)
        room -= len(address)
        yield address, pixelated


def picture_address(image: Pixels) -> tuple[str, bool]:
    """A picture uint8 (H, W, C) as a small PNG in a data address, and whether it is drawn larger than it is."""
    picture = as_image(image)
    pixelated = max(picture.size) < THUMBNAIL_SIDE
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    return _address(picture), pixelated


def _marked_address(image: Pixels, falls: npt.NDArray[np.float32]) -> str:
    """A picture uint8 (H, W, C) in grey, and orange where hiding a part lets the answer fall most; `falls` (rows, columns) per part."""
    grey = as_image(image).convert("L")
    factor = THUMBNAIL_SIDE / max(grey.size)
    size = max(1, round(grey.width * factor)), max(1, round(grey.height * factor))
    grey = grey.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS)
    depth = np.clip(falls / max(falls.max(), MIN_FALL), 0, 1) * MARK_DEPTH
    mask = Image.fromarray(np.rint(255 * depth).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    return _address(Image.composite(Image.new("RGB", size, MARK_COLOUR), grey.convert("RGB"), mask).quantize(MARK_TONES))


def _address(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
