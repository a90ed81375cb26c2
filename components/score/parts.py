"""Puts the rows of finished pieces together to the files of the output, each of about PART_BYTES, in directories by a column on request.

A part has the same rows and, on a CPU, the same bytes for every number of shards. Whichever shard ends its last piece assembles it,
so that merging moves no rows.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from components.bundle.reference import Reference
from components.score.output import Output, StoredPart
from components.score.plan import PASSED_OVER as PASSED_SCHEMA
from components.score.plan import Part, Piece, Plan
from components.score.rows import PASSED, schema
from components.score.tally import Tally

PART_BYTES = 128 * 2**20
GROUP_ROWS = 65_536
GROUP_VALUES = 8 * 2**20
"""A row group holds so many rows, fewer where every row has many probabilities: always as many for the same classes."""
ROW_BYTES = 24
"""What a row without probabilities takes, about."""
ROWS_FILE, PASSED_FILE = "rows.parquet", "passed_over.parquet"
"""A part on this machine."""


def group_rows(plan: Plan) -> int:
    """Return how many rows a row group of the output holds."""
    return min(GROUP_ROWS, max(1, GROUP_VALUES // len(plan.classes))) if plan.settings.probabilities else GROUP_ROWS


def parts_of(plan: Plan) -> list[Part]:
    """Return the parts of the output: whole row groups that make about PART_BYTES, or all rows where one file is asked for."""
    row_bytes = ROW_BYTES + (4 * len(plan.classes) if plan.settings.probabilities else 0)
    group = group_rows(plan)
    return plan.parts(None if plan.settings.layout == "file" else max(1, PART_BYTES // row_bytes // group) * group)


def assemble_parts(plan: Plan, output: Output, reference: Reference | None, pieces: Iterable[Piece]) -> None:
    """Assemble the parts that hold rows of these pieces and whose pieces are all complete; those that are there already stay."""
    mine, complete = {piece.number for piece in pieces}, output.complete()
    for part in parts_of(plan):
        if not mine.isdisjoint(piece.number for piece, _, _ in part.spans):
            assembled(plan, output, reference, part, complete)


def assembled(plan: Plan, output: Output, reference: Reference | None, part: Part, complete: set[str]) -> StoredPart | None:
    """Return a part of the output, put together now where it is not there yet; None when one of its pieces is not complete.

    `complete`: the ids of all pieces that are.
    """
    if (found := output.part(part)) or any(piece.id not in complete for piece, _, _ in part.spans):
        return found
    with tempfile.TemporaryDirectory(prefix="penstock-part-") as scratch:
        folder, tally = Path(scratch), Tally(plan.classes, reference)
        if gather(plan, output, part, folder, tally):
            return None
        rows, passed = folder / "rows", folder / PASSED_FILE
        if plan.settings.partition_by:
            _partition(folder / ROWS_FILE, rows, plan)
        else:
            rows.mkdir()
            (folder / ROWS_FILE).rename(rows / "part-0.parquet")
        return output.put_part(part, rows, passed, tally.to_json())


def gather(plan: Plan, output: Output, part: Part, folder: Path, tally: Tally) -> list[Piece]:
    """Write a part's rows to ROWS_FILE in a folder and what was passed over to PASSED_FILE; returns the pieces that are not complete.

    Of a piece of which a part has not all rows, what was passed over and how its pictures look counts where its first row is.
    """
    missing: list[Piece] = []
    columns, path = schema(plan.classes, plan.settings.probabilities, plan.familiarity), folder / "piece.parquet"
    with RowsWriter(folder / ROWS_FILE, columns, group_rows(plan)) as rows, RowsWriter(folder / PASSED_FILE, PASSED_SCHEMA) as passed_over:
        for piece, start, stop in part.spans:
            if not output.get_piece(piece, path):
                missing.append(piece)
                continue
            first = 0
            for batch in row_groups(path):
                is_row = pc.is_null(batch[PASSED])
                found = batch.filter(is_row).select(columns.names).cast(columns)
                wanted = found.slice(max(0, start - first), None if stop is None else max(0, stop - max(start, first)))
                first += len(found)
                rows.write(wanted)
                tally.add(wanted)
                passed = batch.filter(pc.invert(is_row))
                if start == 0 and len(passed):
                    notes = pa.table([passed["input"], passed[PASSED]], PASSED_SCHEMA)
                    passed_over.write(notes)
                    tally.add_passed_over(notes)
            if start == 0:
                tally.appearance.merge(pq.read_metadata(path).metadata[b"looks"].decode())
            path.unlink()
    return missing


def row_groups(path: Path) -> Iterator[pa.Table]:
    """Read a file one row group after another."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


class RowsWriter:
    """Writes rows to a file; its bytes do not depend on how the rows arrive."""

    def __init__(self, path: Path, columns: pa.Schema, group: int = GROUP_ROWS) -> None:
        """`group`: rows of a row group."""
        self._columns, self._group = columns, group
        self._waiting: list[pa.Table] = []
        self._writer = pq.ParquetWriter(path, columns, compression="zstd")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush(last=True)
        self._writer.close()

    def write(self, rows: pa.Table) -> None:
        """Append rows."""
        self._waiting.append(rows)
        if sum(len(table) for table in self._waiting) >= self._group:
            self._flush()

    def _flush(self, last: bool = False) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).cast(self._columns).combine_chunks()
        start = 0
        while len(table) - start >= self._group or (last and start < len(table)):
            self._writer.write_table(table.slice(start, self._group).combine_chunks(), row_group_size=self._group)
            start += self._group
        self._waiting = [table.slice(start)] if start < len(table) else []


def _partition(rows: Path, target: Path, plan: Plan) -> None:
    """Write a file's rows into directories named `COLUMN=VALUE`, as Hive does, in each in the order of the rows."""
    with pq.ParquetFile(rows) as file:
        ds.write_dataset(
            file.iter_batches(),
            target,
            schema=file.schema_arrow,
            format="parquet",
            file_options=ds.ParquetFileFormat().make_write_options(compression="zstd"),
            partitioning=ds.partitioning(pa.schema([file.schema_arrow.field(plan.settings.partition_by)]), flavor="hive"),
            basename_template="part-{i}.parquet",
            use_threads=False,
            preserve_order=True,  # else batches change places now and then, without threads too
            max_partitions=100_000,
            max_rows_per_group=group_rows(plan),
            existing_data_behavior="error",
        )
