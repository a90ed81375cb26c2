"""Writes the rows of an output as Parquet: one file, or a dataset of parts of about PART_BYTES, in directories by a column on request."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from components.settings.scoring import ScoringSettings

PREDICTIONS, DATASET = "predictions.parquet", "predictions"
"""The name of one file, and of the folder that holds nothing but the parts of a dataset."""
PART_BYTES = 128 * 2**20
GROUP_ROWS = 65_536
GROUP_VALUES = 8 * 2**20
"""A row group holds so many rows, fewer where every row has many probabilities: always as many for the same classes."""


def group_rows(classes: int, probabilities: bool) -> int:
    """Return how many rows a row group of the output holds."""
    return min(GROUP_ROWS, max(1, GROUP_VALUES // classes)) if probabilities else GROUP_ROWS


class PartsWriter:
    """Writes rows into `part-00000.parquet` and so on in a folder; the bytes do not depend on how the rows arrive."""

    def __init__(self, folder: Path, columns: pa.Schema, group: int, part_bytes: int | None) -> None:
        """`group`: rows of a row group. `part_bytes`: where a part ends, after the row group that reaches it; None for one part."""
        folder.mkdir(parents=True)
        self._folder, self._columns, self._group, self._part_bytes = folder, columns, group, part_bytes
        self._waiting: list[pa.Table] = []
        self.parts: list[Path] = []
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush(last=True)
        self._writer.close()
        self._file.close()

    def write(self, rows: pa.Table) -> None:
        """Append rows."""
        self._waiting.append(rows)
        if sum(len(table) for table in self._waiting) >= self._group:
            self._flush()

    def _begin(self) -> None:
        self.parts.append(self._folder / f"part-{len(self.parts):05d}.parquet")
        self._file = self.parts[-1].open("wb")
        self._writer = pq.ParquetWriter(self._file, self._columns, compression="zstd")

    def _flush(self, last: bool = False) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).cast(self._columns).combine_chunks()
        start = 0
        while len(table) - start >= self._group or (last and start < len(table)):
            if self._part_bytes is not None and self._file.tell() >= self._part_bytes:
                self._writer.close()
                self._file.close()
                self._begin()
            self._writer.write_table(table.slice(start, self._group).combine_chunks(), row_group_size=self._group)
            start += self._group
        self._waiting = [table.slice(start)] if start < len(table) else []


def arranged(folder: Path, parts: list[Path], columns: pa.Schema, group: int, settings: ScoringSettings) -> list[str]:
    """Give the written parts their place below `folder` as the settings ask; returns the names of the files there, in order."""
    if settings.partition_by:
        _partition(folder / DATASET, parts, columns, group, settings.partition_by)
    elif settings.layout == "dataset" or len(parts) > 1:
        (folder / DATASET).mkdir()
        for part in parts:
            part.rename(folder / DATASET / part.name)
    else:
        parts[0].rename(folder / PREDICTIONS)
        return [PREDICTIONS]
    return sorted(path.relative_to(folder).as_posix() for path in (folder / DATASET).rglob("*.parquet"))


def _partition(target: Path, parts: list[Path], columns: pa.Schema, group: int, column: str) -> None:
    """Write the rows into directories named `COLUMN=VALUE`, as Hive does, in each in the order of the rows."""
    ds.write_dataset(
        batches(parts),
        target,
        schema=columns,
        format="parquet",
        file_options=ds.ParquetFileFormat().make_write_options(compression="zstd"),
        partitioning=ds.partitioning(pa.schema([columns.field(column)]), flavor="hive"),
        basename_template="part-{i}.parquet",
        use_threads=False,
        preserve_order=True,  # else batches change places now and then, without threads too
        max_partitions=100_000,
        max_rows_per_group=group,
        existing_data_behavior="error",
    )


def batches(parts: list[Path]) -> Iterator[pa.RecordBatch]:
    """Read the rows of files in order, batch by batch."""
    for part in parts:
        with pq.ParquetFile(part) as file:
            yield from file.iter_batches()
