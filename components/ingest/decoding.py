"""From members to pixels: decoded in threads, kept in a scratch file, so that memory does not grow with the source."""

import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from components.classifier import images
from components.classifier.decode import decode, is_picture
from components.classifier.errors import DataError, ImageError
from components.classifier.images import ImageSpec, Pixels
from components.ingest.collection import fingerprint, is_constant
from components.ingest.listing import MAX_FILE_BYTES, Member, looks_like_picture, too_large
from components.settings.ingest import IngestSettings

MAX_DATASET_BYTES = 256 * 2**30
BATCH_FILES, BATCH_BYTES, BATCH_PIXEL_BYTES = 32, 2**20, 16 * 2**20
"""Members that one thread takes at a time: so many at most, of so many bytes before and after decoding."""
PROGRESS_SECONDS = 10
SIZE_SURVEY = 1000
"""After two sizes were met, how many pictures are looked at for the message."""

Log = Callable[[str], None]


@dataclass(frozen=True)
class _Picture:
    pixels: Pixels
    print: bytes
    constant: bool


@dataclass
class Decoded:
    """The pictures that could be read, in the order of `members`."""

    images: Pixels
    members: list[Member] = field(default_factory=list)
    prints: list[bytes] = field(default_factory=list)
    constant: list[bool] = field(default_factory=list)
    faults: list[tuple[Member, str]] = field(default_factory=list)
    """Members that should be pictures and cannot be read, with the reason."""
    others: list[Member] = field(default_factory=list)
    """Members that are no pictures, by name and by content."""


def decode_members(members: Sequence[Member], options: IngestSettings, scratch: Path, workers: int, log: Log) -> Decoded:
    """Decode all members in full, in order.

    `scratch` is a file that is written and stays mapped as the result's `images`. Raises DataError when the pictures have
    several sizes and none was asked for, and when they do not fit on the disk.
    """
    result = Decoded(np.zeros((0, 1, 1, 1), np.uint8))
    sizes = _Sizes()
    with _PixelFile(scratch, len(members)) as pixels, ThreadPoolExecutor(workers, "decode") as pool:
        progress = _Progress(len(members), log)
        for member, outcome in _in_order(pool, members, options, workers):
            progress.step()
            if outcome is None:
                result.others.append(member)
            elif isinstance(outcome, str):
                result.faults.append((member, outcome))
            elif sizes.fits(outcome.pixels, member):
                pixels.append(outcome.pixels)
                result.members.append(member)
                result.prints.append(outcome.print)
                result.constant.append(outcome.constant)
        sizes.check()
        result.images = pixels.mapped()
    return result


def _in_order(
    pool: ThreadPoolExecutor, members: Sequence[Member], options: IngestSettings, workers: int
) -> Iterator[tuple[Member, _Picture | str | None]]:
    """Yield each member with what came of it, in order, with few batches in flight."""
    waiting: deque[tuple[list[Member], Future[list[_Picture | str | None]]]] = deque()
    try:
        for batch in _batches(members, _files_at_once(options)):
            waiting.append((batch, pool.submit(_decode_batch, batch, options)))
            if len(waiting) > workers + 2:
                done, future = waiting.popleft()
                yield from zip(done, future.result(), strict=True)
        for done, future in waiting:
            yield from zip(done, future.result(), strict=True)
    finally:
        for _, future in waiting:
            future.cancel()


def _files_at_once(options: IngestSettings) -> int:
    height, width = options.image_size or (1, 1)
    return max(1, min(BATCH_FILES, BATCH_PIXEL_BYTES // (3 * height * width)))


def _batches(members: Sequence[Member], most: int) -> Iterator[list[Member]]:
    batch: list[Member] = []
    size = 0
    for member in members:
        batch.append(member)
        size += member.size
        if len(batch) == most or size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _decode_batch(batch: list[Member], options: IngestSettings) -> list[_Picture | str | None]:
    return [_decode(member, options) for member in batch]


def _decode(member: Member, options: IngestSettings) -> _Picture | str | None:
    """A picture, or the reason why it is none, or None for a file that does not claim to be one."""
    claims = looks_like_picture(member.name)
    if member.size > MAX_FILE_BYTES:
        return str(too_large(member.size)) if claims else None
    try:
        data = member.read()
        if not claims and not is_picture(data):
            return None
        pixels = decode(data)
    except ImageError as error:
        return str(error)
    height, width = options.image_size or pixels.shape[:2]
    pixels = images.prepare(pixels, ImageSpec(height, width, options.channels or pixels.shape[2]))
    return _Picture(pixels, fingerprint(pixels), is_constant(pixels))


class _Sizes:
    """Holds all pictures to the size of the first."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, int]] = Counter()
        self._examples: dict[tuple[int, int], str] = {}

    def fits(self, pixels: Pixels, member: Member) -> bool:
        size = (pixels.shape[0], pixels.shape[1])
        self._counts[size] += 1
        self._examples.setdefault(size, member.name)
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
        if self._shape is None:
            self._start(pixels.shape)
        assert self._shape is not None
        if pixels.shape[2] > self._shape[2]:
            self._promote()
        elif pixels.shape[2] < self._shape[2]:
            pixels = np.repeat(pixels, self._shape[2], axis=2)
        self._file.write(np.ascontiguousarray(pixels).data)
        self._count += 1

    def mapped(self) -> Pixels:
        """All pictures, uint8 (N, H, W, C), memory-mapped."""
        self._file.flush()
        if self._shape is None or not self._count:
            return np.zeros((0, 1, 1, 1), np.uint8)
        return np.memmap(self._path, np.uint8, "r", shape=(self._count, *self._shape))

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
        grey = self.mapped()
        height, width, _ = self._shape or (0, 0, 0)
        wide = self._path.with_suffix(".rgb")
        with wide.open("wb") as file:
            for picture in grey:
                file.write(np.repeat(picture, 3, axis=2).data)
        self._file.close()
        wide.replace(self._path)
        self._file = self._path.open("ab")
        self._shape = (height, width, 3)


class _Progress:
    """One line every few seconds of a long read."""

    def __init__(self, total: int, log: Log) -> None:
        self._total, self._log, self._done = total, log, 0
        self._next = time.monotonic() + PROGRESS_SECONDS

    def step(self) -> None:
        self._done += 1
        if time.monotonic() > self._next:
            self._log(f"read {self._done:,} of {self._total:,} files")
            self._next = time.monotonic() + PROGRESS_SECONDS
