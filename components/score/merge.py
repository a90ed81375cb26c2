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
from components.integrations import steps
from components.integrations.observe import observed
from components.score.appearance import read_reference
from components.score.model import Model
from components.score.output import INCOMPLETE, PASSED_OVER, SUMMARY, Output
from components.score.parts import GROUP_ROWS, PART_BYTES, PartsWriter, arranged, group_rows
from components.score.plan import PASSED_OVER as PASSED_SCHEMA
from components.score.plan import Plan
from components.score.rows import PASSED, schema
from components.score.summary import Summary, Tally, read_summary

MAX_NAMED = 10


@observed(steps.merge)
def merge(plan: Plan, results: list[str], folder: Path) -> Summary:
    """Write the output's files into a folder, commit them to the output's store, and return the summary.

    `results`: one JSON line per shard (`shard.ShardResult`). Raises DataError naming every piece that failed and every
    container that was refused; then the rows of the rest are kept in _incomplete/, and what was there before stays.
    Raises it too, after the commit, when not one of the inputs could be scored.
    """
    output = Output(plan.output)
    folder.mkdir(parents=True, exist_ok=True)
    if output.is_complete(plan):
        return _committed(plan, output, folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix="_merging-") as scratch:
        model = Model(plan.store, plan.name, plan.version)
        tally = Tally(plan.classes, read_reference(model.reference(Path(scratch) / "model")))
        columns = schema(plan.classes, plan.settings.probabilities, plan.familiarity)
        group = group_rows(len(plan.classes), plan.settings.probabilities)
        predictions = PartsWriter(Path(scratch) / "rows", columns, group, None if plan.settings.layout == "file" else PART_BYTES)
        problems = [reason for _, reason in plan.refused] + _write(plan, output, predictions, folder, Path(scratch), tally)
        if problems and output.is_complete(plan):
            return _committed(plan, output, folder)  # another run of the same plan was first, and tidied up
        if problems:
            output.put_incomplete(predictions.parts)
            raise _failed(plan, problems)
        names = arranged(folder, predictions.parts, columns, group, plan.settings)
    summary = _summary(plan, tally, [json.loads(result) for result in results])
    summary.save(folder / SUMMARY)
    output.commit(plan, folder, names)
    return _checked(summary)


def _committed(plan: Plan, output: Output, folder: Path) -> Summary:
    output.fetch(plan, folder)
    return _checked(read_summary((folder / SUMMARY).read_bytes()))


def _checked(summary: Summary) -> Summary:
    """Refuse to call a run good of which every row is an error: the input is another thing than was meant."""
    if summary.rows and not summary.scored:
        first = summary.error_examples[0]
        raise DataError(f"none of the {summary.rows} inputs could be scored; the first is {first['input']}: {first['error']}")
    return summary


def _write(plan: Plan, output: Output, predictions: PartsWriter, folder: Path, scratch: Path, tally: Tally) -> list[str]:
    """Write the rows, and what was passed over; returns why pieces are missing, one line each."""
    problems: list[str] = []
    columns = schema(plan.classes, plan.settings.probabilities, plan.familiarity)
    with predictions, PartsWriter((folder / PASSED_OVER).parent, PASSED_SCHEMA, GROUP_ROWS, None) as passed_over:
        for batch in _row_groups(plan.folder / "passed_over.parquet"):
            passed_over.write(batch)
            tally.add_passed_over(batch)
        for piece in plan.pieces:
            path = scratch / "part.parquet"
            if not output.get_part(piece, path):
                problems.append(output.failure(piece))
                continue
            for batch in _row_groups(path):
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
    passed_over.parts[0].rename(folder / PASSED_OVER)
    return problems


def _row_groups(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def _failed(plan: Plan, problems: list[str]) -> DataError:
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
        unfamiliar=tally.unfamiliar,
        review_share=round(tally.needs_review / scored, 6) if scored else None,
        mean_confidence=round(tally.confidence_sum / scored, 6) if scored else None,
        classes={name: tally.labels[name] for name in plan.classes},
        error_examples=tally.examples,
        passed_over_reasons=dict(tally.reasons.most_common(20)),
        drift=tally.drift(),
        expected_accuracy=tally.expected_accuracy(),
        warnings=tally.warnings(),
        device=", ".join(sorted({result["device"] for result in results if result["device"]})),
        images_per_second=round(done / seconds, 1) if seconds else None,
        seconds=round(seconds, 2),
        shards=len(results),
    )
