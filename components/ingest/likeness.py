"""Near-duplicates: pictures of one split that look like one of another, though their pixels differ: compressed again, resized, brightened.

A picture is hashed by pHash (64 bits: which of the lowest frequencies of its cosine transform lie above their median; C. Zauner,
Implementation and benchmarking of perceptual image hash functions, 2010, as ImageHash's `phash` computes it). Pictures whose hashes
differ in few bits are candidates: where two 64-bit hashes differ in at most 6 bits, one of their 4 bands of 16 bits differs in at most
one, so only such pictures are compared (M. Norouzi et al., Fast search in Hamming space with multi-index hashing, CVPR 2012).
A candidate counts where the two also correlate: the hashes of many handwritten digits are alike, and the digits are not.
"""

import mmap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, product, repeat, starmap
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.bundle.dataset import REPORT, SPLITS, Labels, Rows
from components.classifier.cpu import available_cpus
from components.classifier.decode import WORK
from components.classifier.errors import DataError
from components.classifier.images import Pixels, as_image, grey
from components.classifier.progress import Progress
from components.ingest.checks import Check
from components.ingest.collection import SPLIT_CODE, FileRows, rows_of
from components.ingest.pixels import PROCESS_MODULES
from components.readers.listing import quoted, some
from components.readers.processes import Group, Result, in_order, in_processes, processes_for
from components.report.html import PictureOfDataset
from components.report.views import picture_address

MAX_BITS = 6
"""Bits in which the hashes of near-duplicates may differ."""
MIN_CORRELATION = 0.99
"""Of their grey thumbnails: of MNIST's 10,000 test pictures 2 have one in training that reaches it."""
MAX_CANDIDATES = 16
"""Pictures of the other splits that are compared with each, nearest hashes first."""
SIDE, _FILTER = 32, Image.Resampling.LANCZOS
_LOW = 8
_BANDS, _BAND_BITS = 4, 16
_NEAR = np.array([0, *(1 << bit for bit in range(_BAND_BITS))], np.int32)
"""What is changed in a band that differs in no bit or in one: enough where MAX_BITS is below 2 * _BANDS."""
_ROWS = 512
"""Thumbnails that are made or compared at a time."""
_ASKED = 2048
_PAIRS = 400_000
"""Pictures, and candidates, that a thread or process has in memory at a time."""


class _Form(NamedTuple):
    """How a picture is shown: upside down, mirrored, and with rows for columns; the three together make all turns by 90 degrees."""

    down: bool
    across: bool
    turn: bool


_FORMS = tuple(starmap(_Form, product((False, True), repeat=3)))
_AS_IT_IS, _OTHER_FORMS = _FORMS[:1], _FORMS[1:]
Hashes = npt.NDArray[np.uint64]
Index = npt.NDArray[np.intp]
Ranges = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Match:
    """Picture `k` looks like picture `other`, of an earlier split, with that correlation; `turned`: in another form (see `_Form`)."""

    k: int
    other: int
    correlation: float
    turned: bool = False


@dataclass(frozen=True)
class Pictures:
    """All pictures of a dataset and what is said of them: `images` (N, H, W, C), `splits` (N,) of SPLIT_CODE."""

    images: Rows
    splits: npt.NDArray[np.int8]
    names: list[str]
    labels: Labels
    classes: list[str]

    def describe(self, match: Match) -> str:
        """One line: which picture looks like which, and whether their classes differ."""
        k, other = match.k, match.other
        turned = ", mirrored or turned," if match.turned else ""
        line = f"{self.split(k)} {quoted(self.names[k])}{turned} like {self.split(other)} {quoted(self.names[other])}"
        return line if self.labels[k] == self.labels[other] else f"{line}, under the labels {self.label(k)} and {self.label(other)}"

    def split(self, k: int) -> str:
        """The name of a picture's split."""
        return SPLITS[int(self.splits[k])]

    def label(self, k: int) -> str:
        """The name of a picture's class."""
        return self.classes[int(self.labels[k])]

    def shown(self, k: int) -> PictureOfDataset:
        """A picture for the report."""
        return PictureOfDataset(self.names[k], self.split(k), self.label(k), picture_address(self.images[k : k + 1][0]))


def find(pictures: Pictures, scratch: Path, log: Callable[[str], None] | None = None) -> list[Match]:
    """Find each picture that looks like one of an earlier split, with the one that it resembles most; the most alike first.

    A test picture is compared with those of training and validation, one of validation with those of training; where it looks like none
    of them as it is, mirrored and turned by 90, 180 and 270 degrees.
    `scratch` is a file for the thumbnails, 1 KiB per picture; `log` hears how far it is.
    """
    splits = pictures.splits
    hashes = _hash_all(pictures.images, scratch, log)
    searches = list[_Search]()
    for code in sorted(set(np.unique(splits).tolist()) - {-1, 0}):
        later, earlier = np.flatnonzero(splits == code), np.flatnonzero((splits >= 0) & (splits < code))
        searches.append(_Search(scratch, later, earlier, hashes[later], _Known(hashes[earlier])))
    starts = [(k, start) for k, search in enumerate(searches) for start in range(0, len(search.later), _ASKED)]
    work: Callable[[tuple[int, int]], list[Match]] = partial(_matches, searches)
    if (processes := _processes(pictures.images)) > 1:
        import joblib

        joblib.dump(searches, stored := scratch.with_suffix(".search"))  # mapped by all processes, which share its memory
        searches.clear()
        work = partial(_matches_of, stored)
    found = chain.from_iterable(_side_by_side(starts, work, processes))
    return sorted(found, key=lambda match: (-match.correlation, match.k))


def _processes(images: Rows) -> int:
    return processes_for(images.shape[0]) if isinstance(images, FileRows) else 1


def _side_by_side(
    groups: Sequence[Group], work: Callable[[Group], Result], processes: int, picture_bytes: int = SIDE * SIDE
) -> Iterator[Result]:
    """Yield what `work` makes of each group, in their order: in several processes, or in threads of this one, few for large pictures."""
    if processes > 1:
        yield from in_processes(groups, work, processes, PROCESS_MODULES)
        return
    threads = max(1, min(available_cpus(), WORK.limit // picture_bytes // 4))  # each holds a picture, and what is made of it
    with ThreadPoolExecutor(threads) as pool:
        yield from in_order(pool, groups, work, threads)


def perceptual_hashes(thumbnails: npt.NDArray[np.uint8]) -> Hashes:
    """Hash grey thumbnails, uint8 (N, 32, 32): 64 bits each, as ImageHash's `phash` gives them."""
    return _hashes(_frequencies(thumbnails))


def _frequencies(thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The lowest frequencies of thumbnails, (N, 8, 8)."""
    from scipy.fft import dct

    low: npt.NDArray[np.float64] = dct(dct(thumbnails.astype(np.float64), axis=1)[:, :_LOW], axis=2)[:, :, :_LOW]
    return low


def _hashes(frequencies: npt.NDArray[np.float64]) -> Hashes:
    low = frequencies.reshape(len(frequencies), -1)
    middle = np.sort(low, axis=1)[:, low.shape[1] // 2 - 1 : low.shape[1] // 2 + 1]  # NumPy sorts rows faster than it takes their median
    bits = np.packbits(low > middle.mean(axis=1, keepdims=True), axis=1)
    return bits.view(">u8")[:, 0].astype(np.uint64)


def thumbnails(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Pictures of one size, uint8 (N, H, W, 1 or 3), as grey thumbnails (N, 32, 32), as Pillow's `resize` makes each.

    It changes the width first and then the height, but in high pictures; so all others lie below each other for the one, and side by
    side for the other: a call costs more than a small picture does.
    """
    count, height, width, channels = pixels.shape
    if height > max(width, SIDE):
        return np.stack([np.asarray(as_image(grey(picture)).resize((SIDE, SIDE), _FILTER)) for picture in pixels])
    column = as_image(grey(pixels.reshape(count * height, width, channels))).resize((SIDE, count * height), _FILTER)
    row = np.asarray(column).reshape(count, height, SIDE).swapaxes(0, 1).reshape(height, count * SIDE)
    squares = np.asarray(Image.fromarray(row).resize((count * SIDE, SIDE), _FILTER))
    return np.ascontiguousarray(squares.reshape(SIDE, count, SIDE).swapaxes(0, 1))


def _hash_all(images: Rows, path: Path, log: Callable[[str], None] | None) -> Hashes:
    """Hash all pictures, and write their thumbnails, 1,024 bytes each, to a file."""
    count = images.shape[0]
    with path.open("wb") as file:
        file.truncate(max(1, count) * SIDE * SIDE)
    step = min(_ROWS, rows_of(images))
    starts, work = range(0, count, step), partial(_hash_rows, images, path, step)
    progress, hashes = Progress(count, "thumbnails", log), list[Hashes]()
    for found in _side_by_side(starts, work, _processes(images), prod(images.shape[1:])):
        hashes.append(found)
        progress.step(len(found))
    return np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)


def _hash_rows(images: Rows, path: Path, rows: int, start: int) -> Hashes:
    small = thumbnails(images[start : start + rows])
    with path.open("r+b", buffering=0) as file:
        file.seek(start * SIDE * SIDE)
        file.write(small.data)
    return perceptual_hashes(small)


def _hash_forms(squares: npt.NDArray[np.uint8]) -> Hashes:
    """The hashes of thumbnails (N, 32, 32) in all other forms, (7, N): what mirrors a picture changes the sign of its odd frequencies."""
    low, signs = _frequencies(squares), np.resize([1, -1], _LOW)
    mirrored = (low * (signs[:, None] ** form.down) * (signs**form.across) for form in _OTHER_FORMS)
    return np.stack([_hashes(rows.swapaxes(1, 2) if form.turn else rows) for rows, form in zip(mirrored, _OTHER_FORMS, strict=True)])


def _in_form(squares: npt.NDArray[Any], form: _Form) -> npt.NDArray[Any]:
    """Squares (N, side, side), mirrored and turned."""
    squares = squares[:, :: -1 if form.down else 1, :: -1 if form.across else 1]
    return squares.swapaxes(1, 2) if form.turn else squares


@contextmanager
def _mapped(path: Path) -> Iterator["_Thumbnails"]:
    with path.open("rb") as file:
        yield _Thumbnails(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


class _Thumbnails:
    """Grey thumbnails in a file, which are read in any order: mapped, and let go after each read, as what was read counts as memory."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self._mapped = mapped
        self._rows = np.frombuffer(mapped, np.uint8).reshape(-1, SIDE * SIDE)

    def __getitem__(self, chosen: Index) -> npt.NDArray[np.uint8]:
        rows = self._rows[chosen]
        self._mapped.madvise(mmap.MADV_DONTNEED)
        return rows


@dataclass(frozen=True)
class _Search:
    """Looks among pictures of earlier splits for what each of a later one looks like: places in the dataset, and what is known of them."""

    scratch: Path
    later: Index
    earlier: Index
    hashes: Hashes
    """Of the later ones."""
    known: "_Known"
    """The hashes of the earlier ones."""

    def matches(self, start: int) -> list[Match]:
        """The best match of each of _ASKED later pictures, from `start` on, that has one: as it is, or else in another form."""
        asked = self.later[start : start + _ASKED]
        with _mapped(self.scratch) as thumbnails:
            best = self._best(thumbnails, asked, self.hashes[None, start : start + _ASKED], _AS_IT_IS)
            asked = np.array([k for k in asked.tolist() if k not in best], np.intp)
            if len(asked):
                best |= self._best(thumbnails, asked, _hash_forms(thumbnails[asked].reshape(-1, SIDE, SIDE)), _OTHER_FORMS)
        return list(best.values())

    def _best(self, thumbnails: "_Thumbnails", later: Index, hashes: Hashes, forms: tuple[_Form, ...]) -> dict[int, Match]:
        """Of the candidates that correlate the one that does most, for each later picture that has any; `hashes` is (forms, N)."""
        best: dict[int, Match] = {}
        for form, asked in zip(forms, hashes, strict=True):
            at, to = self.known.nearest(asked)
            for start in range(0, len(at), _ROWS):
                k, other = later[at[start : start + _ROWS]], self.earlier[to[start : start + _ROWS]]
                one = _in_form(thumbnails[k].reshape(-1, SIDE, SIDE), form).reshape(len(k), -1)
                for match in map(Match, k.tolist(), other.tolist(), _correlations(one, thumbnails[other]), repeat(form != _AS_IT_IS[0])):
                    if match.correlation >= MIN_CORRELATION and (match.k not in best or match.correlation > best[match.k].correlation):
                        best[match.k] = match
        return best


def _matches(searches: list[_Search], place: tuple[int, int]) -> list[Match]:
    number, start = place
    return searches[number].matches(start)


def _matches_of(stored: Path, place: tuple[int, int]) -> list[Match]:
    return _matches(_opened(stored), place)


@cache
def _opened(stored: Path) -> list[_Search]:
    """The searches that a process of the pool works on."""
    import joblib

    searches: list[_Search] = joblib.load(stored, mmap_mode="r")
    return searches


class _Known:
    """Hashes that others are compared with."""

    def __init__(self, hashes: Hashes) -> None:
        places = np.argsort(hashes, kind="stable")
        self._places = places[_ranks(hashes[places]) < MAX_CANDIDATES]  # of equal hashes no more are ever chosen
        self._hashes = hashes[self._places]
        self._bands = [_Band(self._hashes, band) for band in range(_BANDS)]

    def nearest(self, asked: Hashes) -> tuple[Index, Index]:
        """Places in `asked` and here of hashes that differ in at most MAX_BITS, the MAX_CANDIDATES nearest for each asked one."""
        if not len(self._hashes) or not len(asked):
            return np.zeros(0, np.intp), np.zeros(0, np.intp)
        ranges = [band.ranges(asked) for band in self._bands]
        counts = np.sum([(high - low).sum(axis=1) for low, high in ranges], axis=0)
        crowded = counts > len(self._hashes)  # the bands hold more than all there are: all are compared instead
        work = np.minimum(counts, len(self._hashes))
        found = []
        for kind in (False, True):
            rows = np.flatnonzero(crowded == kind)
            pieces = np.cumsum(work[rows]) // _PAIRS
            for part in np.split(rows, np.flatnonzero(np.diff(pieces)) + 1):
                if kind:
                    at, to = _nearest_of_all(asked[part], self._hashes)
                else:
                    near = [band.near(asked[part], low[part], high[part]) for band, (low, high) in zip(self._bands, ranges, strict=True)]
                    at, to = _nearest_of_bands(*map(np.concatenate, zip(*near, strict=True)))
                found.append((part[at], self._places[to]))
        at, to = map(np.concatenate, zip(*found, strict=True))
        return at, to


class _Band:
    """Hashes sorted by one band of their bits."""

    def __init__(self, known: Hashes, band: int) -> None:
        self._shift = np.uint64(band * _BAND_BITS)
        keys = self._keys(known)
        self._order = np.argsort(keys, kind="stable")
        self._hashes = known[self._order]
        self._begins = np.searchsorted(keys[self._order], np.arange(2**_BAND_BITS + 1)).astype(np.int32)

    def _keys(self, hashes: Hashes) -> npt.NDArray[np.int32]:
        return ((hashes >> self._shift) & np.uint64(2**_BAND_BITS - 1)).astype(np.int32)

    def ranges(self, asked: Hashes) -> tuple[Ranges, Ranges]:
        """Places from and to, in this band's order, of hashes whose band is near that of each asked one: (n, 17) each."""
        keys = self._keys(asked)[:, None] ^ _NEAR
        return self._begins[keys], self._begins[keys + 1]

    def near(self, asked: Hashes, low: Ranges, high: Ranges) -> tuple[Index, Index, Index]:
        """Of those, the ones that differ in at most MAX_BITS: places in `asked` and in the known ones, and the bits that differ."""
        lengths = high - low
        of_each = lengths.sum(axis=1)
        length = lengths.ravel()
        ends = np.cumsum(length, dtype=np.int32)
        places = np.arange(of_each.sum(), dtype=np.int32) + np.repeat(low.ravel() - ends + length, length)
        bits = np.bitwise_count(np.repeat(asked, of_each) ^ self._hashes[places])
        near = np.flatnonzero(bits <= MAX_BITS)
        return np.searchsorted(np.cumsum(of_each), near, "right"), self._order[places[near]], bits[near].astype(np.intp)


def _nearest_of_all(asked: Hashes, known: Hashes) -> tuple[Index, Index]:
    bits = np.bitwise_count(asked[:, None] ^ known[None, :])
    nearest = np.argpartition(bits, min(MAX_CANDIDATES, len(known)) - 1, axis=1)[:, :MAX_CANDIDATES]
    at, place = np.nonzero(np.take_along_axis(bits, nearest, axis=1) <= MAX_BITS)
    return at, nearest[at, place]


def _nearest_of_bands(at: Index, to: Index, bits: Index) -> tuple[Index, Index]:
    pairs = np.unique(np.stack([at, bits, to], axis=1), axis=0)  # in order; bands share pairs
    pairs = pairs[_ranks(pairs[:, 0]) < MAX_CANDIDATES]
    return pairs[:, 0], pairs[:, 2]


def _ranks(values: npt.NDArray[Any]) -> Index:
    """The place of each value of a sorted array among its equals."""
    return np.arange(len(values)) - np.searchsorted(values, values, "left")


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
    told = some([pictures.describe(match) for match in matches], 5)
    turned = sum(match.turned for match in matches)
    turned_too = f" ({turned:,} of them mirrored or turned by 90, 180 or 270 degrees)" if turned else ""
    count = f"{len(matches):,} of {asked:,} validation and test pictures look like one of another split{turned_too}"
    if limit is not None and len(matches) > limit:
        raise DataError(
            f"{count}, more than max_near_duplicates={limit}: {told}; keep pictures of one scene in one split by group_column or "
            "group_pattern, or remove them"
        )
    return Check("near-duplicates", False, f"{count}, so the figures may be too good: {told}; {REPORT} of the dataset shows them")
