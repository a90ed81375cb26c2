"""Run a pipeline on this machine through kfp's local runner, and tell what happens as it happens.

The runner's own output goes to `run.log`; `kfp_inside` makes events of it.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from components.classifier.progress import PREFIX, SECONDS_VARIABLE
from components.classifier.stopping import raised_at
from components.integrations.observe import RUN
from pipelines import kfp_inside
from pipelines.local_runs import MODEL_STEPS, LocalRun, RunStep, drop_artifacts, process_identity

GRACE_SECONDS = 60
"""How long steps may take to end after Ctrl-C before they are killed: a training completes the step that it is in."""

PROGRESS_SECONDS = "0.5"
"""How often the steps say how far they are."""


@dataclass
class Step:
    """One step of a run: its task name in the pipeline, its state, and the figures that it returned."""

    name: str
    started: float
    state: str = "running"
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Its output artifacts by name: `uri`, a path here, and `metadata`."""


def trained_files(directory: Path) -> tuple[Path, Path] | None:
    """Return the folders of a run's trained model and its evaluation, or None where the run did not come that far."""
    made = (kfp_inside.step_outputs(directory / "artifacts", step)[1].get("model") for step in MODEL_STEPS)
    model = next((artifact for artifact in made if artifact), None)
    evaluation = kfp_inside.step_outputs(directory / "artifacts", "evaluate-model")[1].get("evaluation")
    return (Path(model["uri"]), Path(evaluation["uri"])) if model and evaluation else None


@dataclass
class RunResult:
    """The result of a local run."""

    succeeded: bool
    outputs: dict[str, Any]
    steps: list[Step]
    log: Path
    directory: Path
    error: str = ""
    """The failed step's cause in one line."""
    interrupted: bool = False
    skipped: list[str] = field(default_factory=list)
    """Branches that were not taken."""

    def artifact(self, step: str, name: str) -> Path:
        """Path of an output artifact of a step that ran to its end."""
        return Path(self._artifact(step, name)["uri"])

    def metadata(self, step: str, name: str) -> dict[str, Any]:
        """Metadata of an output artifact of a step that ran to its end."""
        metadata: dict[str, Any] = self._artifact(step, name)["metadata"]
        return metadata

    def returned(self, step: str) -> Any:
        """What a step returned, None where it did not run to its end."""
        return next((ran.figures.get("Output") for ran in reversed(self.steps) if ran.name == step and ran.state == "succeeded"), None)

    def _artifact(self, step: str, name: str) -> dict[str, Any]:
        return next(ran.artifacts for ran in reversed(self.steps) if ran.name == step and ran.state == "succeeded")[name]


Listener = Callable[[str, Step | None, str], None]
"""Called with an event ("started", "line", "finished", "skipped"), its step, and a text."""


def new_run_directory(root: Path) -> Path:
    """Make a directory for one run, named by its time (UTC) and four random digits, so that parallel runs never share."""
    directory = root / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    (directory / "tmp").mkdir(parents=True)
    return directory.absolute()


def run_local(
    pipeline: str, arguments: dict[str, Any], directory: Path, listener: Listener, checkpoints: str, *, docker: bool = False
) -> RunResult:
    """Run a pipeline of `pipelines.catalogue` with these arguments, its files below `directory`.

    `checkpoints`: where a training that is interrupted leaves its checkpoint for the next run, a directory or a store's address.
    `docker`: the steps run in containers of their image. Ctrl-C and SIGTERM end the steps and give a result with
    `interrupted`; nothing is left running.
    """
    containers: dict[str, Any] | None = None
    if docker:
        from pipelines.docker import in_containers

        arguments, containers = in_containers(arguments, directory, checkpoints)
        given = containers["environment"] | {SECONDS_VARIABLE: PROGRESS_SECONDS, RUN: directory.name}
        # Of what the child inherits only the names are written: secrets are among it.
        containers["environment"] = {key: value for key, value in given.items() if os.environ.get(key) != value}
        containers["inherited"] = sorted(given.keys() - containers["environment"].keys())
    request = {
        "id": directory.name,
        "pipeline": pipeline,
        "arguments": arguments,
        "pipeline_root": str(directory / "artifacts"),
        "result": str(directory / "result.json"),
        "containers": containers,
    }
    (directory / "request.json").write_text(json.dumps(request), "utf-8")
    ours = {"TMPDIR": str(directory / "tmp"), "PENSTOCK_CHECKPOINTS": checkpoints, SECONDS_VARIABLE: PROGRESS_SECONDS, RUN: directory.name}
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore", "COLUMNS": "120", **ours}
    now = datetime.now(UTC).isoformat()
    pid, started_as = os.getpid(), process_identity(os.getpid())
    record = LocalRun(id=directory.name, pipeline=pipeline, arguments=arguments, docker=docker, time=now, pid=pid, process=started_as)
    record.save(directory)
    started = time.monotonic()
    follower = _Follower(directory, listener)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.local_runner", str(directory / "request.json")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,
    )
    interrupted = False
    try:
        with raised_at((signal.SIGTERM, signal.SIGHUP), KeyboardInterrupt):  # so that the run's steps are ended too
            assert process.stdout is not None
            follower.follow(process.stdout)
            process.wait()
    except KeyboardInterrupt:
        interrupted = True
        follower.tell("note: stopping; a second Ctrl-C ends it at once")
    finally:
        _end_group(process)
        if docker:
            from pipelines.docker import remove_containers

            remove_containers(directory.name)
        shutil.rmtree(directory / "tmp", ignore_errors=True)
    result = follower.result(interrupted)
    _ended(record, result, time.monotonic() - started).save(directory)
    drop_artifacts(directory.parent)
    return result


def _ended(record: LocalRun, result: RunResult, seconds: float) -> LocalRun:
    status = "interrupted" if result.interrupted else "succeeded" if result.succeeded else "failed"
    steps = [RunStep(name=step.name, state=step.state, seconds=round(step.seconds, 2)) for step in result.steps]
    ended = {"status": status, "seconds": round(seconds, 2), "outcome": result.outputs, "error": result.error, "steps": steps}
    return record.model_copy(update=ended)


class _Follower:
    """Reads the runner's output line by line, copies it to run.log and keeps the state of every step."""

    def __init__(self, directory: Path, listener: Listener) -> None:
        self._directory, self._listener = directory, listener
        self._steps: list[Step] = []
        self._skipped: list[str] = []
        self._ours, self._other = "", ""

    def follow(self, stream: IO[str]) -> None:
        with (self._directory / "run.log").open("a", encoding="utf-8") as log:
            for raw in stream:
                line = kfp_inside.plain(raw)
                if PREFIX not in line:
                    log.write(line)
                    log.flush()
                for event in kfp_inside.events(line.rstrip()):
                    self._read(event)

    def tell(self, text: str) -> None:
        """Show a line of the step that runs."""
        if running := next((step for step in reversed(self._steps) if step.state == "running"), None):
            self._listener("line", running, text)

    def _read(self, event: kfp_inside.Event) -> None:
        match event.kind:
            case "started":
                self._steps.append(Step(event.text, time.monotonic()))
                self._listener("started", self._steps[-1], "")
            case "succeeded" | "failed":
                self._finish(event.text, event.kind == "succeeded")
            case "skipped":
                self._skipped.append(event.text)
                self._listener("skipped", None, event.text)
            case "our_error":
                self._ours = event.text
            case "no_executor":
                self._ours = "kfp is not in the step's image, which is older or none of Penstock's; build both with `make image`"
            case "error":
                self._other = event.text
            case "line":
                self.tell(event.text)

    def _finish(self, name: str, succeeded: bool) -> None:
        step = next(step for step in self._steps if step.name == name and step.state == "running")
        step.state = "succeeded" if succeeded else "failed"
        step.seconds = time.monotonic() - step.started
        if succeeded:
            parameters, step.artifacts = kfp_inside.step_outputs(self._directory / "artifacts", step.name)
            step.figures.update(parameters)
            for artifact in step.artifacts.values():
                step.figures.update({key: value for key, value in artifact["metadata"].items() if isinstance(value, int | float | str)})
        self._listener("finished", step, "" if succeeded else self._cause())

    def _cause(self) -> str:
        return self._ours or self._other

    def result(self, interrupted: bool) -> RunResult:
        path = self._directory / "result.json"
        outputs = json.loads(path.read_text("utf-8"))["outputs"] if path.exists() else None
        for step in self._steps:
            if step.state == "running":
                step.state, step.seconds = "interrupted" if interrupted else "failed", time.monotonic() - step.started
        return RunResult(
            succeeded=outputs is not None and not interrupted,
            outputs=outputs or {},
            steps=self._steps,
            log=self._directory / "run.log",
            directory=self._directory,
            error=self._cause() if outputs is None else "",
            interrupted=interrupted,
            skipped=self._skipped,
        )


def _end_group(process: subprocess.Popen[str]) -> None:
    """End what is left of the runner's session: politely first, then by force: after GRACE_SECONDS, or when told to stop once more."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + GRACE_SECONDS
        with suppress(KeyboardInterrupt), raised_at((signal.SIGTERM, signal.SIGHUP), KeyboardInterrupt):
            while time.monotonic() < deadline and _group_lives(process):
                time.sleep(0.05)
    if process.stdout is not None:
        process.stdout.close()
    process.wait()


def _group_lives(process: subprocess.Popen[str]) -> bool:
    process.poll()  # reaps the leader, which would count as alive otherwise
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
