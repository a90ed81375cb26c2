"""Pictures for training only, from a second source: labelled ones of the review queue, for instance.

The first source alone decides the classes, the size, and which pictures validate and test. So the sealed test split stays
what it was, and models before and after are compared on the same pictures. A picture that the first source has already, in
whatever split and under whatever label, is left out.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from components.bundle.dataset import Labels, Rows
from components.classifier.errors import DataError
from components.classifier.images import Pixels
from components.ingest.checks import Check
from components.ingest.collection import SPLIT_CODE, Collection, Selection
from components.readers.listing import some


class Joined:
    """Two sets of pictures one after the other, read in slices."""

    def __init__(self, first: Rows, second: Rows) -> None:
        self._first, self._second = first, second

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""
        return (self._first.shape[0] + self._second.shape[0], *self._first.shape[1:])

    def __getitem__(self, rows: slice) -> Pixels:
        """Some rows, uint8 (n, H, W, C)."""
        start, stop, _ = rows.indices(self.shape[0])
        border = self._first.shape[0]
        if stop <= border:
            return self._first[start:stop]
        after = self._second[max(start - border, 0) : stop - border]
        return after if start >= border else np.concatenate([self._first[start:border], after])


@dataclass(frozen=True)
class Extra:
    """N further training pictures: `images` (N, H, W, C), `labels` int64 (N,) in the first source's classes."""

    images: Rows
    labels: Labels
    names: list[str]
    set_aside: list[dict[str, str]]
    check: Check


def choose(base: Collection, more: Collection) -> Extra:
    """Choose the pictures of `more` that `base` does not have.

    Raises DataError for classes that `base` does not have, and for a source that brings a test or validation split.
    """
    _check_source(base, more)
    known = dict(zip(base.prints.tolist(), base.names, strict=True))
    places: dict[bytes, list[int]] = defaultdict(list)
    for k, print_ in enumerate(more.prints.tolist()):
        places[print_].append(k)
    chosen, set_aside = [], list(more.set_aside)
    for print_, copies in places.items():
        first, *others = copies
        if print_ in known:
            reason, doubtful = f"same pixels as {known[print_]} of the first source", copies
        elif len({int(more.labels[k]) for k in copies}) > 1:
            reason, doubtful = "same pixels under another label", copies
        else:
            reason, doubtful = f"same pixels as {more.names[first]}", others
            chosen.append(first)
        set_aside += [{"file": more.names[k], "reason": reason} for k in doubtful]
    order = np.array(sorted(chosen), dtype=np.intp)
    index = {name: k for k, name in enumerate(base.classes)}
    labels = np.array([index[more.classes[more.labels[k]]] for k in order], np.int64)
    left = len(more) - len(order)
    detail = f"{len(order)} of {len(more)} pictures added to training" + (f", {left} are there already or doubtful" if left else "")
    return Extra(
        Selection(more.images, order),
        labels,
        [more.names[k] for k in order],
        set_aside,
        Check("extra training pictures", left == 0, detail),
    )


def _check_source(base: Collection, more: Collection) -> None:
    unknown = [name for name in more.classes if name not in base.classes]
    if unknown:
        raise DataError(
            f"the extra training source has classes that the source does not have: {some(unknown)}; "
            f"the source has {some(base.classes)}. Add such pictures to the source itself, so that they are tested too"
        )
    others = [name for name in more.given_splits if name != "train" and SPLIT_CODE[name] >= 0]
    if others:
        raise DataError(f"the extra training source has a {' and a '.join(others)} split; it may have train/ only, or class folders")
