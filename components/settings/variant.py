"""What a user may set for a variant of published versions."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from components.bundle.config import Kind
from components.settings.base import Settings

MAX_PARENTS = 5


class VariantSettings(Settings):
    """Of which versions a variant is made, and how; raises UsageError naming the value and the bounds."""

    group: ClassVar[str] = "variant"
    kind: Kind = "int8"
    """int8 (8-bit whole numbers), ensemble (mean probabilities, one graph) or average (mean weights)."""
    versions: str = "champion"
    """The published versions: one for int8, else 2 to 5 with commas between; a name, its beginning, champion or previous."""
    quantisation: Literal["auto", "static", "weights"] = "auto"
    """For int8: static (computes in 8 bits), weights (a smaller file only), or auto: static unless it changes over 2% of answers."""
    calibration_split: Literal["train", "validation"] = "train"
    """For int8: the split of the kept dataset whose pictures calibrate; the test split never does."""
    calibration_pictures: int = Field(512, ge=16, le=10_000)
    """For int8: how many pictures calibrate, drawn evenly over the split."""

    @property
    def selectors(self) -> list[str]:
        """The versions as they were given."""
        return [part.strip() for part in self.versions.split(",") if part.strip()]

    @model_validator(mode="after")
    def _check_number(self) -> "VariantSettings":
        count = len(self.selectors)
        if self.kind == "int8" and count != 1:
            raise ValueError(f"kind=int8 is made of one version, versions={self.versions!r} names {count}; name one")
        if self.kind != "int8" and not 2 <= count <= MAX_PARENTS:
            raise ValueError(
                f"kind={self.kind} is made of 2 to {MAX_PARENTS} versions, versions={self.versions!r} names {count}; "
                "name them with commas between"
            )
        return self
