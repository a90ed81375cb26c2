"""Labelled pictures as a source gives them, before they are checked and split."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.bundle.dataset import SPLITS, Labels, Rows, SplitName
from components.classifier.images import Pixels

Prints = npt.NDArray[np.bytes_]
"""Fingerprints of pictures, (N,) of 16 bytes each (dtype S16)."""
NOT_GIVEN = -1
SPLIT_CODE: dict[SplitName | None, int] = {None: NOT_GIVEN, **{name: code for code, name in enumerate(SPLITS)}}
"""How `Collection.given` writes a split: its place in SPLITS, or NOT_GIVEN where the source does not say."""
BLOCK_BYTES = 8 * 2**20
"""Bytes of pictures that are in memory at a time while they are looked at."""


@dataclass
class Collection:
    """N labelled pictures of one shape, and what was noticed on the way.

    `images` uint8 (N, H, W, C), read in slices; `labels` int64 (N,); `given` int8 (N,) of SPLIT_CODE;
    `names` where each picture came from; `prints` fingerprints of the pixels (N,); `constant` bool (N,).
    """

    images: Rows
    labels: Labels
    classes: list[str]
    given: npt.NDArray[np.int8]
    names: list[str]
    prints: Prints
    constant: npt.NDArray[np.bool_]
    set_aside: list[dict[str, str]] = field(default_factory=list)
    """One entry per file that is not used: file, reason."""
    notes: list[str] = field(default_factory=list)
    """What was passed over or decided, one line each."""
    other_files: Counter[str] = field(default_factory=Counter)
    """Files that are not pictures, by class."""
    deep: int = 0
    """How many pictures came from files of 16 bits per sample."""
    peak: int = 0
    """The largest sample in these, 0 to 65,535."""
    known_duplicates: int = 0
    """How many pictures in two splits are accepted without being asked for."""
    columns: dict[str, list[Any]] = field(default_factory=dict)
    """Further attributes, N values each."""
    group: str = ""
    """The column whose values must each lie in one split; "" where the dataset has no groups."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def given_splits(self) -> list[SplitName]:
        """The splits that the source itself has."""
        present = {int(code) for code in np.unique(self.given)}
        return [name for name in SPLITS if SPLIT_CODE[name] in present]


class FileRows:
    """Pictures in a file, uint8 (N, H, W, C), read in slices: of a mapped file, all that was read would count as this process' memory."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.shape = path, shape

    def __getitem__(self, rows: slice) -> Pixels:
        """Some rows, uint8 (n, H, W, C)."""
        start, stop, _ = rows.indices(self.shape[0])
        size = prod(self.shape[1:])
        return np.fromfile(self.path, np.uint8, max(0, stop - start) * size, offset=start * size).reshape(-1, *self.shape[1:])


class Selection:
    """Some rows of a collection's pictures in ascending order, read in slices: nothing is copied before."""

    def __init__(self, images: Rows, chosen: npt.NDArray[np.intp]) -> None:
        self._images, self._chosen = images, chosen

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""
        return (len(self._chosen), *self._images.shape[1:])

    def __getitem__(self, rows: slice) -> Pixels:
        """Some rows, uint8 (n, H, W, C)."""
        chosen = self._chosen[rows]
        pixels = np.empty((len(chosen), *self._images.shape[1:]), np.uint8)
        start, span = 0, rows_of(self._images)
        while start < len(chosen):
            first = int(chosen[start])
            stop = int(np.searchsorted(chosen, first + span))
            pixels[start:stop] = self._images[first : int(chosen[stop - 1]) + 1][chosen[start:stop] - first]
            start = stop
        return pixels


def rows_of(images: Rows) -> int:
    """How many pictures make a block of BLOCK_BYTES."""
    return max(1, BLOCK_BYTES // max(1, prod(images.shape[1:])))


def blocks(images: Rows) -> Iterator[Pixels]:
    """All pictures in their order, in blocks."""
    step = rows_of(images)
    for start in range(0, images.shape[0], step):
        yield images[start : start + step]


def fingerprint(pixels: Pixels) -> bytes:
    """Hash a picture's content, uint8 (H, W, C): 16 bytes.

    A grey picture has the same fingerprint whether it was saved as grey or as RGB, in whatever file format.
    """
    if pixels.shape[2] == 3 and _is_grey(pixels[:1]) and _is_grey(pixels):  # the first row decides nearly always
        pixels = pixels[..., :1]
    digest = hashlib.blake2b(str(pixels.shape[:2]).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def _is_grey(pixels: Pixels) -> bool:
    return bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all())


def are_constant(pixels: Pixels) -> npt.NDArray[np.bool_]:
    """Say of pictures, uint8 (N, H, W, C), whether all pixels of each have one colour: bool (N,)."""
    found = np.asarray((pixels[:, 0] == pixels[:, 0, :1]).all(axis=(1, 2)))  # the first row decides nearly always
    for k in np.flatnonzero(found).tolist():
        found[k] = (pixels[k] == pixels[k, 0, 0]).all()
    return found


def from_arrays(images: Rows, labels: Labels, classes: list[str], given: npt.NDArray[np.int8], names: list[str]) -> Collection:
    """Make a collection of decoded pictures."""
    prints, constant = bytearray(), bytearray()
    for block in blocks(images):
        prints += b"".join(map(fingerprint, block))
        constant += are_constant(block).tobytes()
    return Collection(
        images=images,
        labels=labels.astype(np.int64),
        classes=classes,
        given=given,
        names=names,
        prints=np.frombuffer(prints, "S16"),
        constant=np.frombuffer(constant, bool),
    )


def natural(names: list[str]) -> list[str]:
    """Order class names: by number where all of them are numbers, else as text."""
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)
