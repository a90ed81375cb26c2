"""A training in some processes on the CPU, as a program that tests start with PROCESSES, DATASET, MODEL, OPTIONS, COUNTS and STORE."""

import json
import math
import os
import sys
from pathlib import Path

import numpy as np
from torch import nn

from components.classifier.errors import DataError, PenstockError
from components.classifier.images import ImageSpec
from components.classifier.network import architecture
from components.settings.training import TrainingSettings
from components.train.batches import Batches
from components.train.distributed import launch
from components.train.training import TrainingResult, train_together


@architecture("two_layers")
def two_layers(spec: ImageSpec, classes: int) -> nn.Module:
    """A network without batch normalisation, whose statistics are those of each process' own pictures."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(spec.shape), 32), nn.ReLU(), nn.Linear(32, classes))


def counted(data: str, model: str, options: TrainingSettings, counts: str, store: str = "") -> TrainingResult | None:
    """Train, and leave in the folder `counts` a file with the number of pictures that this process took; `fail`: the second one fails."""
    taken, take = [0], Batches._take

    def counting(self: Batches, index: np.ndarray) -> object:
        taken[0] += len(index)
        if counts == "fail" and taken[0] > 500 and os.environ["RANK"] == "1":
            raise DataError("the second process cannot go on; give it a better one")
        return take(self, index)

    Batches._take = counting  # type: ignore[assignment]
    result = train_together(data, model, options, store)
    if counts:
        (Path(counts) / ("first" if result else "second")).write_text(str(taken[0]))
    return result


if __name__ == "__main__":
    from tests.train import together  # pickled by this name, not as __main__

    processes, data, model, options, counts, store = sys.argv[1:7]
    try:
        done = launch(int(processes), together.counted, data, model, TrainingSettings(**json.loads(options)), counts, store)
    except KeyboardInterrupt:
        sys.exit(130)
    except PenstockError as error:
        print(f"{type(error).__name__}: {error}")
        sys.exit(error.exit_code)
    assert done is not None
    print("accuracy", done.validation_accuracy)
