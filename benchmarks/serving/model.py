"""The model that every peer serves: small_cnn on scikit-learn's digits at 28x28, trained in seconds, as a published version."""

import tempfile
from pathlib import Path

from components.bundle import files
from components.bundle.dataset import Dataset
from components.bundle.golden import save_golden
from components.bundle.model import Classifier
from components.registry import Registry
from components.registry.publication import publish_directory
from components.storage import open_store

NAME = "digits"
_GOLDEN = 16


def model_version(cache: Path) -> Path:
    """Return the folder of the benchmark's model version, which is trained at the first call."""
    registry = Registry(open_store(str(cache / "store")), NAME)
    versions = sorted(registry.newest())
    if not versions:
        versions = [_train_and_publish(registry)]
    target = cache / "model" / versions[-1]
    return target if (target / files.MANIFEST).exists() else registry.fetch(versions[-1], target)


def _train_and_publish(registry: Registry) -> str:
    from components.ingest.ingest import ingest
    from components.settings.ingest import IngestSettings
    from components.settings.training import TrainingSettings
    from components.train.training import train

    with tempfile.TemporaryDirectory() as folder:
        dataset, model = Path(folder, "dataset"), Path(folder, "model")
        ingest("digits", dataset, IngestSettings(image_size=(28, 28)))
        train(dataset, model, TrainingSettings(name=NAME, epochs=2, device="cpu"))
        images = Dataset.load(dataset).split("test").images[:_GOLDEN]
        save_golden(model, images, *Classifier(model, threads=1).answer(images))
        return publish_directory(registry, model).version
