"""config.json: what names a model's outputs, and what it takes to reproduce it."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from components.bundle.files import CONFIG
from components.bundle.formats import JsonFile
from components.classifier.errors import IntegrityError, PenstockError
from components.classifier.images import ImageSpec


class InputConfig(BaseModel):
    """What the model takes; mean and standard deviation (per channel, of pixels / 255) are inside the graph already."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    channels: int = Field(ge=1, le=3)
    mean: list[float]
    std: list[float]

    @property
    def spec(self) -> ImageSpec:
        """The shape as an ImageSpec."""
        return ImageSpec(self.height, self.width, self.channels)


class BundleConfig(JsonFile):
    """What `config.json` holds: all that is needed to name the model's outputs and to reproduce it."""

    FILE: ClassVar[str] = CONFIG
    ERROR: ClassVar[type[PenstockError]] = IntegrityError
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    schema_version: int = 1
    name: str
    architecture: str
    classes: list[str] = Field(min_length=2)
    input: InputConfig
    temperature: float = Field(gt=0)
    calibration: str = ""
    """How the temperature was found; empty in versions of release 0.1.0."""
    trained_at: str
    """UTC, ISO 8601 with seconds; the version's time."""
    dataset_digest: str
    parameters: dict[str, Any]
    code_version: str
