"""A shard with many pictures is scored by several processes: the same bytes, the same dead letters, and nobody left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest

from components.classifier.errors import DataError, EvaluationError
from components.readers import processes
from components.score import plan as planning
from components.score import shard as sharding
from components.score.model import Model as Version
from components.score.output import Output
from components.score.pieces import PieceScorer, in_processes
from components.score.plan import Plan
from tests.score import cases
from tests.score.conftest import Model, Score, plan_of

KILLED = """
import os, signal, sys
from multiprocessing import active_children
from components.readers import processes
from components.score import shard
from components.score.plan import Plan

def killed(*_):
    print("children", *(child.pid for child in active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

processes.MIN_PICTURES, processes.available_cpus, shard._note = 1, lambda: 3, killed
shard.score_shard(Plan.load(sys.argv[1]), "0")
"""


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes for any number of pictures."""
    monkeypatch.setattr(processes, "MIN_PICTURES", 1)
    monkeypatch.setattr(processes, "available_cpus", lambda: 2)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(planning, "PIECE_ROWS", 10)
    cases.put(cases.folder(tmp_path / "in", 45) / "cut.png", cases.png(0)[:40])
    cases.tar(tmp_path / "in" / "t.tar", [(f"{k}.png", cases.png(k)) for k in range(5)])
    return tmp_path / "in"


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many processes each call used."""
    used: list[int] = []

    def counted(scorer: PieceScorer, folder: Path, bundle: Path, pieces: list[planning.Piece], processes: int) -> Iterator[object]:
        used.append(processes)
        return in_processes(scorer, folder, bundle, pieces, processes)

    monkeypatch.setattr(sharding, "in_processes", counted)
    yield used
    assert active_children() == []


@pytest.mark.usefixtures("several")
def test_the_bytes_are_those_of_one_process(score: Score, pictures: Path, spawned: list[int]) -> None:
    one = score(pictures, workers=1, probabilities=True)
    two = score(pictures, probabilities=True)
    assert spawned == [2]
    assert two.data == one.data
    assert (two.errors, two.summary.classes, two.summary.drift) == (one.errors, one.summary.classes, one.summary.drift)
    assert two.summary.device == "cpu"


@pytest.mark.usefixtures("several")
def test_a_file_that_cannot_be_used_is_named_and_the_others_are_scored(score: Score, pictures: Path, spawned: list[int]) -> None:
    np.save(pictures / "a.npy", cases.digits(3))
    whole = (pictures / "t.tar").read_bytes()
    cases.put(pictures / "u.tar", whole + whole)
    with pytest.raises(DataError, match=r"not everything was scored: shard 0: u\.tar is damaged, or several archives"):
        score(pictures)
    assert spawned == [2]


def test_few_pictures_are_scored_in_this_process(score: Score, pictures: Path, spawned: list[int]) -> None:
    score(pictures)
    assert spawned == []


@pytest.mark.usefixtures("several")
def test_a_process_that_scores_may_not_vanish_in_silence(model: Model, pictures: Path, tmp_path: Path) -> None:
    plan = plan_of(model, tmp_path / "plan", pictures, tmp_path / "output", shards=1, batch_size=1)
    bundle = Version(model.store, "digits", model.version).fetch(tmp_path / "bundle")
    with PieceScorer(plan.folder, bundle, "cpu", 2) as scorer:
        outcomes = in_processes(scorer, plan.folder, bundle, plan.pieces * 100, 2)
        next(outcomes)
        for child in active_children():
            child.kill()
        with pytest.raises(EvaluationError, match=r"ended from outside, .*; give the step more memory, or set workers=1"):
            list(outcomes)


def test_a_scorer_that_is_stopped_does_not_end_its_piece_and_says_nothing_bad_of_it(model: Model, pictures: Path, tmp_path: Path) -> None:
    plan = plan_of(model, tmp_path / "plan", pictures, tmp_path / "output", shards=1, batch_size=1)
    bundle = Version(model.store, "digits", model.version).fetch(tmp_path / "bundle")
    with PieceScorer(plan.folder, bundle, "cpu", 2) as scorer, pytest.raises((RuntimeError, CancelledError)):
        scorer.score(plan.pieces[0], lambda _: scorer.stop())
    assert Output(plan.output).complete() == set()
    told = "shard 0 ended before it scored piece 0, or another scoring into the same output took it away"
    assert Output(plan.output).failure(plan.pieces[0]) == told


def test_when_the_shard_is_killed_its_processes_end_and_a_repeated_run_has_the_same_bytes(
    score: Score, model: Model, pictures: Path, tmp_path: Path
) -> None:
    unbroken = score(pictures)
    plan = plan_of(model, tmp_path / "plan", pictures, tmp_path / "output", shards=1)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(plan.folder)], stdout=subprocess.PIPE, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    (line,) = [line for line in killed.stdout.splitlines() if line.startswith("children")]
    children = [int(pid) for pid in line.split()[1:]]
    assert len(children) == 2
    end = time.monotonic() + 60
    while any(is_running(pid) for pid in children):
        assert time.monotonic() < end, "a process outlived the shard"
        time.sleep(0.05)
    assert Plan.load(plan.folder).pieces
    assert score(pictures, output=tmp_path / "output").data == unbroken.data


def is_running(pid: int) -> bool:
    """A zombie that nobody has waited for yet has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z" and os.getpgid(pid) > 0
    except (OSError, ProcessLookupError):
        return False
