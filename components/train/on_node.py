"""What each node of a TrainJob runs: `python3 -m components.train.on_node` reads its work and its number from the environment."""

import os
import sys
import tempfile
from pathlib import Path

from components.classifier.errors import exit_code_of
from components.train import prepare_environment


def train_here() -> None:
    """Copy the dataset, train together with the other nodes, and on the first one put the model in the store.

    Raises what `launch` and `train_together` raise, UsageError where the Trainer's variables are missing, and StoreError.
    """
    from pydantic import TypeAdapter

    from components.registry import kept_dataset
    from components.settings.ingest import IngestSettings
    from components.storage import open_store
    from components.train.distributed import Nodes, launch
    from components.train.nodes import WORK, NodeWork, put_result
    from components.train.training import TrainingResult, train_together

    nodes, work = Nodes.read(os.environ), NodeWork.model_validate_json(os.environ[WORK])
    with tempfile.TemporaryDirectory(prefix="penstock-node-") as folder:
        data, model = Path(folder) / "dataset", Path(folder) / "model"
        kept_dataset.fetch(work.dataset, data, IngestSettings())
        result = launch(work.settings.processes, train_together, data, model, work.settings, work.store, nodes=nodes)
        if result is not None:
            put_result(open_store(work.store), work.result, model, TypeAdapter(TrainingResult).dump_json(result))


if __name__ == "__main__":
    prepare_environment()
    sys.exit(exit_code_of(train_here))
