"""A training in some processes on the CPU, as a program that tests start with PROCESSES, DATASET, MODEL, OPTIONS, COUNTS and STORE."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.classifier.errors import DataError
from components.settings.training import TrainingSettings
from components.train.batch_norm import WholeBatch
from components.train.batches import Batches
from components.train.distributed import Group, launch
from components.train.training import TrainingResult, train_together


@contextmanager
def without_export() -> Iterator[None]:
    """Let trainings end with weights and config.json: an export takes ten times as long as they do, and test_nodes has one of several."""
    with patch.multiple("components.train.training", export_onnx=lambda *_: None, check_export=lambda *_: 0.0):
        yield


def counted(data: str, model: str, options: TrainingSettings, counts: str, store: str = "") -> TrainingResult | None:
    """Train without an export; the folder `counts` gets a file with the number of pictures that this process took.

    `counts` as `fail` lets the second process fail.
    """
    taken, take = [0], Batches._take

    def counting(self: Batches, index: np.ndarray) -> object:
        taken[0] += len(index)
        if counts == "fail" and taken[0] > 500 and os.environ["RANK"] == "1":
            raise DataError("the second process cannot go on; give it a better one")
        return take(self, index)

    Batches._take = counting  # type: ignore[assignment]
    with without_export():
        result = train_together(data, model, options, store)
    if counts:
        (Path(counts) / ("first" if result else "second")).write_text(str(taken[0]))
    return result


class Activated(nn.BatchNorm2d):
    """A layer that calls torch's function itself, as timm's do, which take seconds to import."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, True, 0.2, self.eps))


def layers() -> list[tuple[nn.Module, Tensor]]:
    """Layers of batch normalisation, each with a batch of 7 for it."""
    torch.manual_seed(0)
    found: list[tuple[nn.Module, Tensor]] = [
        (nn.BatchNorm1d(3), 2 + torch.randn(7, 3)),
        (nn.BatchNorm1d(3, affine=False, momentum=0.3), torch.randn(7, 3, 5)),
        (nn.BatchNorm2d(3, eps=0.01), (3 * torch.randn(7, 3, 4, 5)).contiguous(memory_format=torch.channels_last)),
        (Activated(3), torch.randn(7, 3, 2, 2)),
        (nn.BatchNorm2d(3), torch.randn(7, 3, 4, 5).bfloat16()),
    ]
    for layer, _ in found:
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
    return found


def through(layer: nn.Module, batch: Tensor, group: Group) -> dict[str, Tensor]:
    """What a layer makes of this process' part of a batch, the gradients, and the layer's state."""
    weights = group.part(torch.linspace(-1, 1, batch.numel()).view_as(batch))
    part = group.part(batch).detach().requires_grad_()
    with WholeBatch() if group.size > 1 else nullcontext():
        out = layer(part)
    (weights * out.sin()).sum().backward()
    assert part.grad is not None
    made = {"out": out.detach(), "gradient": part.grad, **layer.state_dict()}
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None
        made[f"gradient of {name}"] = group.mean(parameter.grad) * group.size
    return made


def normalised_together() -> list[dict[str, Tensor]]:
    """What two processes make of `layers`."""
    group, _ = Group.join(torch.device("cpu"))
    return [through(layer, batch, group) for layer, batch in layers()]


if __name__ == "__main__":
    from tests.train import together  # pickled by this name, not as __main__

    processes, data, model, options, counts, store = sys.argv[1:7]
    try:
        done = launch(int(processes), together.counted, data, model, TrainingSettings(**json.loads(options)), counts, store)
    except KeyboardInterrupt:
        sys.exit(130)
    assert done is not None
