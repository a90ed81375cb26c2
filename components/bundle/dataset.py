"""A dataset version on disk: what ingest writes, and training and evaluation read.

    dataset.json                digest, classes, shape, counts, checks, what was set aside
    SPLIT/images.npy            uint8 (N, H, W, C), memory-mapped, never pickled
    SPLIT/labels.npy            int64 (N,), indices into `classes`
    report.html                 the checks, and pictures that look alike, to be looked at
    SPLIT/columns.parquet       optional: one row per picture; `file` is where it came from, other columns become slices

SPLIT is `train`, `validation` or `test`. The test split is sealed: only evaluation opens it.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from components.bundle.files import MANIFEST
from components.classifier.errors import DataError
from components.classifier.images import ImageSpec, Pixels
from components.storage.files import write_file
from components.storage.store import Store

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
SCHEMA_VERSION = 1
REPORT = "report.html"
Labels = npt.NDArray[np.int64]
CHUNK_BYTES = 32 * 2**20
"""Bytes of pictures that are in memory at a time while they are written."""


class Rows(Protocol):
    """Pictures that can be read in slices: an array, a memory-mapped file, or a selection of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""

    def __getitem__(self, rows: slice, /) -> Pixels:
        """Some rows, uint8 (n, H, W, C)."""


@dataclass(frozen=True)
class Split:
    """One split: `images` uint8 (N, H, W, C) and `labels` int64 (N,), both read-only views of the files."""

    images: Pixels
    labels: Labels
    columns_path: Path | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def weights(self, column: str) -> npt.NDArray[np.float32] | None:
        """How much each picture counts in the loss, float32 (N,), 1 without a value; None where `column` is "".

        Raises DataError where the column is missing, or no picture counts.
        """
        if not column:
            return None
        import pyarrow.parquet as pq

        known = self.columns_path is not None and column in pq.read_schema(self.columns_path).names
        values = pq.read_table(self.columns_path, columns=[column])[column].to_pylist() if known else []
        weights = _as_weights(values)
        if len(weights) != len(self) or not weights.sum() > 0:
            raise DataError(f"column {column} of {self.columns_path} does not hold the weights of {len(self)} pictures; run ingest again")
        return weights


def _as_weights(values: Sequence[Any]) -> npt.NDArray[np.float32]:
    return np.array([float(value or 1) for value in values], np.float32)


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
    """One entry per check: name, passed, detail."""
    set_aside: list[dict[str, str]] = field(default_factory=list)
    """One entry per file that was left out: file, reason."""
    group: str = ""
    """The column whose values each lie in one split; "" where the dataset has no groups."""
    weight: str = ""
    """The column whose values weigh the training pictures in the loss; "" where all count alike."""
    levels: int = 16
    """In files of 16 bits per sample the brightest value was 2**levels - 1."""
    digest: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def spec(self) -> ImageSpec:
        """What a model of these pictures takes."""
        return ImageSpec(*self.shape, levels=self.levels)


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
        except (OSError, ValueError) as error:
            raise DataError(f"no complete dataset in {path} ({error}); run ingest again") from error
        found = raw.get("schema_version") if isinstance(raw, dict) else None
        if found != SCHEMA_VERSION:
            raise DataError(f"the dataset in {path} has schema version {found}, this release reads {SCHEMA_VERSION}; run ingest again")
        try:
            return cls(path, DatasetInfo(**{**raw, "shape": tuple(raw["shape"])}))
        except (TypeError, KeyError) as error:
            raise DataError(f"dataset.json in {path} is not of this release's form ({error}); run ingest again") from error

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


def kept_folder(digest: str) -> str:
    """The folder in a store that holds the dataset version of a digest, where it was kept."""
    return f"datasets/{digest}"


def kept_address(store: Store, digest: str) -> str:
    """The address that a dataset version has in a store where it was kept, which is a source of runs."""
    return f"{store.url.rstrip('/')}/{kept_folder(digest)}"


def is_kept_in(store: Store, digest: str) -> bool:
    """Say whether a store holds the whole dataset version of a digest; raises StoreError."""
    return store.exists(f"{kept_folder(digest)}/{MANIFEST}")


def digest(
    classes: list[str],
    shape: tuple[int, int, int],
    splits: Mapping[SplitName, tuple[Pixels, Labels]],
    levels: int = 16,
    weights: npt.NDArray[np.float32] | None = None,
) -> str:
    """Hash what a dataset means: the classes in order, the shape, and each split's pixels and labels in order.

    `levels` counts where it is not 16, `weights` (N,) of the training pictures where there are any.

    Returns 64 hexadecimal digits (SHA-256).
    """
    sha = _start_digest(classes, shape, levels)
    for name in SPLITS:
        images, labels = splits[name]
        sha.update(f"{name} {len(labels)}".encode())
        for chunk in _chunks(images):
            sha.update(chunk.data)
        sha.update(np.ascontiguousarray(labels, dtype="<i8").data)
    if weights is not None:
        sha.update(np.ascontiguousarray(weights, dtype="<f4").data)
    return sha.hexdigest()


def write(
    path: str | Path,
    info: DatasetInfo,
    splits: Mapping[SplitName, tuple[Rows, Labels]],
    columns: Mapping[SplitName, Mapping[str, Sequence[Any]]] | None = None,
    report: Callable[[DatasetInfo], str] | None = None,
) -> DatasetInfo:
    """Write a dataset; `dataset.json` comes last, so that a half-written one cannot be loaded.

    Pictures are copied and hashed in pieces, so that memory stays small whatever their number. `columns` gives, per split
    and column name, one value per picture, and becomes columns.parquet; what `report` makes becomes report.html. Returns the info
    with its digest filled in.
    """
    path = Path(path)
    (path / "dataset.json").unlink(missing_ok=True)
    sha = _start_digest(info.classes, info.shape, info.levels)
    for name in SPLITS:
        images, labels = splits[name]
        (path / name).mkdir(parents=True, exist_ok=True)
        sha.update(f"{name} {len(labels)}".encode())
        _write_images(path / name / "images.npy", images, sha)
        np.save(path / name / "labels.npy", np.asarray(labels, dtype=np.int64))
        sha.update(np.ascontiguousarray(labels, dtype="<i8").data)
        _write_columns(path / name / "columns.parquet", (columns or {}).get(name))
    if info.weight:
        sha.update(_as_weights((columns or {})["train"][info.weight]).astype("<f4").data)
    complete = replace(info, digest=sha.hexdigest())
    if report is not None:
        write_file(path / REPORT, [report(complete).encode()])
    write_file(path / "dataset.json", [(json.dumps(asdict(complete), indent=1, allow_nan=False) + "\n").encode()])
    return complete


def _start_digest(classes: list[str], shape: tuple[int, int, int], levels: int) -> "hashlib._Hash":
    return hashlib.sha256(json.dumps([SCHEMA_VERSION, classes, list(shape), *([levels] if levels != 16 else [])]).encode())


def _chunks(images: Rows) -> Iterator[Pixels]:
    """All pictures in contiguous pieces of some 32 MiB, or one picture each."""
    step = max(1, CHUNK_BYTES // max(1, prod(images.shape[1:])))
    for start in range(0, images.shape[0], step):
        yield np.ascontiguousarray(images[start : start + step], dtype=np.uint8)


def _write_images(path: Path, images: Rows, sha: "hashlib._Hash") -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": tuple(images.shape)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, header)
        for chunk in _chunks(images):
            file.write(chunk.data)
            sha.update(chunk.data)


def _write_columns(path: Path, columns: Mapping[str, Sequence[Any]] | None) -> None:
    if columns is None:
        path.unlink(missing_ok=True)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({name: _column(values) for name, values in columns.items()}), path)


def _column(values: Sequence[Any]) -> Any:
    """Values as pyarrow's array; texts by its builder: pa.array imports pandas, where it is installed, to see whether they are its own."""
    import pyarrow as pa

    kinds = set(map(type, values))
    if str not in kinds or not kinds <= {str, type(None)}:
        return pa.array(list(values))
    builder = pa.lib.StringBuilder()
    builder.append_values(values)
    return builder.finish()
