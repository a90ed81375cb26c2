"""Puts the pieces together, in order, and commits the output."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.classifier.errors import DataError
from components.score.appearance import read_reference
from components.score.drift import Drift
from components.score.model import Model
from components.score.output import INCOMPLETE, PASSED_OVER, PREDICTIONS, SUMMARY, Output
from components.score.plan import PASSED_OVER as PASSED_SCHEMA
from components.score.plan import Plan
from components.score.rows import PASSED, schema
from components.score.summary import Summary, Tally

GROUP_ROWS = 65_536
GROUP_VALUES = 8 * 2**20
"""A row group holds so many rows, fewer where every row has many probabilities: always as many for the same classes."""
MAX_NAMED = 10


def merge(plan: Plan, results: list[str], folder: Path) -> Summary:
    """Write the output's files into a folder, commit them to the output's store, and return the summary.

    `results`: one JSON line per shard (`shard.ShardResult`). Raises DataError naming every piece that failed and every
    container that was refused; then the rows of the rest are kept as incomplete.parquet, and what was there before stays.
    Raises it too, after the commit, when not one of the inputs could be scored.
    """
    output = Output(plan.output)
    folder.mkdir(parents=True, exist_ok=True)
    if output.is_complete(plan):
        return _committed(plan, output, folder)
    with tempfile.TemporaryDirectory(prefix="penstock-merge-") as scratch:
        model = Model(plan.store, plan.name, plan.version)
        tally = Tally(plan.classes, read_reference(model.reference(Path(scratch) / "model")))
        problems = [reason for _, reason in plan.refused] + _write(plan, output, folder, Path(scratch), tally)
    if problems and output.is_complete(plan):
        return _committed(plan, output, folder)  # another run of the same plan was first, and tidied up
    if problems:
        raise _failed(plan, output, folder, problems)
    summary = _summary(plan, tally, [json.loads(result) for result in results])
    summary.save(folder / SUMMARY)
    output.commit(plan, folder)
    return _checked(summary)


def _committed(plan: Plan, output: Output, folder: Path) -> Summary:
    output.fetch(plan, folder)
    raw: dict[str, Any] = json.loads((folder / SUMMARY).read_text("utf-8"))
    raw["drift"] = [Drift(**drift) for drift in raw["drift"]]
    return _checked(Summary(**raw))


def _checked(summary: Summary) -> Summary:
    """Refuse to call a run good of which every row is an error: the input is another thing than was meant."""
    if summary.rows and not summary.scored:
        first = summary.error_examples[0]
        raise DataError(f"none of the {summary.rows} inputs could be scored; the first is {first['input']}: {first['error']}")
    return summary


def _write(plan: Plan, output: Output, folder: Path, scratch: Path, tally: Tally) -> list[str]:
    """Write both Parquet files; returns why pieces are missing, one line each."""
    problems: list[str] = []
    columns = schema(plan.classes, plan.settings.probabilities)
    group = min(GROUP_ROWS, max(1, GROUP_VALUES // len(plan.classes))) if plan.settings.probabilities else GROUP_ROWS
    with (
        _Grouped(folder / PREDICTIONS, columns, group) as predictions,
        _Grouped(folder / PASSED_OVER, PASSED_SCHEMA, GROUP_ROWS) as passed_over,
    ):
        for batch in _batches(plan.folder / "passed_over.parquet"):
            passed_over.write(batch)
            tally.add_passed_over(batch)
        for piece in plan.pieces:
            path = scratch / "part.parquet"
            if not output.get_part(piece, path):
                problems.append(output.failure(piece))
                continue
            for batch in _batches(path):
                is_row = pc.is_null(batch[PASSED])
                rows = batch.filter(is_row).select(columns.names).cast(columns)
                predictions.write(rows)
                tally.add(rows)
                passed = batch.filter(pc.invert(is_row))
                if len(passed):
                    notes = pa.table([passed["input"], passed[PASSED]], PASSED_SCHEMA)
                    passed_over.write(notes)
                    tally.add_passed_over(notes)
            tally.appearance.merge(pq.read_metadata(path).metadata[b"looks"].decode())
            path.unlink()
    return problems


class _Grouped:
    """Writes Parquet in row groups of one size, so that the bytes do not depend on how the rows arrived."""

    def __init__(self, path: Path, columns: pa.Schema, size: int) -> None:
        self._writer = pq.ParquetWriter(path, columns, compression="zstd")
        self._columns, self._size = columns, size
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> "_Grouped":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush(last=True)
        self._writer.close()

    def write(self, rows: pa.Table) -> None:
        self._waiting.append(rows)
        if sum(len(table) for table in self._waiting) >= self._size:
            self._flush()

    def _flush(self, last: bool = False) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).cast(self._columns).combine_chunks()
        start = 0
        while len(table) - start >= self._size or (last and start < len(table)):
            self._writer.write_table(table.slice(start, self._size).combine_chunks(), row_group_size=self._size)
            start += self._size
        self._waiting = [table.slice(start)] if start < len(table) else []


def _batches(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def _failed(plan: Plan, output: Output, folder: Path, problems: list[str]) -> DataError:
    output.put_incomplete(folder / PREDICTIONS)
    named = "; ".join(problems[:MAX_NAMED]) + (f"; and {len(problems) - MAX_NAMED} more" if len(problems) > MAX_NAMED else "")
    kept = f"the other rows are kept in {plan.output}/{INCOMPLETE}"
    return DataError(f"not everything was scored: {named}; correct or remove these and run again ({kept})")


def _summary(plan: Plan, tally: Tally, results: list[dict[str, Any]]) -> Summary:
    scored = tally.rows - tally.errors
    seconds, done = sum(result["seconds"] for result in results), sum(result["scored"] for result in results)
    return Summary(
        input=plan.input,
        output=plan.output,
        model=plan.name,
        version=plan.version,
        rows=tally.rows,
        scored=scored,
        errors=tally.errors,
        passed_over=tally.passed_over,
        needs_review=tally.needs_review,
        review_share=round(tally.needs_review / scored, 6) if scored else None,
        mean_confidence=round(tally.confidence_sum / scored, 6) if scored else None,
        classes={name: tally.labels[name] for name in plan.classes},
        error_examples=tally.examples,
        passed_over_reasons=dict(tally.reasons.most_common(20)),
        drift=tally.drift(),
        warnings=tally.warnings(),
        device=", ".join(sorted({result["device"] for result in results if result["device"]})),
        images_per_second=round(done / seconds, 1) if seconds else None,
        seconds=round(seconds, 2),
        shards=len(results),
    )
