"""From settings to torch's optimizer, the learning rate over time, and the average of the weights."""

import copy
import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn

from components.classifier.layers import head_layers
from components.settings.training import TrainingSettings

WARM_UP = 0.2
"""The fraction of a cycle in which the learning rate of one_cycle rises; after it, it falls to nearly zero (Smith, 2018)."""
LOWEST_START, LOWEST_END = 1 / 25, 4e-6
"""Where one_cycle begins and ends, relative to the highest rate: the defaults of torch's OneCycleLR."""


def _light(kind: type[torch.optim.Optimizer]) -> Any:
    """Return a kind of optimizer without what torch puts around its methods for torch.compile, whose import takes 150 MB and seconds."""
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict")}
    return type(kind.__name__, (kind,), {**methods, "step": torch.no_grad()(inspect.unwrap(kind.step))})


_KINDS = {"adamw": _light(torch.optim.AdamW), "adam": _light(torch.optim.Adam), "sgd": _light(torch.optim.SGD)}


def make_optimizer(network: nn.Module, options: TrainingSettings) -> torch.optim.Optimizer:
    """Return the optimizer over all parameters; where training starts from weights, all layers but the last have a rate of their own.

    torch's fused kernels take less than half the time on a CPU, and make no temporary copies as large as the network.
    """
    if options.optimizer == "sgd":
        own: dict[str, Any] = {"momentum": options.momentum, "nesterov": options.momentum > 0}
    else:
        own = {"betas": (options.momentum, 0.999)}
    groups = _parameter_groups(network, options)
    made: torch.optim.Optimizer = _KINDS[options.optimizer](groups, weight_decay=options.weight_decay, fused=True, **own)
    return made


def learning_body(network: nn.Module) -> list[Tensor]:
    """Return the parameters of all layers but the last that learn, as the network was built: one may keep some for good."""
    heads = _parameters_of_heads(network)
    return [parameter for parameter in network.parameters() if parameter.requires_grad and parameter not in heads]


def freeze(network: nn.Module, body: list[Tensor], frozen: bool) -> None:
    """Put a network into training, where `frozen` without its `body`: that gets no gradients, and normalises by its statistics."""
    network.train()
    for parameter in body:
        parameter.requires_grad_(not frozen)
    for module in network.modules():
        if frozen and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def is_frozen(frozen: float, cycle_start: int, done: float) -> bool:
    """Say whether only the last layer learns now: in the first `frozen` of the first cycle, of which `done` has passed, or always at 1."""
    return frozen == 1 or (cycle_start == 0 and done < frozen)


def relative_rate(scheduler: str, done: float) -> float:
    """Return the learning rate relative to the highest, when the fraction `done` (0 to 1) of a cycle has passed.

    A function of the fraction instead of torch's schedules, which count steps: a training within a time budget does not know how many
    there will be.
    """
    done = min(done, 1.0)
    if scheduler == "one_cycle":
        if done < WARM_UP:
            return _cosine(LOWEST_START, 1.0, done / WARM_UP)
        return _cosine(1.0, LOWEST_END, (done - WARM_UP) / (1 - WARM_UP))
    if scheduler == "cosine":
        return _cosine(1.0, 0.0, done)
    if scheduler == "step":
        return 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01
    return 1.0


def set_rate(optimizer: torch.optim.Optimizer, relative: float) -> float:
    """Set the learning rate of every group to this fraction of its highest; returns the last group's."""
    for group in optimizer.param_groups:
        group["lr"] = group["highest_lr"] * relative
    return float(optimizer.param_groups[-1]["lr"])


class WeightAverage:
    """An exponential moving average of a network's weights and statistics, which is better than the weights while the rate is high.

    Polyak averaging (Polyak and Juditsky, 1992), over as many steps as `restart` says. Unlike torch's AveragedModel it never waits for the
    device.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = copy.deepcopy(network)
        self.network.requires_grad_(False)
        self._decay = 0.0
        self._averaged, self._copied = _tensors(self.network)
        self._sources, self._exact = _tensors(network)

    @torch.no_grad()
    def restart(self, horizon: float) -> None:
        """Begin anew with the weights as they are. No copy is made of the network, which may keep what torch does not copy."""
        self._decay = 1 - 1 / horizon
        for mine, theirs in zip((*self._averaged, *self._copied), (*self._sources, *self._exact), strict=True):
            mine.copy_(theirs)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after the step with this number, from 1; early steps count for more, or the first weights would stay."""
        decay = min(self._decay, step / (step + 9))
        torch._foreach_lerp_(self._averaged, self._sources, 1 - decay)
        for mine, theirs in zip(self._copied, self._exact, strict=True):
            mine.copy_(theirs)


def _tensors(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors of a network that can be averaged, and those that are counted."""
    tensors = list(network.state_dict().values())
    return [t for t in tensors if t.is_floating_point()], [t for t in tensors if not t.is_floating_point()]


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def _parameter_groups(network: nn.Module, options: TrainingSettings) -> list[dict[str, Any]]:
    rate = options.learning_rate
    if not options.fine_tunes:
        return [{"params": list(network.parameters()), "lr": rate, "highest_lr": rate}]
    heads = _parameters_of_heads(network)
    body = [parameter for parameter in network.parameters() if parameter not in heads]
    slow = rate * options.body_rate
    return [{"params": body, "lr": slow, "highest_lr": slow}, {"params": list(heads), "lr": rate, "highest_lr": rate}]


def _parameters_of_heads(network: nn.Module) -> dict[Tensor, None]:
    """The parameters of the layers that classify, in order."""
    return dict.fromkeys(parameter for name in head_layers(network) for parameter in network.get_submodule(name).parameters())
