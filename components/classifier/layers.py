"""Which layers of a network classify: those that it was told, or the one that runs last."""

from typing import Any

import torch
from torch import Tensor, nn

_HEADS = "penstock_heads"
"""The attribute of a network that is not ours in which `build` notes its heads."""


def name_heads(network: nn.Module, *names: str) -> None:
    """Note in a network which of its layers classify."""
    setattr(network, _HEADS, names)


def named_heads(network: nn.Module) -> tuple[str, ...]:
    """Return the names that `name_heads` noted, empty where there are none."""
    found: tuple[str, ...] = getattr(network, _HEADS, ())
    return found


def head_layers(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the layers that classify: those that were noted, or else the last linear layer or convolution that was made.

    In a user's network `build` notes the one that ran last. Empty for a network that has neither.
    """
    return named_heads(network) or tuple(_products(network))[-1:]


def last_that_runs(network: nn.Module, pictures: Tensor) -> tuple[str, torch.Size, Any]:
    """Run a network on pictures; returns the linear layer or convolution that ran last, the shape that it read, and what the network gave.

    The name is empty where there is none.
    """
    calls: list[tuple[str, torch.Size]] = [("", torch.Size())]

    def note(name: str) -> Any:
        return lambda _, inputs: calls.append((name, inputs[0].shape))

    hooks = [module.register_forward_pre_hook(note(name)) for name, module in _products(network).items()]
    try:
        given = network(pictures)
    finally:
        for hook in hooks:
            hook.remove()
    return *calls[-1], given


def _products(network: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
