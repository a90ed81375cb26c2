"""config.json: what names a model's outputs, what it takes to reproduce it, and of which versions a variant was made."""

import json
import os
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.bundle.files import CONFIG
from components.bundle.formats import JsonFile, Strict
from components.classifier.errors import IntegrityError, PenstockError, validation_problems
from components.classifier.images import ImageSpec

VARIANT = "variant"
"""What a version that was made of others says of itself: its name among the parameters of config.json and manifest.json, which every
release reads."""

Kind = Literal["int8", "ensemble", "average"]


class Parent(Strict):
    """A version that a variant was made of: its name, and the digest of its content (64 hexadecimal digits)."""

    version: str
    sha256: str


class Variant(Strict):
    """Of which versions a version was made, and how."""

    kind: Kind
    parents: list[Parent] = Field(min_length=1)
    how: str
    """In words: how it was quantised or averaged, and with which pictures."""

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self | None:
        """Read it from a version's parameters; None for a version that was trained. Raises IntegrityError for another form."""
        if not isinstance(parameters.get(VARIANT), Mapping):
            return None
        try:
            return cls.model_validate(parameters[VARIANT])
        except ValidationError as error:
            raise IntegrityError(f"parameters.{VARIANT} is not what this release writes ({validation_problems(error)[0]})") from error

    def __str__(self) -> str:
        return f"{self.kind} of {', '.join(parent.version for parent in self.parents)}: {self.how}"


class InputConfig(BaseModel):
    """What the model takes; mean and standard deviation (per channel, of pixels / 255) are inside the graph already."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    channels: int = Field(ge=1, le=3)
    levels: int = Field(16, ge=9, le=16)
    """In files of 16 bits per sample the brightest value is 2**levels - 1."""
    mean: list[float]
    std: list[float]

    @property
    def spec(self) -> ImageSpec:
        """The same as an ImageSpec."""
        return ImageSpec(self.height, self.width, self.channels, self.levels)


FAMILIARITY_THRESHOLD = 0.5


class FamiliarityConfig(BaseModel):
    """The graph's second output: how familiar a picture looks, 0 to 1. Pictures below `threshold` are unfamiliar."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    threshold: float = Field(gt=0, lt=1)
    quantile: float = Field(gt=0, lt=1)
    """The share of held-out pictures of the training's kind that are called unfamiliar."""
    pictures: int = Field(ge=1)
    """Held-out pictures that set the threshold."""
    layer: str
    """The layer whose input is compared with that of the training pictures; empty: the logits are."""
    features: int = Field(ge=1)


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
    familiarity: FamiliarityConfig | None = None
    """Null in versions of release 0.1.0, and where there were no validation pictures: then nothing is called unfamiliar."""
    trained_at: str
    """UTC, ISO 8601 with seconds; the version's time."""
    dataset_digest: str
    parameters: dict[str, Any]
    code_version: str


def facts_of(config: BundleConfig) -> dict[str, str]:
    """What model.onnx and exported files say of themselves, so that they can be used without others; docs/export.md lists it.

    Nothing in it depends on when or where the training ran: equal trainings write equal files.
    """
    spec, grey = config.input.spec, config.input.channels == 1
    deep = f" (in files of 16 bits the brightest value is {2**spec.levels - 1})" if spec.levels != 16 else ""
    return {
        "penstock.name": config.name,
        "penstock.architecture": config.architecture,
        "penstock.classes": json.dumps(config.classes, ensure_ascii=False),
        "penstock.dataset_digest": config.dataset_digest,
        "penstock.code_version": config.code_version,
        "penstock.preprocessing": (
            f"decode{deep}; turn by the EXIF orientation; lay transparent pixels on white; "
            f"{'grey by ITU-R 601-2 luma' if grey else 'RGB'}; "
            f"resize to {spec.width}x{spec.height} (width x height), bilinear with antialiasing, "
            "without keeping the aspect ratio; "
            f"uint8 0..255 as [N, {spec.height}, {spec.width}, {spec.channels}]; normalisation and temperature are inside the graph"
        ),
        **({"penstock.variant": json.dumps(config.parameters[VARIANT])} if VARIANT in config.parameters else {}),
    }


@cache
def code_version() -> str:
    """Return the version of the code that trains: `0.1.0`, or `0.1.0+g<commit>`, with `.dirty` when files differ from the commit.

    It is read from PENSTOCK_CODE_VERSION, which the image sets when it is built, otherwise from a git checkout.
    """
    stated = os.environ.get("PENSTOCK_CODE_VERSION", "")
    if stated:
        return stated
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return version("penstock")
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty=.dirty", "--exclude=*"]
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git, or another user's checkout: only the release is known
        return version("penstock")
    return f"{version('penstock')}+g{commit}"
