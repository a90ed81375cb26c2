"""What the readers hand on: pictures in their order, and what cannot or need not be read."""

from collections.abc import Callable
from dataclasses import dataclass

from components.classifier.images import ImageSpec, Pixels

BLOCK_ROWS, BLOCK_BYTES = 512, 16 * 2**20


@dataclass(frozen=True)
class Reading:
    """What a reader must know."""

    spec: ImageSpec
    """The shape that the model takes."""
    image_column: str = ""
    """Which column of a Parquet file holds the pictures ("": the only one)."""
    names: str = ""
    """Encoding of names in archives that do not say theirs ("": UTF-8 only)."""


@dataclass(slots=True)  # there may be millions, and a frozen one takes three times as long to make
class Encoded:
    """One picture whose bytes `load` fetches, in a decoding thread; `size` in bytes, 0 where it is not known."""

    input: str
    index: int
    load: Callable[[], bytes]
    size: int = 0


@dataclass(frozen=True)
class Decoded:
    """Pictures of one array: uint8 (n, H, W, 1 or 3) of any size; the first is row `first` of the input."""

    input: str
    first: int
    pixels: Pixels


@dataclass(frozen=True)
class Unreadable:
    """A dead letter: a record that has a place in the output, but no picture that could be read."""

    input: str
    index: int
    reason: str


@dataclass(frozen=True, slots=True)  # there may be a million
class PassedOver:
    """Something that is not a record (a hidden file, a label without a picture): reported, not read."""

    input: str
    reason: str


Record = Encoded | Decoded | Unreadable | PassedOver


def rows_at_once(picture_bytes: int) -> int:
    """Return how many pictures of an array to read at once: few when they are large."""
    return max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(1, picture_bytes)))
