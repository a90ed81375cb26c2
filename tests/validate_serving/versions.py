"""A sound version before it is published, and each kind of unsound one that validation must refuse."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from components.bundle import files
from components.registry import Registry
from components.registry.publication import publish_directory
from components.storage import open_store
from tests import tiny
from tests.predictor.versions import NAME


def write_sound(directory: Path) -> Path:
    """Write all that is published."""
    tiny.write_bundle(directory)
    (directory / files.EVALUATION).write_text(json.dumps({"classes": tiny.CLASSES}))
    return directory


def copy_of(sound: Path, folder: Path) -> Path:
    return Path(shutil.copytree(sound, folder / "changed"))


def published(directory: Path, folder: Path) -> tuple[Registry, str]:
    """Publish into the store below a folder; returns its registry and the version."""
    registry = Registry(open_store(str(folder / "store")), NAME)
    return registry, publish_directory(registry, directory).version


def change_normalisation(directory: Path) -> None:
    """Scale the weights, as a graph would be that divides by something else."""
    model = onnx.load(directory / files.ONNX)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.3), "weight"))
    onnx.save(model, directory / files.ONNX)


def change_labels(directory: Path) -> None:
    config = json.loads((directory / files.CONFIG).read_text())
    config["classes"][2], config["classes"][7] = config["classes"][7], config["classes"][2]
    (directory / files.CONFIG).write_text(json.dumps(config))


def change_shape(directory: Path) -> None:
    config = json.loads((directory / files.CONFIG).read_text())
    config["input"]["height"] = 9
    (directory / files.CONFIG).write_text(json.dumps(config))


def leave_out_classes(directory: Path) -> None:
    (directory / files.EVALUATION).write_text("{}")


CHANGES: dict[Callable[[Path], None], str] = {
    change_normalisation: "golden pictures give probabilities",
    change_labels: "labels in another order",
    change_shape: "config.json",
    leave_out_classes: "evaluation.json",
}
"""What makes a version unsound, and words of the refusal."""


def damage(registry: Registry, version: str) -> None:
    """Change a byte of a published file."""
    path = Path(registry.uri(version)) / files.ONNX
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
