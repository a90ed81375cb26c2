"""The rows of the output: their columns, how those of a piece are written, and how the rows of finished pieces make the output's files.

A file, called a part, has about PART_BYTES, the same rows and, on a CPU, the same bytes for every number of shards. Whichever shard
ends its last piece assembles it, so that merging moves no rows.

| column | type | what it is |
|---|---|---|
| input | string | the file, as it is called below the input; `ARCHIVE/MEMBER` in archives |
| index | int64 | the picture's number within that file, from 0 |
| label | string | the class with the highest probability; null for a dead letter |
| confidence | float | that class' calibrated probability; null for a dead letter |
| needs_review | bool | confidence below the threshold, or unfamiliar; null for a dead letter |
| model_version | string | the version that answered |
| error | string | why a record could not be scored; null for all others |
| familiarity | float | if the version says it: 0 to 1, how much the picture looks like those of training |
| unfamiliar | bool | if the version says it: familiarity below its threshold |
| probabilities | list of float | if asked for: one per class, in the order of the metadata `penstock.classes` |
"""

import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from components.bundle.model import Probabilities
from components.bundle.reference import Reference
from components.classifier.images import Pixels
from components.readers.records import PassedOver
from components.score.output import Output, StoredPart
from components.score.plan import PASSED_OVER as PASSED_SCHEMA
from components.score.plan import Part, Piece, Plan
from components.score.tally import Appearance, Tally

PASSED = "passed_over"
"""An extra column of pieces: the reason why something is not a record at all; such rows do not go into the output."""
PART_BYTES = 128 * 2**20
GROUP_ROWS = 65_536
GROUP_VALUES = 8 * 2**20
"""Rows of a row group, fewer where every row has many probabilities: always as many for the same classes."""
ROW_BYTES = 24
"""What a row without probabilities takes, about."""
ROWS_FILE, PASSED_FILE = "rows.parquet", "passed_over.parquet"
"""A part on this machine."""


@dataclass
class Scored:
    """A batch of rows in order; `probabilities` (n, K) and `pixels` have one entry for each row whose error is None."""

    inputs: list[str]
    indices: list[int]
    errors: list[str | None]
    passed_over: list[PassedOver]
    pixels: Pixels
    probabilities: Probabilities
    familiarity: npt.NDArray[np.float32] | None = None
    unfamiliar: npt.NDArray[np.bool_] | None = None
    """Both (n,), as `probabilities`."""


def schema(classes: list[str], probabilities: bool, familiarity: bool) -> pa.Schema:
    """Return the output's columns, with the probabilities where asked for, and what a version says about familiarity where it does."""
    fields = [
        pa.field("input", pa.string(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("confidence", pa.float32()),
        pa.field("needs_review", pa.bool_()),
        pa.field("model_version", pa.string(), nullable=False),
        pa.field("error", pa.string()),
    ]
    if familiarity:
        fields += [pa.field("familiarity", pa.float32()), pa.field("unfamiliar", pa.bool_())]
    if probabilities:
        fields.append(pa.field("probabilities", pa.list_(pa.float32())))
    return pa.schema(fields, metadata={"penstock.classes": json.dumps(classes, ensure_ascii=False)})


class PieceFile:
    """Writes the rows of one piece to a local file, batch by batch, and at the end how its pictures look."""

    def __init__(self, path: Path, plan: Plan, reference: Reference | None) -> None:
        self._plan, self._classes = plan, np.array(plan.classes, dtype=object)
        self._schema = schema(plan.classes, plan.settings.probabilities, plan.familiarity).append(pa.field(PASSED, pa.string()))
        self._writer = pq.ParquetWriter(path, self._schema)
        self._buffer: list[pa.RecordBatch] = []
        self.appearance, self.rows = Appearance(reference), 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.add_key_value_metadata({"rows": str(self.rows), "looks": self.appearance.to_json()})
        self._writer.close()

    def add(self, scored: Scored) -> None:
        """Append a batch of rows and what was passed over with it; the caller, who has its pictures, counts them in `appearance`."""
        self.rows += len(scored.inputs)
        self._buffer += [self._rows(scored)] + ([self._passed(scored)] if scored.passed_over else [])
        if sum(len(batch) for batch in self._buffer) >= 16_384:
            self._flush()

    def _flush(self) -> None:
        if self._buffer:
            self._writer.write_table(pa.Table.from_batches(self._buffer, self._schema))
            self._buffer = []

    def _rows(self, scored: Scored) -> pa.RecordBatch:
        count = len(scored.inputs)
        finite = np.isfinite(scored.probabilities).all(axis=1)
        errors = np.array(scored.errors, dtype=object)
        scorable = np.flatnonzero([error is None for error in scored.errors])
        errors[scorable[~finite]] = "the model's answer is not a number"
        good = scorable[finite]
        answers = scored.probabilities[finite]
        label, confidence, needs = np.full(count, None, object), np.zeros(count, np.float32), np.zeros(count, bool)
        familiarity, strange = np.zeros(count, np.float32), np.zeros(count, bool)
        dead = np.ones(count, bool)
        dead[good] = False
        if len(good):
            label[good] = self._classes[answers.argmax(axis=1)]
            confidence[good] = answers.max(axis=1)
            needs[good] = confidence[good] < np.float32(self._plan.settings.review_threshold)
            if scored.unfamiliar is not None and scored.familiarity is not None:
                familiarity[good], strange[good] = scored.familiarity[finite], scored.unfamiliar[finite]
                needs |= strange
        columns = [
            pa.array(scored.inputs, pa.string()),
            pa.array(scored.indices, pa.int64()),
            pa.array(label, pa.string()),
            pa.array(confidence, pa.float32(), mask=dead),
            pa.array(needs, pa.bool_(), mask=dead),
            pa.array([self._plan.version] * count, pa.string()),
            pa.array(errors, pa.string()),
        ]
        if self._plan.familiarity:
            columns += [pa.array(familiarity, pa.float32(), mask=dead), pa.array(strange, pa.bool_(), mask=dead)]
        if self._plan.settings.probabilities:
            columns.append(_lists(answers, good, dead))
        columns.append(pa.nulls(count, pa.string()))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _passed(self, scored: Scored) -> pa.RecordBatch:
        rows = [{"input": p.input, "index": -1, "model_version": self._plan.version, PASSED: p.reason} for p in scored.passed_over]
        return pa.RecordBatch.from_pylist(rows, self._schema)


def _lists(answers: Probabilities, good: npt.NDArray[np.intp], dead: npt.NDArray[np.bool_]) -> pa.Array:
    lengths = np.zeros(len(dead), np.int32)
    lengths[good] = answers.shape[1]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(answers.ravel(), pa.float32()), mask=pa.array(dead))


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
