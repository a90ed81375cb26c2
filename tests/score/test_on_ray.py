"""Ray Data as the engine: the bytes, dead letters and refusals of the engine on one machine, and exactly once."""

import hashlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.classifier.errors import DataError, EvaluationError, UsageError
from components.score import on_ray
from components.score import plan as planning
from components.score.output import PIECES
from components.score.plan import Plan
from components.score.shard import score_shard
from tests.score import cases
from tests.score.conftest import Model, Score, plan_of

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("ray")]

KILLED = """
import os, signal, sys
from components.score import shard
from components.score.plan import Plan

note = shard._note
def killed(outcome, *rest):
    note(outcome, *rest)
    if outcome.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)

shard._note = killed
shard.score_shard(Plan.load(sys.argv[1]), "0")
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A Ray cluster of two CPUs; its address."""
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        on_ray._start(2, 2**27, folder)
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Good pictures, broken ones, one that nobody would be sure of, archives, arrays and a table."""
    monkeypatch.setattr(planning, "PIECE_ROWS", 10)
    folder = cases.folder(tmp_path / "in", 25)
    cases.put(folder / "cut.png", cases.png(0)[:40])
    cases.put(folder / "empty.png", b"")
    cases.put(folder / "noise.png", cases.encoded(np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)))
    cases.put(folder / "notes.txt", b"no picture")
    members = [(f"{k}.png", cases.png(k)) for k in range(12)]
    cases.tar(folder / "t.tar", [*members, ("broken.png", b"\x89PNG\r\n\x1a\nno"), ("orphan.cls", b"3")])
    np.save(folder / "a.npy", cases.digits(15))
    pq.write_table(pa.table({"image": [*(cases.png(k) for k in range(12)), None, b"no picture"]}), folder / "p.parquet")
    return folder


def parts(output: Path) -> dict[str, str]:
    """The pieces that lie in an output, by name, with their SHA-256."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((output / PIECES).iterdir())}


@pytest.mark.usefixtures("cluster")
def test_both_engines_write_the_same_bytes(model: Model, score: Score, pictures: Path, tmp_path: Path) -> None:
    found = {}
    for name in ("local", "ray"):
        plan = plan_of(model, tmp_path / f"plan-{name}", pictures, tmp_path / name, shards=1, engine=name, probabilities=True, batch_size=4)
        result = score_shard(plan, "0")
        assert (result.scored, result.failed, result.device) == (70, 0, "cpu")
        found[name] = parts(tmp_path / name)
    assert found["ray"] == found["local"]
    assert len(found["ray"]) == len(plan.pieces) > 5
    local, ray = (
        score(pictures, output=tmp_path / name, engine=name, shards=1, probabilities=True, batch_size=4) for name in ("local", "ray")
    )
    assert (local.summary.images_per_second, ray.summary.images_per_second) == (None, None), "the pieces that are there were merged"
    assert ray.data == local.data
    assert (ray.errors, ray.passed_over, ray.summary.drift) == (local.errors, local.passed_over, local.summary.drift)
    assert len(ray.errors) == 5
    assert any(row["needs_review"] for row in ray.rows)


@pytest.mark.usefixtures("cluster")
def test_a_file_that_cannot_be_used_is_named_and_the_others_are_scored(model: Model, score: Score, pictures: Path, tmp_path: Path) -> None:
    whole = (pictures / "t.tar").read_bytes()
    cases.put(pictures / "u.tar", whole + whole)
    said = {}
    for name in ("local", "ray"):
        with pytest.raises(DataError, match=r"not everything was scored: shard 0: u\.tar is damaged, or several archives") as error:
            score(pictures, output=tmp_path / name, engine=name)
        said[name] = str(error.value).replace(str(tmp_path / name), "OUTPUT"), parts(tmp_path / name)
    assert said["ray"] == said["local"]


@pytest.mark.usefixtures("cluster")
def test_a_gpu_that_the_cluster_does_not_have_is_refused(model: Model, pictures: Path, tmp_path: Path) -> None:
    plan = plan_of(model, tmp_path / "plan", pictures, tmp_path / "output", shards=1, engine="ray", device="cuda")
    with pytest.raises(UsageError, match="device=cuda, but the Ray cluster has no GPU"):
        score_shard(plan, "0")


def test_a_cluster_whose_cpus_others_hold_is_waited_for_a_while_and_named(
    model: Model, pictures: Path, tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(on_ray, "START_SECONDS", 3)
    holder = ray.remote(num_cpus=2)(type("Holder", (), {"begin": lambda self: True})).remote()
    assert ray.get(holder.begin.remote())
    plan = plan_of(model, tmp_path / "plan", pictures, tmp_path / "output", shards=1, engine="ray")
    with pytest.raises(EvaluationError, match=r"needs one CPU to decode and another to answer, and 0 of 2 CPUs are free; end what holds"):
        score_shard(plan, "0")
    ray.kill(holder)


def test_a_cluster_that_asks_for_a_token_says_how_it_is_given(cluster: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_AUTH_MODE"} | {"RAY_ADDRESS": cluster}
    code = "from components.score.on_ray import _cluster\nwith _cluster(0): pass"
    asked = subprocess.run([sys.executable, "-c", code], check=False, env=environment, stderr=subprocess.PIPE, text=True)
    assert f"{cluster}, asks for its token; set RAY_AUTH_MODE=token, and give the token by ~/.ray/auth_token" in asked.stderr


def test_a_run_that_is_killed_goes_on_where_it_was_on_the_cluster_of_RAY_ADDRESS(
    model: Model, score: Score, pictures: Path, tmp_path: Path, cluster: str
) -> None:
    unbroken = score(pictures)
    plan = plan_of(model, tmp_path / "plan", pictures, tmp_path / "output", shards=1, engine="ray")
    environment = {**os.environ, "RAY_ADDRESS": cluster}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(plan.folder)], check=False, env=environment)
    assert killed.returncode == -signal.SIGKILL
    kept = parts(tmp_path / "output")
    assert len(kept) == 2
    again = score_shard(Plan.load(plan.folder), "0")
    assert (again.kept, again.scored) == (2, len(unbroken.rows) - 20)
    assert kept.items() <= parts(tmp_path / "output").items()
    assert score(pictures, output=tmp_path / "output", engine="ray").data == unbroken.data


def test_a_machine_without_ray_names_the_extra_before_anything_is_planned(model: Model, pictures: Path, tmp_path: Path) -> None:
    plan = plan_of(model, tmp_path / "plan", pictures, tmp_path / "output", shards=1, engine="ray")
    said = r"engine=ray needs Ray Data, which is not installed: pip install 'penstock\[ray\]'"
    with pytest.MonkeyPatch.context() as without:
        without.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(UsageError, match=said):
            plan_of(model, tmp_path / "again", pictures, tmp_path / "output", shards=1, engine="ray")
        with pytest.raises(UsageError, match=said):
            score_shard(plan, "0")


def test_a_cluster_of_this_machine_starts_wherever_temporary_files_lie(model: Model, score: Score, pictures: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("temporary-files-of-a-run-" * 4)
    deep.mkdir()
    plan = plan_of(model, tmp_path / "plan", pictures, tmp_path / "output", shards=1, engine="ray")
    code = "import sys; from components.score.plan import Plan; from components.score.shard import score_shard; "
    code += "print('scored', score_shard(Plan.load(sys.argv[1]), '0').scored)"
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {"TMPDIR": str(deep)}
    ran = subprocess.run([sys.executable, "-c", code, str(plan.folder)], stdout=subprocess.PIPE, text=True, check=True, env=environment)
    assert "scored 70" in ran.stdout
    assert list(deep.iterdir()) == []


def test_a_cluster_that_does_not_answer_is_named(score: Score, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # another test may have a cluster
    with pytest.raises(EvaluationError, match=r"RAY_ADDRESS names, 127\.0\.0\.1:1, does not answer: .*refused"):
        score(pictures, engine="ray")


HEAD = """
import sys, time
import ray
from components.score import on_ray

on_ray._start(2, 2**27, sys.argv[1])
print(ray.get_runtime_context().gcs_address, flush=True)
time.sleep(600)
"""
HEAD_IS_LOST = """
import sys
from components.score import ray_head
from components.score.plan import Plan
from components.score.shard import score_shard

ray_head.LOST_SECONDS = 3
score_shard(Plan.load(sys.argv[1]), "0")
"""


@pytest.mark.release
@pytest.mark.usefixtures("cluster")  # for the variables of its token
def test_a_cluster_that_loses_its_head_is_told_in_one_line(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "PIECE_ROWS", 10)
    np.save(tmp_path / "a.npy", cases.digits(1797))
    plan = plan_of(model, tmp_path / "plan", tmp_path / "a.npy", tmp_path / "output", shards=1, engine="ray")
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        head = subprocess.Popen([sys.executable, "-c", HEAD, folder], stdout=subprocess.PIPE, text=True, env=environment)
        stack.callback(head.kill)
        assert head.stdout is not None
        environment["RAY_ADDRESS"] = head.stdout.readline().strip()
        command = [sys.executable, "-c", HEAD_IS_LOST, str(plan.folder)]
        scoring = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        stack.callback(scoring.kill)
        assert scoring.stdout is not None
        assert any(line.startswith("piece 0: 10 rows") for line in scoring.stdout)
        children = Path(f"/proc/{head.pid}/task/{head.pid}/children").read_text().split()
        (gcs,) = (int(child) for child in children if "gcs_server" in Path(f"/proc/{child}/comm").read_text())
        os.kill(gcs, signal.SIGKILL)
        said = scoring.communicate(timeout=50)[1].splitlines()  # Ray itself would need 60 seconds
    assert scoring.returncode == 1
    error = "components.classifier.errors.EvaluationError: the head of the Ray cluster"
    assert said[-1].startswith(f"{error}, {environment['RAY_ADDRESS']}, does not answer any more; start a cluster, and run again")
    assert len(parts(tmp_path / "output")) < len(plan.pieces)
