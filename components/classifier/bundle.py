"""The files of a model version, and what their names mean.

| file | written by | what it is |
|---|---|---|
| model.onnx | train | uint8 pictures in, calibrated probabilities out: normalisation and temperature are inside |
| model.safetensors | train | the weights, for further training |
| config.json | train | `BundleConfig`: classes, shape, architecture, parameters, dataset digest |
| training.json | train | the epochs, and what stopped them |
| evaluation.json | evaluate | metrics on the sealed test split, and the paired comparison with the champion |
| predictions.npz | evaluate | test labels and probabilities, from which the gate can be run again |
| reference.json | evaluate | score statistics at training time, against which drift is measured |
| golden.npz | evaluate | pictures and the probabilities that a served version must give for them |
| report.html | evaluate | the evaluation, for people |
| MODEL_CARD.md | publish | what the model is for, and its numbers |
| manifest.json | publish, last | SHA-256 of every file, and where they came from: a version exists when this does |
"""

import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.classifier.errors import IntegrityError
from components.classifier.images import ImageSpec, Pixels

ONNX, WEIGHTS, CONFIG, TRAINING = "model.onnx", "model.safetensors", "config.json", "training.json"
EVALUATION, PREDICTIONS, REFERENCE, GOLDEN, REPORT = "evaluation.json", "predictions.npz", "reference.json", "golden.npz", "report.html"
CARD, MANIFEST = "MODEL_CARD.md", "manifest.json"

TRAINED_FILES = (ONNX, WEIGHTS, CONFIG, TRAINING)
EVALUATED_FILES = (EVALUATION, PREDICTIONS, REFERENCE, GOLDEN, REPORT)

INPUT_NAME, OUTPUT_NAME = "image", "probabilities"
"""The tensors of model.onnx, and of the V2 inference protocol."""

GOLDEN_TOLERANCE = 1e-4
"""How far a served probability may be from the evaluated one (absolute)."""


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


def save_golden(directory: str | Path, images: Pixels, probabilities: npt.NDArray[np.float32]) -> None:
    """Write golden.npz: `images` uint8 (N, H, W, C) and the `probabilities` float32 (N, K) that they must give."""
    np.savez_compressed(Path(directory) / GOLDEN, images=images, probabilities=probabilities)


def load_golden(directory: str | Path) -> tuple[Pixels, npt.NDArray[np.float32]]:
    """Read golden.npz: (images, probabilities).

    Raises IntegrityError when it is missing or damaged.
    """
    path = Path(directory) / GOLDEN
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive["images"], archive["probabilities"]
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, BadZipFile, zlib.error) as error:
        raise IntegrityError(f"{path} cannot be read ({error}); publish the model version again") from error
