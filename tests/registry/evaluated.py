"""Versions that were really evaluated, on the same sealed pictures of scikit-learn's digits."""

import json
from pathlib import Path

from components.bundle import files
from components.bundle.dataset import Dataset
from components.bundle.training import Epoch, TrainingRecord
from components.evaluate.evaluation import evaluate
from components.registry import Registry
from components.registry.publication import publish_directory
from tests import tiny


def publish(registry: Registry, folder: Path, dataset: Dataset, samples: int, **options: object) -> str:
    """Make, evaluate and publish a model of `samples` digits; returns the version. It says to have been trained in three epochs."""
    tiny.write_bundle(folder, name=registry.name, samples=samples, dataset_digest=dataset.info.digest, **options)
    epochs = [
        Epoch(epoch=k, train_loss=1 / k, validation_loss=1.1 / k, validation_accuracy=1 - 0.2 / k, learning_rate=0.1, seconds=1.0)
        for k in (1, 2, 3)
    ]
    record = TrainingRecord(history=epochs, best_epoch=3, stop_reason="all epochs were run", versions={})
    (folder / files.TRAINING).write_text(json.dumps(record.model_dump(mode="json")))
    evaluate(dataset.path, folder, folder)
    return publish_directory(registry, folder, run=f"run-{samples}").version
