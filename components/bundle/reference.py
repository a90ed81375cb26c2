"""reference.json: how inputs and scores looked at training time, against which drift is measured."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from components.bundle.evaluation import SCHEMA_VERSION, Amount, Count, Strict, load
from components.bundle.files import REFERENCE


class Histogram(Strict):
    """Counts between `edges` (one more than counts), with the mean and the standard deviation of the values themselves."""

    edges: list[float]
    counts: list[Count]
    mean: float
    std: Amount


class Reference(Strict):
    """What reference.json holds: how inputs and scores looked at training time, against which drift is measured."""

    schema_version: int = SCHEMA_VERSION
    n: Annotated[int, Field(ge=1)]
    classes: list[str]
    predicted: list[Count]
    """How often each class was predicted, in the order of `classes`."""
    confidence: Histogram
    brightness: Histogram
    """Mean pixel of a picture, 0 to 255."""
    contrast: Histogram
    """Standard deviation of a picture's pixels, 0 to 127.5."""

    def save(self, directory: str | Path) -> None:
        """Write reference.json into a directory."""
        (Path(directory) / REFERENCE).write_text(self.model_dump_json(indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, directory: str | Path) -> "Reference":
        """Read reference.json of a directory; raises EvaluationError naming the field that is not what it must be."""
        return load(cls, Path(directory) / REFERENCE)
