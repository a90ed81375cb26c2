"""config.json: what names a model's outputs, and what it takes to reproduce it."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.bundle.files import CONFIG
from components.classifier.errors import IntegrityError
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


class BundleConfig(BaseModel):
    """What `config.json` holds: all that is needed to name the model's outputs and to reproduce it."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    schema_version: int = 1
    name: str
    architecture: str
    classes: list[str] = Field(min_length=2)
    input: InputConfig
    temperature: float = Field(gt=0)
    trained_at: str
    """UTC, ISO 8601 with seconds; the version's time."""
    dataset_digest: str
    parameters: dict[str, Any]
    code_version: str

    @classmethod
    def load(cls, directory: str | Path) -> "BundleConfig":
        """Read config.json of a model directory.

        Raises IntegrityError when it is missing or not what this release writes.
        """
        path = Path(directory) / CONFIG
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise IntegrityError(f"{path} cannot be read ({error.strerror}); fetch or publish the model version again") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise IntegrityError(
                f"{path} is not a bundle configuration ({where}: {first['msg']}); publish the model version again"
            ) from error

    def save(self, directory: str | Path) -> None:
        """Write config.json into a model directory."""
        (Path(directory) / CONFIG).write_text(self.model_dump_json(indent=1) + "\n", "utf-8")
