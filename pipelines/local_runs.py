"""The records of local runs: what ran, how it ended, and how long its files are kept.

`.penstock/runs/ID/`: `run.json` (this record), `request.json`, `run.log`, `report.html` of a training, and `artifacts/`, what steps left.
The ID is also the `run` of the version's manifest and of the ledger's record.
"""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from components.classifier.errors import UsageError
from components.storage.files import write_file

RUNS = Path(".penstock/runs")
RECORD = "run.json"
MAX_WITH_ARTIFACTS = 5
"""Runs whose steps' outputs are kept, the newest ones: what is worth keeping is in the model store."""

MODEL_STEPS = ("train-model", "make-variant")
"""Steps whose output is a model that is worth keeping until it is published."""

Status = Literal["running", "succeeded", "failed", "interrupted", "lost"]


class RunStep(BaseModel):
    """A step of a run."""

    name: str
    state: str
    seconds: float = 0.0


class LocalRun(BaseModel):
    """A run on this machine. `outcome` is what it returned, such as version and decision; `time` its start, UTC."""

    model_config = ConfigDict(frozen=True)
    id: str
    pipeline: str
    arguments: dict[str, Any]
    docker: bool = False
    """Its steps ran in containers."""
    time: str
    pid: int
    process: str = ""
    """Which process had this number, see `process_identity`: after a restart of the machine or container another may have it."""
    status: Status = "running"
    seconds: float = 0.0
    outcome: dict[str, Any] = {}
    error: str = ""
    steps: list[RunStep] = []

    @property
    def result(self) -> str:
        """What came of it, in a word or a line: the error, or the outcome without the version."""
        return self.error or ", ".join(str(value) for key, value in self.outcome.items() if key != "version" and value)

    def save(self, directory: Path) -> None:
        """Write the record into the run's folder, in place of the one before."""
        write_file(directory / RECORD, [self.model_dump_json(indent=1).encode()])


def list_runs(root: Path = RUNS) -> list[LocalRun]:
    """Return the recorded runs, newest first; one whose process is gone without an end is `lost`."""
    return [run for folder in sorted(root.glob("*/"), reverse=True) if (run := _read(folder))]


def find_run(selector: str, root: Path = RUNS) -> LocalRun:
    """Return a run by its ID, a unique beginning of it, or `last`; raises UsageError where that is none, or several, or empty."""
    if not selector:
        raise UsageError("the run's ID is empty; give its beginning, or `last`")
    runs = list_runs(root)
    found = runs[:1] if selector == "last" else [run for run in runs if run.id.startswith(selector)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"several runs begin with {selector!r}: {', '.join(run.id for run in found[:5])}; give more of the ID")
    if not runs:
        raise UsageError(f"there is no run in {root.absolute()}; runs are known in the folder in which they were started: go there")
    raise UsageError(f"no run {selector!r} in {root}; `penstock runs list` shows the {len(runs)} that there are")


def folder_size(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())


def drop_artifacts(root: Path = RUNS) -> None:
    """Remove the steps' outputs of all but the newest runs; a run that trained a model and did not succeed keeps its own."""
    ended = [run for run in list_runs(root) if run.status != "running"]
    for run in ended[MAX_WITH_ARTIFACTS:]:
        trained = any(step.name in MODEL_STEPS and step.state == "succeeded" for step in run.steps)
        if run.status == "succeeded" or not trained:
            shutil.rmtree(root / run.id / "artifacts", ignore_errors=True)


def remove_run(run: LocalRun, root: Path = RUNS) -> None:
    """Remove a run's folder; raises UsageError while it goes on."""
    if run.status == "running":
        raise UsageError(f"run {run.id} goes on (process {run.pid}); end it first")
    shutil.rmtree(root / run.id)


def _read(folder: Path) -> LocalRun | None:
    try:
        run = LocalRun.model_validate_json((folder / RECORD).read_bytes())
    except (OSError, ValidationError):
        return _of_release_0_1(folder)
    status = "lost" if run.status == "running" and not _lives(run) else run.status
    return run.model_copy(update={"id": folder.name, "status": status})  # the folder may have been renamed, or be a copy


def _of_release_0_1(folder: Path) -> LocalRun | None:
    """A run of before there were records, by what it left."""
    try:
        request = json.loads((folder / "request.json").read_text("utf-8"))
        started = (folder / "request.json").stat().st_mtime
        result = folder / "result.json"
        outcome = json.loads(result.read_text("utf-8"))["outputs"] if result.exists() else {}
        return LocalRun(
            id=folder.name,
            pipeline=request["pipeline"],
            arguments=request["arguments"],
            time=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(started)),
            pid=0,
            status="succeeded" if result.exists() else "lost",
            seconds=result.stat().st_mtime - started if result.exists() else 0.0,
            outcome=outcome,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def process_identity(pid: int) -> str:
    """Return what tells a process from all others that had its number or will have it; empty where the system does not say it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return f"{boot} {fields[19]}"  # ticks from the boot to its start
    except OSError:
        return ""


def _lives(run: LocalRun) -> bool:
    try:
        os.kill(run.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return not run.process or process_identity(run.pid) in {"", run.process}
