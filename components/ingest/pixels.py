"""From encoded pictures to pixels in a scratch file, so that memory does not grow with the source."""

import shutil
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from math import prod
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.bundle.dataset import Rows
from components.classifier import images
from components.classifier.cpu import available_cpus
from components.classifier.decode import WORK, Picture, decode_picture, is_picture
from components.classifier.errors import DataError, ImageError
from components.classifier.images import ImageSpec, Pixels
from components.classifier.metadata import Unread
from components.classifier.progress import Progress
from components.ingest.collection import FileRows, are_constant, blocks, fingerprint
from components.readers.listing import MAX_FILE_BYTES, looks_like_picture
from components.readers.processes import REMOTE_WORKERS, in_order, in_processes, load, processes_for
from components.readers.records import Encoded, Unreadable
from components.settings.ingest import IngestSettings

MAX_DATASET_BYTES = 256 * 2**30
BATCH_FILES, BATCH_BYTES, BATCH_PIXEL_BYTES = 256, 2**20, 4 * 2**20
"""What a thread or process takes at a time: so many pictures at most, of so many bytes before and after decoding."""
FIRST_FILES = 1
"""And so many before it is known how large they are."""
_SHARE_OF_WORK = 8
"""The part of the memory for decoding that pixels may take which wait for those before them."""
_NO_PIXELS = np.zeros(0, np.uint8)
PROCESS_MODULES = ("components.ingest.pixels", "components.ingest.likeness", "scipy.fft", "joblib")
"""What the processes of ingest import."""
SIZE_SURVEY = 1000
"""After two sizes were met, how many pictures are looked at for the message."""

Log = Callable[[str], None]


@dataclass(frozen=True)
class Workers:
    """Who can decode a source's records. `remote`: most of the time is waiting; `shared`: other processes can load them too."""

    remote: bool
    shared: bool


@dataclass(frozen=True)
class _Batch:
    """What became of some records, in a form that costs little on its way from one process to another, which needs no names."""

    outcomes: list[tuple[int, ...] | str | None]
    """The shape of a picture, or the reason why there is none, or None for a file that does not claim to be one."""
    pixels: npt.NDArray[np.uint8]
    """Of all pictures, one after the other, (n,)."""
    prints: bytes
    constant: bytes
    deep: int
    peak: int
    unread: list[tuple[Unread, int]]
    """What of a picture's metadata cannot be read, and the place of its record."""

    def runs(self, records: list[str]) -> Iterator[tuple[list[str], Pixels | str | None]]:
        """The names of records of one outcome that follow each other: with their pixels (n, H, W, C), or the reason, or None."""
        at = 0
        for outcome, found in groupby(zip(self.outcomes, records, strict=True), key=itemgetter(0)):
            names = [name for _, name in found]
            if isinstance(outcome, tuple):
                size = len(names) * prod(outcome)
                yield names, self.pixels[at : at + size].reshape(len(names), *outcome)
                at += size
            else:
                yield names, outcome


@dataclass
class DecodedPictures:
    """The pictures that could be read, in the order of the records."""

    images: Rows
    names: list[str] = field(default_factory=list)
    prints: bytearray = field(default_factory=bytearray)
    """16 bytes per picture."""
    constant: bytearray = field(default_factory=bytearray)
    """One byte per picture, 0 or 1."""
    deep: int = 0
    """How many files had 16 bits per sample."""
    peak: int = 0
    """The largest sample in these."""
    unread: list[tuple[Unread, str]] = field(default_factory=list)
    """What of a picture's metadata cannot be read, and the picture's name."""
    faults: list[tuple[str, str]] = field(default_factory=list)
    """Names of what should be pictures and cannot be read, with the reason."""
    others: list[str] = field(default_factory=list)
    """Names of files that are not pictures, by name and by content."""


def decode_all(
    records: Iterable[Encoded | Unreadable],
    count: int,
    settings: IngestSettings,
    scratch: Path,
    workers: Workers,
    log: Log,
    *,
    all_pictures: bool,
) -> DecodedPictures:
    """Decode all records in full, in order; there are about `count` of them: many in processes, few in threads of this one.

    `scratch` is a file that is written, and from which the result's `images` are read. With `all_pictures` a record that is not a
    picture is a fault whatever its name. Raises DataError when the pictures have several sizes and none was asked for, and when
    they do not fit on the disk.
    """
    result = DecodedPictures(np.zeros((0, 1, 1, 1), np.uint8))
    sizes, waiting = _Sizes(), deque[list[str]]()
    with _PixelFile(scratch, count) as pixels, closing(_decoded(records, count, settings, workers, all_pictures, waiting)) as decoded:
        progress = Progress(count, "files", log)
        for batch in decoded:
            result.deep, result.peak = result.deep + batch.deep, max(result.peak, batch.peak)
            records_of_batch, start = waiting.popleft(), 0
            result.unread += [(what, records_of_batch[place]) for what, place in batch.unread]
            for names, outcome in batch.runs(records_of_batch):
                progress.step(len(names))
                if outcome is None:
                    result.others += names
                elif isinstance(outcome, str):
                    result.faults += [(name, outcome) for name in names]
                else:
                    stop = start + len(names)
                    if sizes.fit(outcome, names[0]):
                        pixels.append(outcome)
                        result.names += names
                        result.prints += batch.prints[16 * start : 16 * stop]
                        result.constant += batch.constant[start:stop]
                    start = stop
        sizes.check()
        result.images = pixels.rows()
    return result


def _decoded(
    records: Iterable[Encoded | Unreadable],
    count: int,
    settings: IngestSettings,
    workers: Workers,
    all_pictures: bool,
    waiting: deque[list[str]],
) -> Generator[_Batch]:
    """What becomes of all records, in order; `waiting` has the names of each batch that is under way."""
    limit = _Limit(settings.image_size)
    processes = processes_for(count)
    if processes > 1:
        threads = max(1, REMOTE_WORKERS // processes) if workers.remote else 1
        work = partial(_decode_batch, settings=settings, all_pictures=all_pictures, threads=threads)
        shared = records if workers.shared else map(_loaded, records)
        batches = map(_packed, _batches(shared, limit, waiting))
        yield from map(limit.learn, in_processes(batches, work, processes, PROCESS_MODULES))
        return
    work = partial(_decode_batch, settings=settings, all_pictures=all_pictures)
    threads = max(REMOTE_WORKERS if workers.remote else 4, available_cpus())
    with ThreadPoolExecutor(threads, "decode") as pool:
        yield from map(limit.learn, in_order(pool, _batches(records, limit, waiting), work, partial(limit.ahead, threads + 2)))


class _Limit:
    """How many pictures a batch may have: their size is known when it is asked for, or when the first are decoded."""

    def __init__(self, size: tuple[int, int] | None) -> None:
        self.files, self._bytes = min(FIRST_FILES, BATCH_FILES), 0
        if size:
            self._set(*size)

    def learn(self, batch: _Batch) -> _Batch:
        """Look how large a batch's pictures are; returns it."""
        shape = next((outcome for outcome in batch.outcomes if isinstance(outcome, tuple)), None)
        if shape:
            self._set(shape[0], shape[1])
        return batch

    def ahead(self, most: int) -> int:
        """How many batches may be under way beside the first: none before it is known how large they are, then what memory allows."""
        return min(most, WORK.limit // _SHARE_OF_WORK // self._bytes) if self._bytes else 0

    def _set(self, height: int, width: int) -> None:
        self.files = max(1, min(BATCH_FILES, BATCH_PIXEL_BYTES // (3 * height * width)))
        self._bytes = 3 * height * width * self.files


def _loaded(record: Encoded | Unreadable) -> Encoded | Unreadable:
    """A record that holds its bytes."""
    if isinstance(record, Unreadable) or record.size > MAX_FILE_BYTES:
        return record
    try:
        data = load(record)
    except ImageError as error:
        return Unreadable(record.input, record.index, str(error))
    return Encoded(record.input, record.index, partial(bytes, data), len(data))


def _batches(records: Iterable[Encoded | Unreadable], limit: _Limit, waiting: deque[list[str]]) -> Iterator[list[Encoded | Unreadable]]:
    batch: list[Encoded | Unreadable] = []
    size = 0
    for record in records:
        batch.append(record)
        size += record.size if isinstance(record, Encoded) else 0
        if len(batch) >= limit.files or size > BATCH_BYTES:
            waiting.append([record.input for record in batch])
            yield batch
            batch, size = [], 0
    if batch:
        waiting.append([record.input for record in batch])
        yield batch


@dataclass(frozen=True)
class _Packed:
    """Records that are loaded by one function, as columns: on the way to another process these cost a quarter of what records do."""

    load: Callable[..., bytes]
    names: list[str]
    sizes: list[int]
    given: list[tuple[Any, ...]]

    def records(self) -> list[Encoded | Unreadable]:
        """The records again."""
        columns = zip(self.names, self.sizes, self.given, strict=True)
        return [Encoded(name, 0, partial(self.load, *given), size) for name, size, given in columns]


def _packed(batch: list[Encoded | Unreadable]) -> "list[Encoded | Unreadable] | _Packed":
    """A batch as columns where its records are alike, else as it is."""
    records = [record for record in batch if isinstance(record, Encoded)]
    loads = [record.load for record in records if isinstance(record.load, partial) and not record.load.keywords]
    if len(loads) < len(batch) or any(load.func != loads[0].func for load in loads):
        return batch
    return _Packed(loads[0].func, [record.input for record in records], [record.size for record in records], [load.args for load in loads])


def _decode_batch(batch: list[Encoded | Unreadable] | _Packed, settings: IngestSettings, all_pictures: bool, threads: int = 1) -> _Batch:
    batch = batch.records() if isinstance(batch, _Packed) else batch
    if threads > 1:  # of most of their time they wait for a store
        with ThreadPoolExecutor(threads) as pool:
            batch = list(pool.map(_loaded, batch))
    found = [_decode(record, settings, all_pictures) if isinstance(record, Encoded) else record.reason for record in batch]
    pictures = [outcome for outcome in found if isinstance(outcome, Picture)]
    pixels = [picture.pixels for picture in pictures]
    runs = [_stacked(list(run)) for _, run in groupby(pixels, key=attrgetter("shape"))]
    return _Batch(
        [outcome.pixels.shape if isinstance(outcome, Picture) else outcome for outcome in found],
        runs[0].reshape(-1) if len(runs) == 1 else np.concatenate([_NO_PIXELS, *(run.reshape(-1) for run in runs)]),
        b"".join(map(fingerprint, pixels)),
        b"".join(are_constant(run).tobytes() for run in runs),
        len(peaks := [picture.peak for picture in pictures if picture.peak is not None]),
        max(peaks, default=0),
        [(what, place) for place, outcome in enumerate(found) if isinstance(outcome, Picture) for what in outcome.unread],
    )


def _stacked(pictures: list[Pixels]) -> Pixels:
    """Pictures of one shape as (n, H, W, C); one that is alone may be large, and is not copied."""
    return pictures[0][None] if len(pictures) == 1 else np.stack(pictures)


def _prepare(pixels: Pixels, settings: IngestSettings) -> Pixels:
    """Bring a picture to the size and channels that are set."""
    if settings.image_size is None and settings.channels is None:
        return pixels
    height, width = settings.image_size or pixels.shape[:2]
    return images.prepare(pixels, ImageSpec(height, width, settings.channels or pixels.shape[2]))


def _decode(record: Encoded, settings: IngestSettings, all_pictures: bool) -> Picture | str | None:
    """A picture, or the reason why it cannot be read, or None for a file that does not claim to be one."""
    claims = all_pictures or looks_like_picture(record.input)
    if record.size > MAX_FILE_BYTES and not claims:
        return None
    try:
        data = load(record)
        if not claims and not is_picture(data):
            return None
        return decode_picture(data, levels=settings.levels, then=partial(_prepare, settings=settings))  # no batch holds them larger
    except ImageError as error:
        return str(error)


class _Sizes:
    """Holds all pictures to the size of the first."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, int]] = Counter()
        self._examples: dict[tuple[int, int], str] = {}

    def fit(self, pixels: Pixels, name: str) -> bool:
        """Say whether pictures (n, H, W, C), the first of that name, have the size of all before."""
        count, height, width, _ = pixels.shape
        size = (height, width)
        self._counts[size] += count
        self._examples.setdefault(size, name)
        if len(self._counts) > 1 and self._counts.total() >= SIZE_SURVEY:
            self.check()
        return len(self._counts) == 1

    def check(self) -> None:
        if len(self._counts) <= 1:
            return
        shown = [f"{h}x{w} ({n}, such as {self._examples[h, w]})" for (h, w), n in self._counts.most_common(4)]
        more = f" and {len(self._counts) - 4} more sizes" if len(self._counts) > 4 else ""
        (height, width), _ = self._counts.most_common(1)[0]
        raise DataError(
            f"the pictures have {len(self._counts)} sizes (height x width): {', '.join(shown)}{more}; "
            f"say which one they are brought to, such as image_size={height}x{width}"
        )


class _PixelFile:
    """Appends pictures of one size to a file; the first picture in colour turns all grey ones before it to RGB."""

    def __init__(self, path: Path, expected: int) -> None:
        self._path, self._expected = path, expected
        self._file = path.open("wb")
        self._shape: tuple[int, int, int] | None = None
        self._count = 0

    def __enter__(self) -> "_PixelFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, pixels: Pixels) -> None:
        """Add pictures, uint8 (n, H, W, C)."""
        if self._shape is None:
            self._start(pixels.shape[1:])
        assert self._shape is not None
        if pixels.shape[3] > self._shape[2]:
            self._promote()
        elif pixels.shape[3] < self._shape[2]:
            pixels = np.repeat(pixels, self._shape[2], axis=3)
        self._file.write(np.ascontiguousarray(pixels).data)
        self._count += len(pixels)

    def rows(self) -> FileRows:
        """All pictures, uint8 (N, H, W, C)."""
        self._file.flush()
        return FileRows(self._path, (self._count, *(self._shape or (1, 1, 1))))

    def _start(self, shape: tuple[int, ...]) -> None:
        height, width, channels = shape
        self._shape = (height, width, channels)
        needed = 2 * height * width * channels * self._expected  # the scratch file and the dataset
        free = shutil.disk_usage(self._path.parent).free
        if needed > min(free, MAX_DATASET_BYTES):
            raise DataError(
                f"{self._expected} pictures of {height}x{width}x{channels} need {needed / 2**30:.1f} GiB for a while, and "
                f"{self._path.parent} has {free / 2**30:.1f} GiB (the limit is {MAX_DATASET_BYTES / 2**30:.0f}); give a smaller image_size"
            )

    def _promote(self) -> None:
        grey = self.rows()
        height, width, _ = self._shape or (0, 0, 0)
        wide = self._path.with_suffix(".rgb")
        with wide.open("wb") as file:
            for block in blocks(grey):
                file.write(np.repeat(block, 3, axis=3).data)
        self._file.close()
        wide.replace(self._path)
        self._file = self._path.open("ab")
        self._shape = (height, width, 3)
