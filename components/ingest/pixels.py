"""From encoded pictures to pixels in a scratch file, so that memory does not grow with the source."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from components.classifier import images
from components.classifier.decode import decode_picture, is_picture
from components.classifier.errors import DataError, ImageError
from components.classifier.images import ImageSpec, Pixels
from components.classifier.progress import Progress
from components.ingest.collection import fingerprint, is_constant
from components.readers.decoding import in_order, load
from components.readers.listing import MAX_FILE_BYTES, looks_like_picture
from components.readers.records import Encoded, Unreadable
from components.settings.ingest import IngestSettings

MAX_DATASET_BYTES = 256 * 2**30
BATCH_FILES, BATCH_BYTES, BATCH_PIXEL_BYTES = 32, 2**20, 16 * 2**20
"""What one thread takes at a time: so many pictures at most, of so many bytes before and after decoding."""
SIZE_SURVEY = 1000
"""After two sizes were met, how many pictures are looked at for the message."""

Log = Callable[[str], None]


@dataclass(frozen=True)
class _Picture:
    pixels: Pixels
    print: bytes
    constant: bool
    peak: int | None


@dataclass
class DecodedPictures:
    """The pictures that could be read, in the order of the records."""

    images: Pixels
    names: list[str] = field(default_factory=list)
    prints: list[bytes] = field(default_factory=list)
    constant: list[bool] = field(default_factory=list)
    deep: int = 0
    """How many files had 16 bits per sample."""
    peak: int = 0
    """The largest sample in these."""
    faults: list[tuple[str, str]] = field(default_factory=list)
    """Names of what should be pictures and cannot be read, with the reason."""
    others: list[str] = field(default_factory=list)
    """Names of files that are not pictures, by name and by content."""


def decode_all(
    records: Iterable[Encoded | Unreadable],
    count: int,
    settings: IngestSettings,
    scratch: Path,
    workers: int,
    log: Log,
    *,
    all_pictures: bool,
) -> DecodedPictures:
    """Decode all records in full, in order; there are about `count` of them.

    `scratch` is a file that is written and stays mapped as the result's `images`. With `all_pictures` a record that is not a
    picture is a fault whatever its name. Raises DataError when the pictures have several sizes and none was asked for, and when
    they do not fit on the disk.
    """
    result = DecodedPictures(np.zeros((0, 1, 1, 1), np.uint8))
    sizes = _Sizes()
    work = partial(_decode_batch, settings=settings, all_pictures=all_pictures)
    with _PixelFile(scratch, count) as pixels, ThreadPoolExecutor(workers, "decode") as pool:
        progress = Progress(count, "files", log)
        for batch in in_order(pool, _batches(records, _files_at_once(settings)), work, workers + 2):
            for name, outcome in batch:
                progress.step()
                if outcome is None:
                    result.others.append(name)
                elif isinstance(outcome, str):
                    result.faults.append((name, outcome))
                elif sizes.fits(outcome.pixels, name):
                    pixels.append(outcome.pixels)
                    result.names.append(name)
                    result.prints.append(outcome.print)
                    result.constant.append(outcome.constant)
                    if outcome.peak is not None:
                        result.deep, result.peak = result.deep + 1, max(result.peak, outcome.peak)
        sizes.check()
        result.images = pixels.mapped()
    return result


def _files_at_once(settings: IngestSettings) -> int:
    height, width = settings.image_size or (1, 1)
    return max(1, min(BATCH_FILES, BATCH_PIXEL_BYTES // (3 * height * width)))


def _batches(records: Iterable[Encoded | Unreadable], most: int) -> Iterator[list[Encoded | Unreadable]]:
    batch: list[Encoded | Unreadable] = []
    size = 0
    for record in records:
        batch.append(record)
        size += record.size if isinstance(record, Encoded) else 0
        if len(batch) == most or size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _decode_batch(
    batch: list[Encoded | Unreadable], settings: IngestSettings, all_pictures: bool
) -> list[tuple[str, _Picture | str | None]]:
    return [(r.input, _decode(r, settings, all_pictures) if isinstance(r, Encoded) else r.reason) for r in batch]


def _decode(record: Encoded, settings: IngestSettings, all_pictures: bool) -> _Picture | str | None:
    """A picture, or the reason why it cannot be read, or None for a file that does not claim to be one."""
    claims = all_pictures or looks_like_picture(record.input)
    if record.size > MAX_FILE_BYTES and not claims:
        return None
    try:
        data = load(record)
        if not claims and not is_picture(data):
            return None
        picture = decode_picture(data, levels=settings.levels)
    except ImageError as error:
        return str(error)
    height, width = settings.image_size or picture.pixels.shape[:2]
    pixels = images.prepare(picture.pixels, ImageSpec(height, width, settings.channels or picture.pixels.shape[2]))
    return _Picture(pixels, fingerprint(pixels), is_constant(pixels), picture.peak)


class _Sizes:
    """Holds all pictures to the size of the first."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, int]] = Counter()
        self._examples: dict[tuple[int, int], str] = {}

    def fits(self, pixels: Pixels, name: str) -> bool:
        size = (pixels.shape[0], pixels.shape[1])
        self._counts[size] += 1
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
