"""What a user can set about ingest, validated before any work."""

import re
from typing import Annotated, ClassVar, Literal
from urllib.parse import unquote

from pydantic import BeforeValidator, Field, model_validator

from components.classifier.errors import UsageError, near
from components.settings.base import NameEncoding, Settings
from components.storage.files import user_path

NAMED_SOURCES = ("digits", "mnist", "fashion_mnist", "kmnist", "cifar10")
"""Sets that Penstock knows by name."""
SOURCE_FORMS = (
    f"{', '.join(NAMED_SOURCES)}, a folder, a tar or zip archive, a table of labels or pixels, Parquet, Arrow, npz, or an s3:// address"
)
MAX_SIDE = 4096
"""Largest height or width that pictures can be brought to, in pixels."""


def parse_image_size(value: object) -> tuple[int, int] | None:
    """Read 28, "28" or "28x32" (height x width) as (28, 28) or (28, 32), and "" as None; a pair stays as it is.

    Raises UsageError for anything else.
    """
    if value is None or isinstance(value, list | tuple):
        return tuple(value) if value else None  # the model checks length and numbers
    text = f"{value:g}" if isinstance(value, float) else str(value).strip()
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,6})(?:\s*[x×,]\s*(\d{1,6}))?", text.lower())
    if match is None:
        raise UsageError(f"image_size {text!r} is not a size; use 28, or 28x32 (height x width), or leave it empty for the pictures' own")
    height, width = int(match[1]), int(match[2] or match[1])
    return height, width


def parse_channels(value: object) -> int | None:
    """Read 1, 3, "1" or "3" as a number, and "" as None.

    Raises UsageError for anything else.
    """
    text = value.strip() if isinstance(value, str) else value
    if text is None or text == "":
        return None
    if isinstance(text, bool) or text not in {"1", "3", 1, 3}:
        raise UsageError(f"channels={value!r} is not possible; use 1 (grey), 3 (RGB) or leave it empty (from the pictures)")
    return int(text)


class IngestSettings(Settings):
    """How a source becomes a dataset; the defaults are right for a folder of pictures of one size.

    Raises UsageError for values that are out of range or do not go together.
    """

    group: ClassVar[str] = "ingest"
    image_size: Annotated[tuple[int, int] | None, BeforeValidator(parse_image_size)] = None
    """Resize every picture to this: 28, or 28x32 for height x width. Empty keeps the pictures' own size, the same for all."""
    channels: Annotated[int | None, BeforeValidator(parse_channels)] = None
    """1 for grey, 3 for RGB. Empty: 3 when any picture has colour."""
    levels: int = Field(16, ge=9, le=16)
    """Bits that files of 16 bits per sample really use, such as 10, 12 or 14 of microscopes and X-rays; serving reads them alike."""
    validation_fraction: float = Field(0.1, gt=0, lt=1)
    """Part of the training pictures set aside for early stopping and calibration, where the source has no such split."""
    test_fraction: float = Field(0.2, gt=0, lt=1)
    """Part sealed for evaluation, where the source has no test split of its own."""
    split_seed: int = Field(0, ge=0, le=2**31 - 1)
    """Decides which pictures are sealed. Keep it: under another one the champion has trained on some of them."""
    on_unreadable: Literal["set_aside", "fail"] = "set_aside"
    """set_aside leaves damaged pictures out and names them; fail stops the run."""
    max_duplicates: int = Field(0, ge=0)
    """How many pictures may be in two splits; up to it they are dropped from training, above it the source is refused."""
    max_near_duplicates: int | None = Field(None, ge=0)
    """How many validation and test pictures may look like one of another split; more are refused. Empty: reported only."""
    names: NameEncoding = ""
    """Encoding of file names in a zip or tar that do not say theirs, such as cp932 or gbk. Empty: only UTF-8 is taken."""
    group_column: str = ""
    """Column of columns.csv or the table of labels: all pictures with one value of it, such as a patient's, stay in one split."""
    group_pattern: str = ""
    """The same by a regular expression on the picture's path, of which the first bracket is the group, such as /(p[0-9]+)_"""
    keep_dataset: bool = False
    """Keep the dataset version in the store, under datasets/DIGEST: the source of a later run, or an audit, with the same bytes."""
    weight_column: str = ""
    """Column of columns.csv or the table of labels with the weight of each picture in training's loss. Empty: all count alike."""
    extra_training_source: str = ""
    """A second source that is trained on and never tests, such as an export of the review queue. Empty for none."""

    @model_validator(mode="after")
    def _agree(self) -> "IngestSettings":
        if self.image_size is not None and not all(1 <= side <= MAX_SIDE for side in self.image_size):
            raise ValueError(f"image_size {self.image_size[0]}x{self.image_size[1]} is out of range; height and width are 1 to {MAX_SIDE}")
        if self.group_column and self.group_pattern:
            raise ValueError("group_column and group_pattern both say what a group is; set one of them")
        try:
            re.compile(self.group_pattern)
        except re.error as error:
            raise ValueError(f"group_pattern {self.group_pattern!r} is not a regular expression ({error})") from error
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} and test_fraction={self.test_fraction} leave nothing to train on; "
                "their sum must be below 1"
            )
        return self


def check_source(source: str, parameter: str = "source") -> None:
    """Raise UsageError for a source that does not exist; addresses of other machines are left to ingest."""
    scheme, separator, rest = source.partition("://")
    if source in NAMED_SOURCES or (separator and scheme != "file"):
        return
    if not source.strip() or not user_path(unquote(rest) if separator else source).exists():
        hint = near(source.lower().replace("-", "_"), NAMED_SOURCES)
        raise UsageError(f"{parameter} {source!r} does not exist{hint}; give {SOURCE_FORMS}")
