"""Batch normalisation by the statistics of the whole batch, of which each of several processes has a part.

The layers stay as they are, and so do the names of their weights: only what `torch.nn.functional.batch_norm` computes is exchanged.
Replacing layers, as torch's `convert_sync_batchnorm` does, would take away what a class of its own adds, such as the activation in timm's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.modules._functions import SyncBatchNorm
from torch.overrides import TorchFunctionMode

from components.settings.training import TrainingSettings

MIN_SHARE = 32
"""Pictures of a batch from which on a process' own statistics are as good as those of the whole batch."""


def is_synchronised(options: TrainingSettings, processes: int) -> bool:
    """Say whether processes that train together share the statistics of batch normalisation."""
    small = options.batch_size < MIN_SHARE * processes
    return processes > 1 and {"on": True, "off": False, "auto": small}[options.sync_batch_norm]


class WholeBatch(TorchFunctionMode):
    """While it is entered, in every process, layers of batch normalisation in training share their statistics."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, or what stands for it."""
        return (_batch_norm if function is F.batch_norm else function)(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    on_gpu = x.device.type == "cuda"
    function, wide = (SyncBatchNorm, x) if on_gpu else (_SyncBatchNormOnCPU, x.float())  # torch's needs CUDA, and takes 16 bits
    out: Tensor = function.apply(wide, weight, bias, running_mean, running_var, eps, momentum, dist.group.WORLD, dist.get_world_size())
    return out.to(x.dtype)


class _SyncBatchNormOnCPU(torch.autograd.Function):
    """What torch's SyncBatchNorm computes; x is (N, C) or (N, C, …), and N may differ between processes."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        eps: float,
        momentum: float,
        group: Any,
        _: int,
    ) -> Tensor:
        own_var, own_mean = (it.double() for it in torch.var_mean(x, [0, *range(2, x.ndim)], correction=0))
        moments = torch.stack([torch.ones_like(own_mean), own_mean, own_var + own_mean**2]) * (x.numel() // x.shape[1])
        dist.all_reduce(moments, group=group)
        count, total, squares = moments
        mean = total / count
        var = (squares / count - mean**2).clamp_min(0)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * count / (count - 1)).to(running_var.dtype), momentum)
        ctx.save_for_backward(x, weight, mean.to(x.dtype), var.to(x.dtype))
        ctx.count, ctx.eps, ctx.group = count.to(x.dtype), eps, group
        return F.batch_norm(x, mean.to(x.dtype), var.to(x.dtype), weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        scale = torch.rsqrt(var + ctx.eps)
        factor = torch.ones_like(mean) if weight is None else weight
        own, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, factor, mean, var, None, None, False, ctx.eps, [True, True, True]
        )  # as if mean and variance were constants
        along_weight, along_bias = shared = torch.stack([by_weight, by_bias])
        dist.all_reduce(shared, group=ctx.group)
        slope = -factor * scale**2 * along_weight / ctx.count
        constant = -factor * scale * along_bias / ctx.count - slope * mean
        by_x = own.addcmul_(x, _per_channel(slope, x)).add_(_per_channel(constant, x))
        given = weight is not None
        return by_x, by_weight if given else None, by_bias if given else None, *[None] * 6


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.ndim - 2))
