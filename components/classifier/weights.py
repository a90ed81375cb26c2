"""Weights in a file: read without unpickling objects, and put into a network whose last layer may have another number of classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from components.classifier.errors import TrainingError, first_line
from components.classifier.layers import head_layers
from components.classifier.network import Adapter

_WRAPPERS = ("state_dict", "model")
"""Under what training programs keep the weights within a file; the first that is there counts."""
_NO_WEIGHTS = "it is damaged, of another kind, or holds objects"
"""In place of what torch says: numbers of bytes, and to read it as objects."""
_NAMED = 3
"""How many keys a message names."""


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read a safetensors file, or what torch.save wrote of a state dict, on the CPU; no object is unpickled.

    A state dict within another one (`state_dict`, `model`) is found, and the prefix that DataParallel gives (`module.`) is dropped.
    Raises TrainingError for a file that cannot be read or holds no weights.
    """
    try:
        with file.open("rb") as opened:
            start = opened.read(9)
        content = load_file(file) if start[8:] == b"{" else torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of damaged bytes torch's reader raises anything, an IndexError too
        cause = getattr(error, "strerror", None) or (first_line(error) if isinstance(error, SafetensorError) else _NO_WEIGHTS)
        raise TrainingError(
            f"{file} cannot be read as weights ({cause}); give a safetensors file, or what torch.save wrote of a state dict"
        ) from error
    return _state_dict(content, file)


def _state_dict(content: Any, file: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
        found = {str(key).removeprefix("module."): value for key, value in inner.items() if isinstance(value, Tensor)}
        if found:
            return found
    raise TrainingError(f"{file} holds no weights but a {type(content).__name__}; give a safetensors file or a state dict")


@dataclass(frozen=True)
class Loaded:
    """What became of the tensors of a file."""

    tensors: int
    """How many are in the network now."""
    new_head: bool
    """Whether the last layer stayed random: the file has another number of classes, or no such layer."""
    unused: list[str]
    """Keys of the file that the network does not have."""


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], origin: str) -> Loaded:
    """Put weights into a network as `build` makes it; its last layer keeps its own where the file's has another shape.

    Raises TrainingError naming keys when anything else of the network is missing in the file or has another shape there; `origin` says
    in messages which file it is. So a training never starts from weights of which a part is random, except for the last layer.
    """
    own = network.state_dict()
    if isinstance(network, Adapter) and not any(key in own for key in weights):
        weights = {f"body.{key}": value for key, value in weights.items()}
    fitting = {key: value for key, value in weights.items() if key in own and value.shape == own[key].shape}
    heads = tuple(f"{name}." for name in head_layers(network))
    head = {key for key in own if key.startswith(heads)} if heads else set()
    new_head = not head <= fitting.keys()
    if new_head:
        fitting = {key: value for key, value in fitting.items() if key not in head}
    wrong = [key for key in own if key not in fitting and key not in head and not key.endswith("num_batches_tracked")]
    if wrong or not fitting:
        told = [f"{key} is {_shape(own[key])}, in the file {_shape(weights.get(key))}" for key in wrong[:_NAMED]]
        raise TrainingError(
            f"{origin} do not fit the network: {len(wrong)} of {len(own)} tensors, such as: {'; '.join(told)}; "
            "set the architecture, width and picture size that they were made with, or other weights"
        )
    network.load_state_dict({**own, **fitting})
    return Loaded(len(fitting), new_head, [key for key in weights if key not in own])


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else "x".join(map(str, tensor.shape)) or "one number"
