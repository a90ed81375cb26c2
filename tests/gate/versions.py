"""Model versions with known evaluations in a store of their own."""

from pathlib import Path

from components.bundle import files
from components.bundle.evaluation import Evaluation
from components.registry import Registry
from components.registry.publication import publish_directory
from components.storage import open_store
from tests import tiny


def publish(registry: Registry, directory: Path, evaluation: Evaluation, day: int = 1) -> tuple[str, Path]:
    """Publish a tiny bundle with this evaluation; returns the version and the evaluation's folder."""
    model = tiny.write_bundle(directory, trained_at=f"2026-01-{day:02d}T03:04:05+00:00")
    evaluation.save(model)
    for name in (files.PREDICTIONS, files.REFERENCE, files.REPORT):
        (model / name).write_text("{}")
    return publish_directory(registry, model).version, model


def registry_in(directory: Path, name: str = "digits") -> Registry:
    """A registry over a directory."""
    return Registry(open_store(str(directory / "store")), name)
