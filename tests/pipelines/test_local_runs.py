"""The records of local runs, and how long their files are kept."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.classifier.errors import UsageError
from pipelines import local
from pipelines.cli import runs as commands
from pipelines.local import _end_group, _group_lives
from pipelines.local_runs import MAX_WITH_ARTIFACTS, LocalRun, RunStep, drop_artifacts, find_run, list_runs, process_identity


def record(root: Path, number: int, *, status: str = "succeeded", pid: int = 0, trained: bool = True) -> LocalRun:
    folder = root / f"2026010{number}-030405-abc{number}"
    (folder / "artifacts").mkdir(parents=True)
    (folder / "artifacts" / "model").write_bytes(bytes(1000))
    steps = [RunStep(name="train-model", state="succeeded")] if trained else []
    run = LocalRun(
        id=folder.name,
        pipeline="training",
        arguments={"epochs": 7, "name": "pets"},
        time=f"2026-01-0{number}T03:04:05+00:00",
        pid=pid,
        status=status,  # type: ignore[arg-type]
        steps=steps,
    )
    run.save(folder)
    return run


def test_runs_are_listed_newest_first_and_one_whose_process_is_gone_is_lost(tmp_path: Path) -> None:
    record(tmp_path, 1)
    record(tmp_path, 2, status="running", pid=2**22 + 1)
    record(tmp_path, 3, status="running", pid=os.getpid())
    (tmp_path / "stray").mkdir()
    (tmp_path / "stray" / "request.json").write_text("[]")
    assert [run.status for run in list_runs(tmp_path)] == ["running", "lost", "succeeded"]


def test_a_run_of_a_pipeline_that_another_release_had_is_shown_with_all_that_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / commands.RUNS
    record(root, 1).model_copy(update={"pipeline": "distillation"}).save(root / "20260101-030405-abc1")
    shown = CliRunner().invoke(commands.app, ["show", "last"])
    assert shown.exit_code == 0, shown.exception
    assert ["epochs", "7"] in [line.split() for line in shown.stdout.splitlines()]


def test_in_another_folder_the_runs_are_said_to_be_where_they_were_started(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"no run in {tmp_path}; runs are known in the folder in which they were started"):
        find_run("last", tmp_path)


def test_a_run_whose_number_another_process_has_by_now_is_lost(tmp_path: Path) -> None:
    run = record(tmp_path, 1, status="running", pid=os.getpid())
    with subprocess.Popen(["sleep", "60"]) as other:
        run.model_copy(update={"process": process_identity(other.pid)}).save(tmp_path / run.id)
        other.kill()
    assert find_run("last", tmp_path).status == "lost"
    run.model_copy(update={"process": process_identity(os.getpid())}).save(tmp_path / run.id)
    assert find_run("last", tmp_path).status == "running"


def test_a_run_of_release_0_1_is_read_from_its_request(tmp_path: Path) -> None:
    folder = tmp_path / "20260101-030405-abc1"
    folder.mkdir()
    (folder / "request.json").write_text('{"pipeline": "training", "arguments": {"name": "pets"}}')
    assert [(run.pipeline, run.status) for run in list_runs(tmp_path)] == [("training", "lost")]
    (folder / "result.json").write_text('{"outputs": {"version": "x"}}')
    assert [(run.status, run.outcome) for run in list_runs(tmp_path)] == [("succeeded", {"version": "x"})]


def test_a_run_is_found_by_its_beginning(tmp_path: Path) -> None:
    first, second = record(tmp_path, 1), record(tmp_path, 2)
    assert find_run("last", tmp_path).id == second.id
    assert find_run("20260101", tmp_path).id == first.id
    with pytest.raises(UsageError, match="several runs begin with '202601'"):
        find_run("202601", tmp_path)
    with pytest.raises(UsageError, match="no run 'x'"):
        find_run("x", tmp_path)


def test_an_empty_id_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = record(tmp_path / ".penstock/runs", 1)
    refused = CliRunner().invoke(commands.app, ["rm", "", "--yes"])
    assert isinstance(refused.exception, UsageError)
    assert [it.id for it in list_runs()] == [run.id]


def test_a_folder_that_was_renamed_or_copied_is_the_run_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / ".penstock/runs"
    run = record(root, 2)
    shutil.copytree(root / run.id, root / f"{run.id}-copy")
    assert CliRunner().invoke(commands.app, ["rm", f"{run.id}-copy", "--yes"]).exit_code == 0
    (root / run.id).rename(root / "kept")
    assert [it.id for it in list_runs(root)] == ["kept"]
    assert "1 runs removed" in CliRunner().invoke(commands.app, ["prune", "--keep", "0"]).stdout
    assert list_runs(root) == []


def test_a_run_in_containers_is_run_in_containers_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    folder = tmp_path / ".penstock/runs"
    run = record(folder, 1, status="interrupted").model_copy(update={"docker": True})
    run.save(folder / run.id)
    refused = CliRunner().invoke(commands.app, ["resume", "last"])
    assert "no Docker engine answers" in str(refused.exception)


def test_a_second_ctrl_c_ends_steps_that_do_not_end_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(100)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    looks: list[bool] = []

    def pressed_while_it_waits(group: "subprocess.Popen[str]") -> bool:
        looks.append(_group_lives(group))
        if len(looks) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return looks[-1]

    monkeypatch.setattr(local, "_group_lives", pressed_while_it_waits)
    started = time.monotonic()
    _end_group(process)
    assert process.returncode == -signal.SIGKILL
    assert looks[:2] == [True, True]
    assert time.monotonic() - started < local.GRACE_SECONDS


def test_outputs_are_kept_of_the_newest_runs_and_of_models_that_are_nowhere_else(tmp_path: Path) -> None:
    unpublished = record(tmp_path, 1, status="failed")
    record(tmp_path, 2, status="failed", trained=False)
    record(tmp_path, 3)
    newest = [record(tmp_path, 4 + number) for number in range(MAX_WITH_ARTIFACTS)]
    drop_artifacts(tmp_path)
    kept = {folder.parent.name for folder in tmp_path.glob("*/artifacts")}
    assert kept == {unpublished.id, *(run.id for run in newest)}
    assert len(list_runs(tmp_path)) == 3 + MAX_WITH_ARTIFACTS


def test_prune_and_rm_leave_runs_that_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / ".penstock/runs"
    running = record(root, 1, status="running", pid=os.getpid())
    record(root, 2)
    last = record(root, 3)
    assert "1 runs removed" in CliRunner().invoke(commands.app, ["prune", "--keep", "1"]).stdout
    assert [run.id for run in list_runs(root)] == [last.id, running.id]
    refused = CliRunner().invoke(commands.app, ["rm", running.id, "--yes"])
    assert isinstance(refused.exception, UsageError)
    assert CliRunner().invoke(commands.app, ["rm", "last"], input="y\n").exit_code == 0
    assert [run.id for run in list_runs(root)] == [running.id]
    assert "pets" in CliRunner().invoke(commands.app, ["list"]).stdout
