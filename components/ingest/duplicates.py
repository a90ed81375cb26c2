"""Pictures with the same pixels: never in two splits, never under two labels.

The rules, for pictures whose decoded (and resized) pixels are equal, whatever their files and names:

- A training or validation picture that is also in a given test split, or a training picture that is also in a given
  validation split, is a leak. Up to `max_duplicates` leaks are dropped from training or validation (never from test), more are refused.
- Copies outside the test split whose labels disagree are set aside, all of them: no label can be trusted.
- Copies within one split are used and reported; what is split off keeps all copies of a picture in one split (see split.py).
"""

from collections import defaultdict

import numpy as np
import numpy.typing as npt

from components.classifier.errors import DataError
from components.ingest.checks import Check
from components.ingest.collection import SPLIT_CODE, Collection
from components.readers.listing import some

MAX_CONTRADICTIONS = 0.1
"""Share of the pictures that may have the pixels of another with another label."""

_TEST = SPLIT_CODE["test"]


def resolve(collection: Collection, keep: npt.NDArray[np.bool_], max_duplicates: int) -> list[Check]:
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
    places: dict[bytes, list[int]] = defaultdict(list)
    for k in np.flatnonzero(keep):
        places[collection.prints[k]].append(int(k))
    return [group for group in places.values() if len(group) > 1]


def _leaks(collection: Collection, keep: npt.NDArray[np.bool_], groups: list[list[int]], limit: int) -> Check:
    lines, dropped = [], []
    for group in groups:
        last = max(int(collection.given[k]) for k in group)
        leaks = [k for k in group if collection.given[k] < last]
        if leaks:
            kept = next(k for k in group if collection.given[k] == last)
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
    found = [group for group in groups if len({int(collection.labels[k]) for k in group if keep[k]}) > 1]
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
    example = " = ".join(collection.names[k] for k in left[0][:3])
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
    return name if f"/{label}/" in f"/{name}" else f"{name} ({label})"
