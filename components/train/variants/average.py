"""One network whose weights are the mean of several networks' (a "model soup", Wortsman et al., ICML 2022).

It is as fast as one of them. It is good where the networks lie in one valley of the loss, as fine-tunings from the same weights do;
the mean of networks that were trained from different random weights is worthless, which the evaluation shows and the gate holds.
Means of activations do not follow from means of weights: the statistics of batch normalisation are measured again.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from components.bundle.dataset import Split

BATCH = 256


def average_weights(networks: Sequence[nn.Module]) -> nn.Module:
    """Give the first network the mean of all networks' weights, and return it; counters stay those of the first."""
    states = [network.state_dict() for network in networks]
    mean = {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(value.dtype) if value.is_floating_point() else value
        for name, value in states[0].items()
    }
    networks[0].load_state_dict(mean)
    return networks[0]


def measure_batch_norm(network: nn.Module, normalise: nn.Module, training: Split) -> None:
    """Measure the statistics of batch normalisation over all training pictures, without dropout; they are averaged over batches."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    update_bn(_batches(normalise, training), network)
    network.eval()


def logits_of(network: nn.Module, normalise: nn.Module, split: Split) -> npt.NDArray[np.float32]:
    """What a network answers for all pictures of a split, float32 (N, K)."""
    with torch.inference_mode():
        return torch.cat([network(batch) for batch in _batches(normalise, split)]).numpy()


def _batches(normalise: nn.Module, split: Split) -> Iterator[Tensor]:
    """The split in batches of nearly equal size: statistics are averaged over batches, and a small last one would count as much."""
    for rows in np.array_split(np.arange(len(split)), -(-len(split) // BATCH)):
        yield normalise(torch.from_numpy(np.array(split.images[rows])).permute(0, 3, 1, 2))
