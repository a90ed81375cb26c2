"""What stops an ingest, and what is only reported: each check looks at a collection and returns a result or raises.

Pictures with the same pixels are never in two splits, never under two labels. The rules, for pictures whose decoded (and resized)
pixels are equal, whatever their files and names:

- A training or validation picture that is also in a given test split, or a training picture that is also in a given
  validation split, is a leak. Up to `max_duplicates` leaks are dropped from training or validation (never from test), more are refused.
- Copies outside the test split whose labels disagree are set aside, all of them: no label can be trusted.
- Copies within one split are used and reported; what is split off keeps all copies of a picture in one split (see split.py).
"""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from components.bundle.dataset import SplitName
from components.classifier.errors import DataError
from components.ingest.collection import SPLIT_CODE, Collection, blocks
from components.ingest.unread import are_numbered_parts, are_pictures_and_masks
from components.readers.listing import counted, quoted, some
from components.readers.table import SPLIT_COLUMN, SPLIT_NAMES
from components.settings.ingest import IngestSettings

MAX_CONSTANT, MAX_CONSTANT_OF_CLASS = 0.1, 0.5
"""Shares of all pictures, and of one class' pictures, that may have one colour only."""

_USUAL_WEIGHTS = ("weight", "sample_weight")
MAX_CONTRADICTIONS = 0.1
"""Share of the pictures that may have the pixels of another with another label."""

MAX_DARK = 16
"""Pictures of which no pixel is above this value, of 255, are reported."""

_TEST = SPLIT_CODE["test"]
_IS_SPLIT, _YES_NO = re.compile(r"(is_?)?(train|valid|val|test)", re.IGNORECASE), frozenset(["true", "false", "0", "1", "yes", "no"])
_COMPANION = re.compile(r".+(?=[ _-](masks?|seg|segmentation|gt|thumb|thumbnail|overlay|annotated)([ _-]?\d+)?\.\w+$)", re.IGNORECASE)
_WITHOUT_LABEL = frozenset(
    [
        *("unlabeled", "unlabelled", "unsorted", "undecided", "unclassified", "unsup", "todo"),
        *("nan", "nat", "null", "none", "na", "n/a", "#n/a"),  # what programs write for a value that is missing
    ]
)
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_RANGE, _DATE = re.compile(r"\d+ ?- ?\d+"), re.compile(rf"\d{{1,2}}-({_MONTHS})|({_MONTHS})-\d\d", re.IGNORECASE)
_WITH_POINT, _CUT_NUMBER = re.compile(r"-?\d+\.0+"), re.compile(r"\d([.,]\d+)?E\+\d{2,}", re.IGNORECASE)
"""Whole numbers of a column with empty cells, as pandas writes them; long ones as spreadsheets write them, without their last digits."""
_SLIPS, _LIST = re.compile(r"[\s._\u00ad\u200b-\u200f\u2060\ufe00-\ufe0f\ufeff-]"), re.compile(r"\s*[,;|]\s*")


@dataclass(frozen=True)
class Check:
    """One line of the report: `passed` is False where a person should look, although the run goes on."""

    name: str
    passed: bool
    detail: str

    def as_dict(self) -> dict[str, Any]:
        """For dataset.json."""
        return {"name": self.name, "passed": self.passed, "detail": self.detail}


def minimum_per_class(collection: Collection) -> int:
    """How many different pictures a class needs to be in every split: one in training, one in each split that is split off."""
    given = collection.given_splits
    return 1 + ("test" not in given) + ("validation" not in given)


def check_classes(collection: Collection, keep: npt.NDArray[np.bool_], copies_count: bool = False) -> Check:
    """Hold the collection to two classes or more, each with enough different pictures wherever it is needed.

    `keep` (N,) says which pictures are still used; with `copies_count` equal pictures count each.
    Raises DataError naming each class with its counts and the minimum.
    """
    if len(collection.classes) < 2:
        raise DataError(
            f"there is one class only ({some(collection.classes) or 'none'}, {counted(int(keep.sum()), 'picture')}); "
            "a classifier needs two or more: one folder per class"
        )
    need = minimum_per_class(collection)
    pool = keep & (collection.given <= SPLIT_CODE["train"])
    poor = []
    for label, name in enumerate(collection.classes):
        count = int((pool & (collection.labels == label)).sum())
        different = len(np.unique(collection.prints[pool & (collection.labels == label)]))
        if (count if copies_count else different) < need:
            poor.append(_describe(collection, name, label, count, different, keep))
    if poor:
        raise DataError(
            f"{len(poor)} of {len(collection.classes)} classes have too few pictures: {some(poor, 12)}; each class needs at least {need} "
            f"different ones{_where(collection)}: add pictures, or remove the class from every split"
        )
    _check_given(collection, keep)
    return Check("classes", True, f"{len(collection.classes)} classes, each with at least {need} different pictures")


def check_constant(collection: Collection, keep: npt.NDArray[np.bool_], levels: int) -> Check:
    """Refuse a collection whose pictures have one colour only, and report a few of them.

    Raises DataError above MAX_CONSTANT of all pictures or MAX_CONSTANT_OF_CLASS of one class.
    """
    constant = collection.constant & keep
    count, total = int(constant.sum()), int(keep.sum())
    if not count:
        return Check("constant pictures", True, "no picture has one colour only")
    found = np.flatnonzero(constant)
    example, value = quoted(collection.names[found[0]]), collection.images[found[0] : found[0] + 1][0, 0, 0].tolist()
    per_class = {name: _share(constant, collection.labels == label, keep) for label, name in enumerate(collection.classes)}
    worst = max(per_class, key=lambda name: per_class[name])
    if count > MAX_CONSTANT * total or per_class[worst] > MAX_CONSTANT_OF_CLASS:
        raise DataError(
            f"{count} of {total} pictures have one colour only (class {worst!r}: {per_class[worst]:.0%}; such as {example}, value "
            f"{value}); nothing can be learned from them: look how they were saved, or remove them"
            f"{_shallow(collection, levels)}"
        )
    named = some(collection.names[k] for k in found)
    return Check("constant pictures", False, f"{count} of {total} pictures have one colour only: {named}")


def check_levels(collection: Collection, levels: int) -> Check:
    """Report files of 16 bits that use few of them, as 10- and 12-bit data do, and pictures without a bright pixel."""
    brightest = max(int(block.max()) for block in blocks(collection.images))
    told = f"the brightest pixel of all has the value {brightest} of 255"
    if hint := _shallow(collection, levels):
        return Check("levels", False, told + hint)
    return Check("levels", brightest > MAX_DARK, told + ("" if brightest > MAX_DARK else "; look how the pictures were saved"))


def check_columns(collection: Collection) -> Check | None:
    """Report columns that hold splits under another name, where the source gives none, and numbers that have lost their last digits."""
    doubtful = [] if collection.given_splits else [name for name, values in collection.columns.items() if _holds_splits(name, values)]
    told = [
        f"column {some(doubtful)} seems to say the splits, and is not used for that: call it {SPLIT_COLUMN}, with the values train, "
        "validation and test"
    ]
    cut = ((name, value) for name, values in collection.columns.items() for value in values if value and _CUT_NUMBER.fullmatch(value))
    if (found := next(cut, None)) is not None:
        told.append(f"column {found[0]} has numbers without their last digits, such as {found[1]}: save it as text where they are names")
    told = told if doubtful else told[1:]
    return Check("columns", False, "; ".join(told)) if told else None


def _holds_splits(column: str, values: list[str | None]) -> bool:
    found = {value.strip().casefold() for value in values if value}
    return len(found) > 1 and (found <= SPLIT_NAMES.keys() or (_IS_SPLIT.fullmatch(column) is not None and found <= _YES_NO))


def check_companions(collection: Collection) -> Check | None:
    """Report pictures that are named like masks or small copies of others beside them: they are trained on as pictures."""
    found = [(name, f"{base[0]}.") for name in collection.names if (base := _COMPANION.match(name))]
    wanted = {base for _, base in found}
    there = {stem for name in collection.names if (stem := f"{name.rpartition('.')[0]}.") in wanted} if wanted else set()
    if not (named := [name for name, base in found if base in there]):
        return None
    told = f"{counted(len(named), 'picture')} named like a mask or copy of the one beside it: {some(named, 3)}"
    return Check("companions", False, f"{told}; move them out of the source, unless they are pictures like the others")


def _shallow(collection: Collection, levels: int) -> str:
    """Say how many bits files of 16 bits may really have; "" where they use more than 12, or no fewer than `levels`."""
    bits = 10 if collection.peak < 2**10 else 12
    if not collection.deep or collection.peak >= 2**bits or bits >= levels:
        return ""
    few = "the file" if collection.deep == 1 else f"all {collection.deep:,} files"
    return (
        f"; {few} of 16 bits per sample hold no value above {collection.peak:,} of {2**levels - 1:,}: "
        f"if they are of {bits} bits, set levels={bits}, else they are {2 ** (levels - bits)} times too dark"
    )


def check_names(collection: Collection) -> Check:
    """Report class names that hardly differ, those that are several other classes' names in one, and those of pictures without a label.

    Raises DataError where the classes are called like pictures and their masks.
    """
    if are_pictures_and_masks(collection.classes):
        raise DataError(
            f"the classes would be {some(collection.classes)}: these folders hold pictures and their masks, and a classifier takes one "
            "label per picture; give class folders, or a table of labels"
        )
    alike: dict[str, list[str]] = defaultdict(list)
    for name in collection.classes:
        alike[_rough(name)].append(name)
    pairs = [" and ".join(map(repr, names)) for names in alike.values() if len(names) > 1]
    parts = {name: set(_LIST.split(name)) for name in collection.classes}
    counts = Counter(chain.from_iterable(parts.values()))
    lists = [name for name, found in parts.items() if len(found) > 1 and any(counts[part] > 1 for part in found)]
    lists += [name for name in collection.classes if name.startswith("[") and name.endswith("]")]
    told = [f"classes differ only in case, spaces or punctuation, or as numbers: {some(pairs)}; are they meant to be one?"] if pairs else []
    told += [f"classes look like lists of labels: {some(map(repr, lists))}; a classifier gives one label per picture"] if lists else []
    if without := [name for name in collection.classes if _SLIPS.sub("", name.casefold()) in _WITHOUT_LABEL]:
        what, whose = ("is a class", "its") if len(without) == 1 else ("are classes", "their")
        told.append(f"{some(without)} {what} like the others; if {whose} pictures have no label, move them out of the source")
    dates = [name for name in collection.classes if _DATE.fullmatch(name)]
    if dates and any(map(_RANGE.fullmatch, collection.classes)):
        told.append(f"{some(dates)} may be a range, such as 1-10, that a spreadsheet has made a date of: save that column as text")
    if are_numbered_parts(collection.classes):
        told.append(f"{some(collection.classes)} are named like parts of one set; if they are, give a table of labels as the source")
    if all(map(_WITH_POINT.fullmatch, collection.classes)):
        told.append(f"{some(collection.classes)} are whole numbers with a point, as of a column with empty cells; write 0 for 0.0")
    return Check("class names", not told, "; ".join(told) or "all class names are clearly different")


def _rough(name: str) -> str:
    """A class name without what may be a slip: 1, 01 and 1.0 are one number; case, width, spaces and punctuation do not count."""
    try:
        return str(float(name))
    except ValueError:
        return _SLIPS.sub("", unicodedata.normalize("NFKC", name).casefold()) or name


def _check_given(collection: Collection, keep: npt.NDArray[np.bool_]) -> None:
    """Every class of training must be in a given test split."""
    if "test" not in collection.given_splits:
        return
    in_test = keep & (collection.given == SPLIT_CODE["test"])
    missing = [
        f"{quoted(name)} ({int((keep & (collection.labels == label) & ~in_test).sum())} in training)"
        for label, name in enumerate(collection.classes)
        if not (in_test & (collection.labels == label)).any()
    ]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(collection.classes)} classes have no picture in the test split: {some(missing, 12)}; "
            "add test pictures, or remove the class from training"
        )


def _describe(collection: Collection, name: str, label: int, count: int, different: int, keep: npt.NDArray[np.bool_]) -> str:
    notes = [counted(count, "picture")]
    if different < count:
        notes.append(f"only {different} different")
    if collection.other_files[name]:
        notes.append(counted(collection.other_files[name], "other file"))
    for split in collection.given_splits:
        if split != "train" and (there := int((keep & (collection.labels == label) & (collection.given == SPLIT_CODE[split])).sum())):
            notes.append(f"{there} in {split}")
    unused = sum(1 for entry in collection.set_aside if f"/{name}/" in f"/{entry['file']}")
    if unused:
        notes.append(f"{unused} set aside")
    return f"{quoted(name)} ({', '.join(notes)})"


def _where(collection: Collection) -> str:
    split_off: list[SplitName] = [split for split in ("validation", "test") if split not in collection.given_splits]
    if not split_off:
        return " in training"
    return f" in training, so that {' and '.join(split_off)} get{'s' if len(split_off) == 1 else ''} one too"


def _share(constant: npt.NDArray[np.bool_], of_class: npt.NDArray[np.bool_], keep: npt.NDArray[np.bool_]) -> float:
    total = int((of_class & keep).sum())
    return float((constant & of_class).sum()) / total if total else 0.0


def resolve_duplicates(collection: Collection, keep: npt.NDArray[np.bool_], max_duplicates: int) -> list[Check]:
    """Drop leaks and contradictions from `keep` (N,), which is changed, and report them.

    Raises DataError above the limits, naming the pictures on both sides.
    """
    groups = _groups(collection, keep)
    return [
        _leaks(collection, keep, groups, max_duplicates),
        _contradictions(collection, keep, groups),
        _copies(collection, keep, groups),
    ]


def _groups(collection: Collection, keep: npt.NDArray[np.bool_]) -> list[list[int]]:
    """Places of equal pictures, for pictures that occur more than once."""
    kept = np.flatnonzero(keep)
    _, number, counts = np.unique(collection.prints[kept], return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts[number] > 1)
    places: dict[int, list[int]] = defaultdict(list)
    for k, which in zip(kept[several].tolist(), number[several].tolist(), strict=True):
        places[which].append(k)
    return list(places.values())


def _leaks(collection: Collection, keep: npt.NDArray[np.bool_], groups: list[list[int]], limit: int) -> Check:
    lines, dropped = [], []
    given = np.maximum(collection.given, SPLIT_CODE["train"])  # what has no split of its own is trained on where others have one
    for group in groups:
        last = max(int(given[k]) for k in group)
        leaks = [k for k in group if given[k] < last]
        if leaks:
            kept = next(k for k in group if given[k] == last)
            dropped += [(k, kept) for k in leaks]
            lines += [_line(collection, k, kept) for k in leaks]
    if len(dropped) > limit:
        raise DataError(
            f"{len(dropped)} pictures are in two splits, more than max_duplicates={limit}: {some(lines, 10)}; "
            f"remove them, or set max_duplicates={len(dropped)} to leave them out of training"
        )
    for k, kept in dropped:
        keep[k] = False
        collection.set_aside.append({"file": collection.names[k], "reason": f"same pixels as {_told(collection, kept)}"})
    if not dropped:
        return Check("pictures across splits", True, "no picture is in two splits")
    return Check("pictures across splits", False, f"{len(dropped)} pictures left out of training, being in two splits: {some(lines)}")


def _contradictions(collection: Collection, keep: npt.NDArray[np.bool_], groups: list[list[int]]) -> Check:
    left = [[k for k in group if keep[k]] for group in groups]
    found = [group for group in left if len({int(collection.labels[k]) for k in group}) > 1]
    if not found:
        return Check("contradicting labels", True, "no picture has two labels")
    lines = [" and ".join(_told(collection, k) for k in group[:4]) for group in found]
    count, total = sum(len(group) for group in found), int(keep.sum())
    if count > MAX_CONTRADICTIONS * total:
        raise DataError(
            f"{count} of {total} pictures have the pixels of a picture with another label, more than {MAX_CONTRADICTIONS:.0%}: "
            f"{some(lines, 6)}; correct the labels"
        )
    for group in found:
        for k in (k for k in group if collection.given[k] != _TEST):
            keep[k] = False
            other = next(j for j in group if collection.labels[j] != collection.labels[k])
            collection.set_aside.append(
                {"file": collection.names[k], "reason": f"same pixels as {_told(collection, other)}, another label"}
            )
    return Check("contradicting labels", False, f"{len(found)} pictures have two labels: {some(lines)}; set aside outside the test split")


def _copies(collection: Collection, keep: npt.NDArray[np.bool_], groups: list[list[int]]) -> Check:
    left = [copies for group in groups if len(copies := [k for k in group if keep[k]]) > 1]
    if not left:
        return Check("copies", True, "no picture occurs twice")
    example = " = ".join(quoted(collection.names[k]) for k in left[0][:3])
    extra = sum(len(copies) - 1 for copies in left)
    return Check(
        "copies", False, f"{len(left)} pictures occur more than once ({extra} copies, such as {example}); copies stay in one split"
    )


def _line(collection: Collection, leak: int, kept: int) -> str:
    text = f"{_told(collection, leak)} = {_told(collection, kept)}"
    if collection.labels[leak] != collection.labels[kept]:
        names = collection.classes[collection.labels[leak]], collection.classes[collection.labels[kept]]
        text += f" with two labels, {names[0]} and {names[1]}"
    return text


def _told(collection: Collection, k: int) -> str:
    """A picture's name, with its class where the name does not show it."""
    name, label = collection.names[k], collection.classes[collection.labels[k]]
    return quoted(name) if f"/{label}/" in f"/{name}" else f"{quoted(name)} ({label})"


def check_weights(collection: Collection, splits: npt.NDArray[np.int8], settings: IngestSettings) -> list[Check]:
    """Check the weights of pictures in the loss: each value of `weight_column` is a number of 0 or more, and none counts 1.

    Raises DataError for a column that is not there, another value, and a class whose training pictures all count 0.
    """
    column = settings.weight_column
    if not column:
        unused = [name for name in _USUAL_WEIGHTS if name in collection.columns]
        told = f"column {some(unused)} is not used in training; if it is a picture's weight in the loss, set weight_column={some(unused)}"
        return [Check("weights", False, told)] if unused else []
    if column not in collection.columns:
        raise DataError(f"there is no column {column!r} of weights; the columns are: {some(collection.columns) or 'none'}")
    values = collection.columns[column]
    weights = np.array([_weight(value, name, column) for value, name in zip(values, collection.names, strict=True)])
    train = splits == SPLIT_CODE["train"]
    totals = np.bincount(collection.labels[train], weights[train], len(collection.classes))
    if not totals.all():
        empty = some(name for name, total in zip(collection.classes, totals, strict=True) if not total)
        raise DataError(
            f"all training pictures of {empty} have weight 0 in column {column}; give some of them a weight, or remove the class"
        )
    without = sum(not values[k] for k in np.flatnonzero(train))
    missing = f"; {counted(without, 'picture')} without a value count 1" if without else ""
    least, most = weights[train].min(), weights[train].max()
    told = f"training pictures count {least:g} to {most:g} by column {column}{missing}; metrics count each picture once"
    return [Check("weights", True, told)]


def _weight(value: str | None, name: str, column: str) -> float:
    try:
        number = float(value or 1)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise DataError(f"{quoted(name)} has {value!r} in column {column}; a weight is a number of 0 or more")
    return number
