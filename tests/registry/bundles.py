"""Bundles to publish: a really trained one with an evaluation, and quick ones of any content."""

import json
from pathlib import Path

from components.bundle import files
from components.bundle.config import BundleConfig, InputConfig
from tests import tiny

EVALUATION = {
    "n": 397,
    "source": "digits",
    "accuracy": {"value": 0.9571788413098237, "low": 0.9324, "high": 0.9731},
    "balanced_accuracy": 0.957,
    "macro_f1": 0.9568,
    "log_loss": 0.1502,
    "calibration": {"ece_after": 0.0123},
    "per_class": [{"name": "a|b", "support": 40, "precision": None, "recall": 1.0, "f1": 0.5}],
    "largest_confusions": [{"label": "8", "predicted": "1", "count": 3, "share": 0.081}],
    "warnings": ["class <b>x</b> has 3 pictures"],
}


def evaluated(directory: Path, samples: int = 1200, **options: object) -> Path:
    """A bundle as train and evaluate leave it, in one directory."""
    tiny.write_bundle(directory, samples=samples, **options)
    (directory / files.EVALUATION).write_text(json.dumps(EVALUATION))
    (directory / files.REFERENCE).write_text("{}")
    (directory / files.REPORT).write_text("<p>report")
    (directory / files.PREDICTIONS).write_bytes(b"predictions")
    return directory


def quick(directory: Path, content: bytes, trained_at: str = "2026-01-02T03:04:05+00:00", files: int = 4) -> Path:
    """A directory that can be published, without a model in it."""
    directory.mkdir(parents=True, exist_ok=True)
    BundleConfig(
        name="digits", architecture="none", classes=["a", "b"], input=InputConfig(height=8, width=8, channels=1, mean=[0.0], std=[1.0]),
        temperature=1.0, trained_at=trained_at, dataset_digest="0" * 64, parameters={}, code_version="test",
    ).save(directory)  # fmt: skip
    for number in range(files):
        (directory / f"file{number}.bin").write_bytes(content * (number + 1))
    return directory
