"""What a user can set about ingest, validated before any work."""

import re
from dataclasses import dataclass

from components.classifier.errors import UsageError

UNREADABLE_POLICIES = ("set_aside", "fail")
MAX_SIDE = 4096
"""Largest height or width that pictures can be brought to, in pixels."""


@dataclass(frozen=True)
class IngestSettings:
    """How a source becomes a dataset; the defaults are right for a folder of pictures of one size.

    Raises UsageError for values that are out of range or do not go together.
    """

    image_size: tuple[int, int] | None = None
    """(height, width) that every picture is resized to; None: their own, which must be the same for all."""
    channels: int | None = None
    """1 (grey) or 3 (RGB); None: 3 when any picture has colour."""
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    """Shares that are split off where the source does not give the split itself."""
    seed: int = 0
    on_unreadable: str = "set_aside"
    max_duplicates: int = 0
    """How many training or validation pictures may also be in another split; up to it they are dropped, above it refused."""
    extra_training_source: str = ""
    """A second source whose pictures are only trained on; see extra.py."""

    def __post_init__(self) -> None:
        if self.image_size is not None and not all(1 <= side <= MAX_SIDE for side in self.image_size):
            raise UsageError(f"image_size {self.image_size[0]}x{self.image_size[1]} is out of range; height and width are 1 to {MAX_SIDE}")
        if self.channels not in (None, 1, 3):
            raise UsageError(f"channels={self.channels} is not possible; use 1 (grey), 3 (RGB) or leave it empty (from the pictures)")
        for name in ("validation_fraction", "test_fraction"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise UsageError(f"{name}={value} is out of range; it is a share between 0 and 1, such as 0.2")
        if self.validation_fraction + self.test_fraction >= 1:
            raise UsageError(
                f"validation_fraction={self.validation_fraction} and test_fraction={self.test_fraction} leave nothing to train on; "
                "their sum must be below 1"
            )
        if self.on_unreadable not in UNREADABLE_POLICIES:
            raise UsageError(f"on_unreadable={self.on_unreadable!r} is unknown; use {' or '.join(UNREADABLE_POLICIES)}")
        if self.max_duplicates < 0:
            raise UsageError(f"max_duplicates={self.max_duplicates} is negative; it is a number of pictures, 0 or more")


def parse_image_size(text: str) -> tuple[int, int] | None:
    """Read "28" or "28x32" (height x width) as (28, 28) or (28, 32), and "" as None.

    Raises UsageError for any other text.
    """
    text = text.strip()
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,6})(?:\s*[x×,]\s*(\d{1,6}))?", text.lower())
    if match is None:
        raise UsageError(f"image_size {text!r} is not a size; use 28, or 28x32 (height x width), or leave it empty for the pictures' own")
    height, width = int(match[1]), int(match[2] or match[1])
    return height, width


def parse_channels(text: str) -> int | None:
    """Read "1" or "3" as a number, and "" as None.

    Raises UsageError for any other text.
    """
    text = text.strip()
    if text not in {"", "1", "3"}:
        raise UsageError(f"channels={text!r} is not possible; use 1 (grey), 3 (RGB) or leave it empty (from the pictures)")
    return int(text) if text else None
