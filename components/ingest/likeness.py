"""Near-duplicates: pictures of one split that look like one of another, though their pixels differ: compressed again, resized, brightened.

A picture is hashed by pHash (64 bits: which of the lowest frequencies of its cosine transform lie above their median; C. Zauner,
Implementation and benchmarking of perceptual image hash functions, 2010, as ImageHash's `phash` computes it). Pictures whose hashes
differ in few bits are candidates: two 64-bit hashes that differ in at most MAX_BITS agree in one of MAX_BITS + 1 bands of bits, so
only pictures that share a band are compared (M. Norouzi et al., Fast search in Hamming space with multi-index hashing, CVPR 2012).
A candidate counts where the two also correlate: the hashes of many handwritten digits are alike, and the digits are not.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.bundle.dataset import REPORT, SPLITS, Labels, Rows
from components.classifier.cpu import available_cpus
from components.classifier.errors import DataError
from components.classifier.images import Pixels, as_image
from components.ingest.checks import Check
from components.ingest.collection import SPLIT_CODE
from components.readers.listing import quoted, some
from components.report.dataset import PictureOfDataset

MAX_BITS = 6
"""Bits in which the hashes of near-duplicates may differ."""
MIN_CORRELATION = 0.99
"""Of their grey thumbnails: of MNIST's 10,000 test pictures 2 have one in training that reaches it."""
MAX_CANDIDATES = 16
"""Pictures of the other splits that are compared with each, nearest hashes first."""
SIDE = 32
_LOW = 8
_ROWS = 1024
_PAIRS = 4_000_000
"""Candidates that are in memory at a time."""

Hashes = npt.NDArray[np.uint64]
Index = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Match:
    """Picture `k` looks like picture `other`, of an earlier split, with that correlation."""

    k: int
    other: int
    correlation: float


@dataclass(frozen=True)
class Pictures:
    """All pictures of a dataset and what is said of them: `images` (N, H, W, C), `splits` (N,) of SPLIT_CODE."""

    images: Rows
    splits: npt.NDArray[np.int8]
    names: list[str]
    labels: Labels
    classes: list[str]

    def told(self, match: Match) -> str:
        """One line: which picture looks like which, and whether their classes differ."""
        k, other = match.k, match.other
        line = f"{self.split(k)} {quoted(self.names[k])} like {self.split(other)} {quoted(self.names[other])}"
        return line if self.labels[k] == self.labels[other] else f"{line}, under the labels {self.label(k)} and {self.label(other)}"

    def split(self, k: int) -> str:
        """The name of a picture's split."""
        return SPLITS[int(self.splits[k])]

    def label(self, k: int) -> str:
        """The name of a picture's class."""
        return self.classes[int(self.labels[k])]

    def shown(self, k: int) -> PictureOfDataset:
        """A picture for the report."""
        return PictureOfDataset(self.names[k], self.split(k), self.label(k), self.images[k : k + 1][0])


def find(pictures: Pictures, scratch: Path) -> list[Match]:
    """Find each picture that looks like one of an earlier split, with the one that it resembles most; the most alike first.

    A test picture is compared with those of training and validation, one of validation with those of training.
    `scratch` is a file for the thumbnails, 1 KiB per picture.
    """
    images, splits = pictures.images, pictures.splits
    thumbnails = np.memmap(scratch, np.uint8, "w+", shape=(max(1, images.shape[0]), SIDE * SIDE))
    hashes = _hash_all(images, thumbnails)
    matches: list[Match] = []
    for code in sorted(set(splits.tolist()) - {-1, 0}):
        later, earlier = np.flatnonzero(splits == code), np.flatnonzero((splits >= 0) & (splits < code))
        for at, to in _candidates(hashes[later], hashes[earlier]):
            matches += _alike(thumbnails, later[at], earlier[to])
    return sorted(matches, key=lambda match: (-match.correlation, match.k))


def perceptual_hashes(thumbnails: npt.NDArray[np.uint8]) -> Hashes:
    """Hash grey thumbnails, uint8 (N, 32, 32): 64 bits each, as ImageHash's `phash` gives them."""
    from scipy.fft import dctn

    low = dctn(thumbnails.astype(np.float64), axes=(1, 2))[:, :_LOW, :_LOW].reshape(len(thumbnails), -1)
    bits = np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1)
    return bits.view(">u8")[:, 0].astype(np.uint64)


def thumbnail(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """A picture, uint8 (H, W, 1 or 3), as a grey thumbnail (32, 32)."""
    image = as_image(pixels).convert("L")
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def _hash_all(images: Rows, thumbnails: npt.NDArray[np.uint8]) -> Hashes:
    """Hash all pictures, and write their thumbnails (N, 1024)."""
    hashes = np.zeros(images.shape[0], np.uint64)

    def work(start: int) -> None:
        small = np.stack([thumbnail(pixels) for pixels in images[start : start + _ROWS]])
        thumbnails[start : start + len(small)] = small.reshape(len(small), -1)
        hashes[start : start + len(small)] = perceptual_hashes(small)

    with ThreadPoolExecutor(available_cpus()) as pool:
        list(pool.map(work, range(0, len(hashes), _ROWS)))
    return hashes


def _candidates(asked: Hashes, known: Hashes) -> Iterator[tuple[Index, Index]]:
    """Yield places in `asked` and `known` of hashes that differ in at most MAX_BITS, the MAX_CANDIDATES nearest for each asked one."""
    kept = np.argsort(known, kind="stable")
    kept = kept[_ranks(known[kept]) < MAX_CANDIDATES]  # of equal hashes no more are ever chosen
    known = known[kept]
    if not len(known):
        return
    bands = [_Band(known, band) for band in range(MAX_BITS + 1)]
    counts = np.sum([band.counts(asked) for band in bands], axis=0)
    work = np.minimum(counts, len(known))  # where bands hold more than all there are, all are compared instead
    start = 0
    while start < len(asked):
        stop = start + max(1, int(np.searchsorted(np.cumsum(work[start:]), _PAIRS, side="right")))
        crowded = counts[start:stop] > len(known)
        for rows, choose in ((np.flatnonzero(~crowded), _nearest_of_bands), (np.flatnonzero(crowded), _nearest_of_all)):
            if len(rows):
                at, to = choose(asked[start + rows], known, bands)
                yield start + rows[at], kept[to]
        start = stop


class _Band:
    """Hashes sorted by one run of their bits."""

    def __init__(self, known: Hashes, band: int) -> None:
        edges = np.linspace(0, 64, MAX_BITS + 2).round().astype(int)
        self._shift, self._mask = np.uint64(edges[band]), np.uint64((1 << int(edges[band + 1] - edges[band])) - 1)
        keys = self.keys(known)
        self.order = np.argsort(keys, kind="stable")
        self._sorted = keys[self.order]

    def keys(self, hashes: Hashes) -> Hashes:
        return (hashes >> self._shift) & self._mask

    def ranges(self, asked: Hashes) -> tuple[Index, Index]:
        keys = self.keys(asked)
        return np.searchsorted(self._sorted, keys, "left"), np.searchsorted(self._sorted, keys, "right")

    def counts(self, asked: Hashes) -> Index:
        low, high = self.ranges(asked)
        return high - low


def _nearest_of_all(asked: Hashes, known: Hashes, _: list[_Band]) -> tuple[Index, Index]:
    bits = np.bitwise_count(asked[:, None] ^ known[None, :])
    nearest = np.argpartition(bits, min(MAX_CANDIDATES, len(known)) - 1, axis=1)[:, :MAX_CANDIDATES]
    at, place = np.nonzero(np.take_along_axis(bits, nearest, axis=1) <= MAX_BITS)
    return at, nearest[at, place]


def _nearest_of_bands(asked: Hashes, known: Hashes, bands: list[_Band]) -> tuple[Index, Index]:
    ats, tos = [], []
    for band in bands:
        low, high = band.ranges(asked)
        length = high - low
        ats.append(np.repeat(np.arange(len(asked)), length))
        tos.append(band.order[np.arange(length.sum()) + np.repeat(low - np.cumsum(length) + length, length)])
    at, to = np.concatenate(ats), np.concatenate(tos)
    bits = np.bitwise_count(asked[at] ^ known[to])
    near = np.flatnonzero(bits <= MAX_BITS)
    pairs = np.unique(np.stack([at[near], bits[near].astype(np.intp), to[near]], axis=1), axis=0)  # in order; bands share pairs
    pairs = pairs[_ranks(pairs[:, 0]) < MAX_CANDIDATES]
    return pairs[:, 0], pairs[:, 2]


def _ranks(values: npt.NDArray[Any]) -> Index:
    """The place of each value of a sorted array among its equals."""
    return np.arange(len(values)) - np.searchsorted(values, values, "left")


def _alike(thumbnails: npt.NDArray[np.uint8], ks: Index, others: Index) -> list[Match]:
    best: dict[int, Match] = {}
    for start in range(0, len(ks), _ROWS):
        k, other = ks[start : start + _ROWS], others[start : start + _ROWS]
        for one, two, correlation in zip(k.tolist(), other.tolist(), _correlations(thumbnails[k], thumbnails[other]), strict=True):
            if correlation >= MIN_CORRELATION and (one not in best or correlation > best[one].correlation):
                best[one] = Match(one, two, correlation)
    return list(best.values())


def _correlations(one: npt.NDArray[np.uint8], two: npt.NDArray[np.uint8]) -> list[float]:
    """Pearson's correlation of each pair of rows; 0 where a row has one value only."""
    a, b = (rows.astype(np.float32) - rows.mean(axis=1, keepdims=True, dtype=np.float32) for rows in (one, two))
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    both = (a * b).sum(axis=1)
    return [float(value) for value in np.divide(both, scale, out=np.zeros_like(both), where=scale > 0)]


def check_likeness(pictures: Pictures, matches: list[Match], limit: int | None) -> Check:
    """Report pictures of validation and test that look like one of an earlier split.

    Raises DataError where there are more than `limit`; None permits any number.
    """
    asked = int((pictures.splits > SPLIT_CODE["train"]).sum())
    if not matches:
        return Check("near-duplicates", True, f"none of {asked:,} validation and test pictures looks like one of another split")
    told = some([pictures.told(match) for match in matches], 5)
    count = f"{len(matches):,} of {asked:,} validation and test pictures look like one of another split"
    if limit is not None and len(matches) > limit:
        raise DataError(
            f"{count}, more than max_near_duplicates={limit}: {told}; keep pictures of one scene in one split by group_column or "
            "group_pattern, or remove them"
        )
    return Check("near-duplicates", False, f"{count}, so the figures may be too good: {told}; {REPORT} of the dataset shows them")
