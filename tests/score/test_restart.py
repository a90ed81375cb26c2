"""A run that is killed goes on where it was, and ends with the bytes of an unbroken one."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.classifier.errors import DataError, IntegrityError
from components.score import plan as planning
from components.score import rows
from components.score.output import MANIFEST, PREDICTIONS, SUMMARY, Output
from components.score.plan import Plan
from components.score.plan_step import is_unchanged
from components.score.shard import score_shard
from components.score.summary import Summary
from tests.score import cases
from tests.score.conftest import Model, Score, plan_of

KILLED = """
import os, signal, sys
from components.score import rows
from components.score.plan import Plan
from components.score.shard import score_shard

seen = 0
add = rows.PieceFile.add

def counted(self, scored):
    global seen
    add(self, scored)
    seen += len(scored.inputs)
    if seen >= int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

rows.PieceFile.add = counted
score_shard(Plan.load(sys.argv[1]), "0")
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return cases.folder(tmp_path / "in", 25)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "PIECE_ROWS", 10)


def figures(summary: Summary) -> Summary:
    """A summary without what tells of the output's place, and of this run and not of the rows."""
    return replace(summary, output="", device="", images_per_second=None, seconds=0.0)


def test_killed_after_some_rows_it_ends_like_an_unbroken_run(score: Score, model: Model, pictures: Path, tmp_path: Path) -> None:
    unbroken = score(pictures)
    output = tmp_path / "output"
    plan = plan_of(model, tmp_path / "plan", pictures, output, batch_size=1)
    for killed_at, complete in ((5, 0), (12, 1), (4, 1)):
        killed = subprocess.run([sys.executable, "-c", KILLED, str(plan.folder), str(killed_at)], check=False)
        assert killed.returncode == -9
        assert [name for name in (PREDICTIONS, SUMMARY, MANIFEST) if (output / name).exists()] == []
        parts = list(output.glob("_parts/*.parquet"))
        assert len(parts) == complete
        assert all(pq.read_table(part).num_rows == 10 for part in parts)
    done = score(pictures, output=output, batch_size=1)
    assert len(done.rows) == len(set(done.names)) == 25
    assert done.data == unbroken.data
    assert figures(done.summary) == figures(unbroken.summary)
    assert not (output / "_parts").exists()


KILLED_WHILE_IT_ASSEMBLES = """
import os, signal, sys
from components.score import output, rows
from components.score.plan import Plan
from components.score.shard import score_shard

rows.GROUP_ROWS, rows.PART_BYTES = 5, 100
owner, name = {"rows": (rows.RowsWriter, "write"), "record": (output, "hash_file")}[sys.argv[2]]
do, left = getattr(owner, name), int(sys.argv[3])

def counted(*arguments):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return do(*arguments)

setattr(owner, name, counted)
score_shard(Plan.load(sys.argv[1]), "0")
"""


def test_killed_while_it_assembles_it_ends_like_an_unbroken_run(
    score: Score, model: Model, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "GROUP_ROWS", 5)
    monkeypatch.setattr(rows, "PART_BYTES", 100)
    unbroken = score(pictures)
    output = tmp_path / "output"
    plan = plan_of(model, tmp_path / "plan", pictures, output)
    for what, count, assembled in (("rows", 3, 2), ("record", 2, 3)):
        command = [sys.executable, "-c", KILLED_WHILE_IT_ASSEMBLES, str(plan.folder), what, str(count)]
        assert subprocess.run(command, check=False).returncode == -9
        assert len(list(output.glob("_assembled/*/part.json"))) == assembled
        assert not (output / MANIFEST).exists()
    done = score(pictures, output=output)
    assert done.summary.rows == 25
    assert figures(done.summary) == figures(unbroken.summary)
    for folder in ("predictions", "_passed_over"):
        found, expected = ({p.name: p.read_bytes() for p in (root / folder).iterdir()} for root in (output, unbroken.output))
        assert found == expected
    assert not (output / "_assembled").exists()


@pytest.mark.parametrize(("shards", "workers", "batch_size"), [(1, 4, 64), (3, 1, 7), (25, 2, 1), (0, 3, 1000)])
def test_the_bytes_depend_on_no_number_of_shards_threads_or_batches(
    score: Score, pictures: Path, shards: int, workers: int, batch_size: int
) -> None:
    cases.tar(pictures / "t.tar", [(f"{k}.png", cases.png(k)) for k in range(5)])
    cases.put(pictures / "cut.png", cases.png(0)[:50])
    unbroken = score(pictures, probabilities=True)
    again = score(pictures, shards=shards, workers=workers, batch_size=batch_size, probabilities=True)
    assert again.data == unbroken.data
    assert (again.output / "_passed_over" / "passed_over.parquet").read_bytes() == (
        unbroken.output / "_passed_over" / "passed_over.parquet"
    ).read_bytes()


def test_a_finished_run_is_found_and_a_changed_input_is_not(score: Score, model: Model, pictures: Path, tmp_path: Path) -> None:
    done = score(pictures, output=tmp_path / "output")
    before = (tmp_path / "output" / "summary.json").read_bytes()
    data, labels = done.data, done.labels
    again = score(pictures, output=tmp_path / "output")
    assert (tmp_path / "output" / "summary.json").read_bytes() == before
    assert again.data == data
    cases.put(pictures / "7.png", cases.png(8))
    changed = score(pictures, output=tmp_path / "output")
    assert changed.labels != labels
    assert score(pictures, output=tmp_path / "output", review_threshold=1.0).summary.needs_review == 25


def test_another_input_of_the_same_names_sizes_and_times_is_scored(score: Score, tmp_path: Path) -> None:
    for day in (1, 2):
        cases.put(tmp_path / f"day-{day}" / "a.npy", b"")
        np.save(tmp_path / f"day-{day}" / "a.npy", cases.digits(4)[:: 1 if day == 1 else -1])
        os.utime(tmp_path / f"day-{day}" / "a.npy", (0, 0))
    first, second = (score(tmp_path / f"day-{day}", output=tmp_path / "output").labels for day in (1, 2))
    assert second == first[::-1] != first


def test_an_array_that_is_replaced_after_it_was_planned_is_red(model: Model, score: Score, tmp_path: Path) -> None:
    from components.score.merge import merge

    array = tmp_path / "in" / "a.npy"
    cases.put(array, b"")
    np.save(array, cases.digits(30))
    plan = plan_of(model, tmp_path / "plan", array.parent, tmp_path / "output")
    np.save(array, cases.digits(15))
    results = [score_shard(plan, shard).to_json() for shard in plan.shards()]
    with pytest.raises(DataError, match=r"a\.npy has changed since the run was planned; run again"):
        merge(plan, results, tmp_path / "merged")
    assert score(array.parent, output=tmp_path / "output").summary.rows == 15


def test_what_a_killed_run_left_goes_with_the_next_commit_though_the_input_has_changed(
    score: Score, model: Model, pictures: Path, tmp_path: Path
) -> None:
    plan = plan_of(model, tmp_path / "plan", pictures, tmp_path / "output")
    assert score_shard(plan, "0").scored == 25
    (pictures / "0.png").unlink()
    score(pictures, output=tmp_path / "output")
    assert sorted(path.name for path in (tmp_path / "output").iterdir() if path.name != ".tmp") == [
        *("_passed_over", MANIFEST, PREDICTIONS, SUMMARY)
    ]


def test_a_scoring_whose_output_another_one_took_over_is_red_and_says_so(
    score: Score, model: Model, pictures: Path, tmp_path: Path
) -> None:
    from components.score.merge import merge

    output = tmp_path / "output"
    plan = plan_of(model, tmp_path / "plan", pictures, output)
    result = score_shard(plan, "0").to_json()
    other = score(cases.folder(tmp_path / "other", 3), output=output)
    with pytest.raises(DataError, match=r"piece 0, or another scoring into the same output took it away; .*run again"):
        merge(plan, [result], tmp_path / "merged")
    assert len(other.rows) == 3
    assert score(pictures, output=output).summary.rows == 25


def test_what_another_scoring_has_committed_stays_when_a_later_commit_fails(
    score: Score, model: Model, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.score.merge import merge

    output, commit = tmp_path / "output", Output.commit
    plan = plan_of(model, tmp_path / "plan", pictures, output)
    result = score_shard(plan, "0").to_json()

    def second(self: Output, *arguments: Any) -> None:
        monkeypatch.setattr(Output, "commit", commit)
        score(cases.folder(tmp_path / "other", 3), output=output)
        commit(self, *arguments)

    monkeypatch.setattr(Output, "commit", second)
    with pytest.raises(DataError, match=r"another scoring into .* ended meanwhile, and replaced what lay there; run again"):
        merge(plan, [result], tmp_path / "merged")
    assert json.loads((output / MANIFEST).read_text())["rows"] == {PREDICTIONS: 3}
    assert len(score(tmp_path / "other", output=output).rows) == 3


def test_an_unchanged_input_is_known_by_the_plan(
    score: Score, model: Model, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = plan_of(model, tmp_path / "first", pictures, tmp_path / "output", shards=3)
    assert not is_unchanged(first)
    done = score(pictures, output=tmp_path / "output", shards=3)
    planned = plan_of(model, tmp_path / "plan", pictures, tmp_path / "output", shards=3)
    left = tmp_path / "output" / "_parts" / f"{planned.pieces[0].id}.parquet"
    cases.put(left, b"left by a run that ended just after it had committed")
    assert is_unchanged(planned)
    assert not left.exists()
    assert (planned.folder / "summary.json").read_bytes() == (tmp_path / "output" / "summary.json").read_bytes()
    assert f"note: {tmp_path / 'output'} holds the scores of this input by {model.version} already" in capsys.readouterr().out
    assert score_shard(planned, "0").scored == 0
    cases.put(pictures / "7.png", cases.png(8))
    assert not is_unchanged(plan_of(model, tmp_path / "changed", pictures, tmp_path / "output", shards=3))
    assert plan_of(model, tmp_path / "back", pictures, tmp_path / "output", shards=3).pieces != planned.pieces
    cases.put(tmp_path / "output" / "predictions.parquet", done.data[:-1])
    with pytest.raises(IntegrityError, match="was changed"):
        is_unchanged(planned)


def test_an_input_of_which_nothing_could_be_scored_is_refused_again(model: Model, score: Score, tmp_path: Path) -> None:
    cases.put(tmp_path / "in" / "1.png", b"no picture")
    for _ in range(2):
        with pytest.raises(DataError, match="none of the 1 inputs could be scored"):
            score(tmp_path / "in", output=tmp_path / "output")
    with pytest.raises(DataError, match="none of the 1 inputs could be scored"):
        is_unchanged(plan_of(model, tmp_path / "plan", tmp_path / "in", tmp_path / "output"))


def test_a_finished_run_whose_file_was_removed_is_done_again(score: Score, pictures: Path, tmp_path: Path) -> None:
    done = score(pictures, output=tmp_path / "output")
    data = done.data
    (tmp_path / "output" / "predictions.parquet").unlink()
    assert score(pictures, output=tmp_path / "output").data == data


def test_a_merge_that_is_repeated_finds_what_it_committed(score: Score, model: Model, pictures: Path, tmp_path: Path) -> None:
    from components.score.merge import merge

    plan = plan_of(model, tmp_path / "plan", pictures, tmp_path / "output")
    results = [score_shard(Plan.load(plan.folder), shard).to_json() for shard in plan.shards()]
    first, second = (merge(plan, results, tmp_path / f"merged-{k}") for k in range(2))
    assert first == second
    assert (tmp_path / "merged-1" / "predictions.parquet").read_bytes() == (tmp_path / "output" / "predictions.parquet").read_bytes()
