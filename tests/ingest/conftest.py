"""Runs ingest as a step does, and keeps what it said."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.bundle.dataset import SPLITS, Dataset, DatasetInfo, SplitName
from components.ingest.ingest import ingest
from components.settings.ingest import IngestSettings


@dataclass
class Ingested:
    """A dataset that was written, and the lines that were said on the way."""

    dataset: Dataset
    info: DatasetInfo
    lines: list[str]

    @property
    def said(self) -> str:
        """All lines as one text."""
        return "\n".join(self.lines)

    def total(self, split: SplitName) -> int:
        """How many pictures a split has."""
        return len(self.dataset.split(split))

    def counts(self) -> dict[str, int]:
        """Pictures per class over all splits."""
        return {name: sum(self.info.counts[split][name] for split in SPLITS) for name in self.info.classes}

    def files(self, split: SplitName | None = None) -> dict[str, tuple[str, np.ndarray]]:
        """Per origin file its class and pixels."""
        found = {}
        for name in [split] if split else SPLITS:
            part = self.dataset.split(name)
            origins = pq.read_table(part.columns_path)["file"].to_pylist()
            found |= {o: (self.info.classes[k], image) for o, k, image in zip(origins, part.labels, part.images, strict=True)}
        return found

    def check(self, name: str) -> dict[str, object]:
        """One entry of the checks."""
        return next(check for check in self.info.checks if check["name"] == name)


Run = Callable[..., Ingested]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """run(source, image_size=(8, 8), …) -> Ingested."""
    numbers = iter(range(100))

    def ingested(source: str | Path, **options: object) -> Ingested:
        lines: list[str] = []
        path = tmp_path / f"dataset{next(numbers)}"
        info = ingest(str(source), path, IngestSettings(**options), lines.append)  # type: ignore[arg-type]
        return Ingested(Dataset.load(path), info, lines)

    return ingested
