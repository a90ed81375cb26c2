"""Commits the output: its parts, which the shards assembled, are copied to their names, and the manifest is written last."""

import json
import tempfile
from pathlib import Path
from typing import Any

from components.classifier.errors import DataError
from components.integrations import steps
from components.integrations.observe import observed
from components.score.model import Model
from components.score.output import INCOMPLETE, PASSED_OVER, SUMMARY, Output, StoredPart
from components.score.plan import PASSED_OVER as PASSED_SCHEMA
from components.score.plan import Part, Plan
from components.score.rows import ROWS_FILE, RowsWriter, assembled, gather, parts_of, row_groups
from components.score.summary import Summary, accuracy_of, drift_of, read_summary, unread_metadata, warnings_of
from components.score.tally import Tally, read_reference

MAX_NAMED = 10


@observed(steps.merge)
def merge(plan: Plan, results: list[str], folder: Path) -> Summary:
    """Commit the output's parts, and write its summary, what was passed over and a single file of rows into a folder; returns the summary.

    `results`: one JSON line per shard (`shard.ShardResult`). Raises DataError naming every piece that failed and every
    container that was refused; then the rows of the rest are kept in _incomplete/, and what was there before stays.
    Raises it too, after the commit, when not one of the inputs could be scored.
    """
    output, parts = Output(plan.output), parts_of(plan)
    folder.mkdir(parents=True, exist_ok=True)
    if output.is_complete(plan):
        return committed(plan, folder)
    with tempfile.TemporaryDirectory(prefix="penstock-merge-") as scratch:
        reference = read_reference(Model(plan.store, plan.name, plan.version).reference(Path(scratch) / "model"))
        stored, complete = [], output.complete()
        for part in parts:
            if found := assembled(plan, output, reference, part, complete):
                stored.append((part, found))
        failed = [piece for piece in plan.pieces if piece.id not in complete]
        if (plan.refused or len(stored) < len(parts)) and output.is_complete(plan):
            return committed(plan, folder)  # another run of the same plan was first, and tidied up
        if plan.refused or len(stored) < len(parts):
            output.clear_incomplete()
            for part in parts:
                gather(plan, output, part, Path(scratch), Tally(plan.classes, reference))
                output.put_incomplete(part, Path(scratch) / ROWS_FILE)
            raise _failed(plan, [reason for _, reason in plan.refused] + [output.failure(piece) for piece in failed])
        tally = Tally(plan.classes, reference)
        _write_passed_over(plan, stored, output, folder / PASSED_OVER, tally)
    for _, found in stored:
        tally.merge(found.tally)
    summary = _summary(plan, tally, [json.loads(result) for result in results])
    summary.save(folder / SUMMARY)
    output.commit(plan, folder, stored)
    return _checked(summary)


def committed(plan: Plan, folder: Path) -> Summary:
    """Copy the plan's complete output to a folder, but for the rows of a dataset, and take away what led to it; returns the summary.

    Raises IntegrityError for files that were changed, DataError when not one of the inputs could be scored.
    """
    Output(plan.output).fetch(plan, parts_of(plan), folder)
    return _checked(read_summary((folder / SUMMARY).read_bytes()))


def _checked(summary: Summary) -> Summary:
    """Refuse a run in which every row is an error: the input is not what was meant."""
    if summary.rows and not summary.scored:
        first = summary.error_examples[0]
        raise DataError(f"none of the {summary.rows} inputs could be scored; the first is {first['input']}: {first['error']}")
    return summary


def _write_passed_over(plan: Plan, stored: list[tuple[Part, StoredPart]], output: Output, path: Path, tally: Tally) -> None:
    """Write what the plan passed over, and after it what the pieces did; the former is counted here."""
    path.parent.mkdir(exist_ok=True)
    own = path.with_name("part.parquet")
    with RowsWriter(path, PASSED_SCHEMA) as passed_over:
        for batch in row_groups(plan.folder / "passed_over.parquet"):
            passed_over.write(batch)
            tally.add_passed_over(batch)
        for part, _ in stored:
            output.get_passed_over(part, own)
            for batch in row_groups(own):
                passed_over.write(batch)
            own.unlink()


def _failed(plan: Plan, problems: list[str]) -> DataError:
    named = "; ".join(problems[:MAX_NAMED]) + (f"; and {len(problems) - MAX_NAMED} more" if len(problems) > MAX_NAMED else "")
    kept = f"the other rows are kept in {plan.output}/{INCOMPLETE}"
    return DataError(f"not everything was scored: {named}; correct or remove these and run again ({kept})")


def _summary(plan: Plan, tally: Tally, results: list[dict[str, Any]]) -> Summary:
    scored, unread = tally.rows - tally.errors, unread_metadata(tally)
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
        passed_over_reasons={reason: count for reason, count in tally.reasons.most_common(20) if reason not in unread},
        unread_metadata=unread,
        drift=drift_of(tally),
        expected_accuracy=accuracy_of(tally),
        warnings=warnings_of(tally),
        device=", ".join(sorted({result["device"] for result in results if result["device"]})),
        images_per_second=round(done / seconds, 1) if seconds else None,
        seconds=round(seconds, 2),
        shards=len(results),
    )
