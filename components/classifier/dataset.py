"""A dataset version on disk: what ingest writes, and training and evaluation read.

    dataset.json                digest, classes, shape, counts, checks, what was set aside
    SPLIT/images.npy            uint8 (N, H, W, C), memory-mapped, never pickled
    SPLIT/labels.npy            int64 (N,), indices into `classes`
    SPLIT/columns.parquet       optional: one row a picture; `file` is where it came from, other columns become slices

SPLIT is `train`, `validation` or `test`. The test split is sealed: only evaluation opens it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from components.classifier.errors import DataError
from components.classifier.images import ImageSpec, Pixels

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
SCHEMA_VERSION = 1
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """One split: `images` uint8 (N, H, W, C) and `labels` int64 (N,), both read-only views of the files."""

    images: Pixels
    labels: Labels
    columns_path: Path | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DatasetInfo:
    """What `dataset.json` holds."""

    source: str
    classes: list[str]
    shape: tuple[int, int, int]
    counts: dict[str, dict[str, int]]
    """Pictures per split and class name."""
    seed: int
    checks: list[dict[str, Any]] = field(default_factory=list)
    """One entry a check: name, passed, detail."""
    set_aside: list[dict[str, str]] = field(default_factory=list)
    """One entry a file that was passed over: file, reason."""
    digest: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def spec(self) -> ImageSpec:
        """The shape as an ImageSpec."""
        return ImageSpec(*self.shape)


@dataclass(frozen=True)
class Dataset:
    """A dataset version that was written by `write` and is complete."""

    path: Path
    info: DatasetInfo

    @classmethod
    def load(cls, path: str | Path) -> "Dataset":
        """Open the dataset in a directory.

        Raises DataError when it is missing, incomplete or of another schema version.
        """
        path = Path(path)
        try:
            raw = json.loads((path / "dataset.json").read_text("utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise DataError(f"no complete dataset in {path} ({error}); run ingest again") from error
        if raw.get("schema_version") != SCHEMA_VERSION:
            raise DataError(
                f"the dataset in {path} has schema version {raw.get('schema_version')}, this release reads {SCHEMA_VERSION}; run ingest again"
            )
        raw["shape"] = tuple(raw["shape"])
        return cls(path, DatasetInfo(**raw))

    def split(self, name: SplitName) -> Split:
        """Open one split, memory-mapped.

        Raises DataError when its files are missing or do not belong together.
        """
        folder = self.path / name
        try:
            images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(folder / "labels.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"split {name!r} of {self.path} cannot be read ({error}); run ingest again") from error
        if images.shape != (len(labels), *self.info.shape) or images.dtype != np.uint8:
            raise DataError(f"split {name!r} of {self.path} holds {images.dtype} {images.shape} for {len(labels)} labels; run ingest again")
        columns = folder / "columns.parquet"
        return Split(images, labels, columns if columns.exists() else None)


def digest(classes: list[str], shape: tuple[int, int, int], splits: Mapping[SplitName, tuple[Pixels, Labels]]) -> str:
    """Hash what a dataset means: the classes in order, the shape, and each split's pixels and labels in order.

    Returns 64 hexadecimal digits (SHA-256).
    """
    sha = hashlib.sha256(json.dumps([SCHEMA_VERSION, classes, list(shape)]).encode())
    for name in SPLITS:
        images, labels = splits[name]
        sha.update(f"{name} {len(labels)}".encode())
        for start in range(0, len(labels), 4096):
            sha.update(np.ascontiguousarray(images[start : start + 4096]).data)
        sha.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return sha.hexdigest()


def write(path: str | Path, info: DatasetInfo, splits: Mapping[SplitName, tuple[Pixels, Labels]]) -> DatasetInfo:
    """Write a dataset; `dataset.json` comes last, so that a half-written one cannot be loaded.

    Returns the info with its digest filled in.
    """
    path = Path(path)
    for name in SPLITS:
        images, labels = splits[name]
        (path / name).mkdir(parents=True, exist_ok=True)
        np.save(path / name / "images.npy", np.asarray(images, dtype=np.uint8))
        np.save(path / name / "labels.npy", np.asarray(labels, dtype=np.int64))
    complete = DatasetInfo(**{**asdict(info), "digest": digest(info.classes, info.shape, splits)})
    (path / "dataset.json").write_text(json.dumps(asdict(complete), indent=1, allow_nan=False) + "\n", "utf-8")
    return complete
