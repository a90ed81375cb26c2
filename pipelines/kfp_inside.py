"""All that depends on how kfp works inside, its local runner above all, and may change with its next release.

kfp offers no events, no outputs of single steps, and a container runner that takes a step which is gone for one that
succeeded. So its log is read line by line, its executor's output files are read, and its container function is replaced.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from components.classifier.errors import UsageError
from components.classifier.progress import PREFIX

_COLOUR = re.compile(r"\x1b\[\d+m")
_EVENTS: dict[str, re.Pattern[str]] = {
    "started": re.compile(r"INFO - Executing task '(?P<name>[^']+)'"),
    "succeeded": re.compile(r"INFO - Task '(?P<name>[^']+)' finished with status SUCCESS"),
    "failed": re.compile(r"ERROR - Task '(?P<name>[^']+)' finished with status FAILURE"),
    "skipped": re.compile(r"Skipping conditional task (?P<name>\S+)"),
    "our_error": re.compile(r"^\s*components\.(?:classifier\.errors|deploy(?:\.\w+)+)\.\w+: (?P<name>.+)"),
    "no_executor": re.compile(r"(?P<name>Error while finding module specification for 'kfp\b)"),
    "error": re.compile(r"^\s*(?P<name>(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit)\b.*)"),
}
_INDENT = "    "
"""How kfp begins the lines that a step prints: further in, or not at all, where several steps run beside each other."""
_ALWAYS = ("note: ", "warning: ", PREFIX)
"""How a step begins lines that count wherever they stand."""
_OWN_LINE = "[KFP Executor"

Kind = Literal["started", "succeeded", "failed", "skipped", "our_error", "no_executor", "error", "line"]


@dataclass(frozen=True)
class Event:
    """One line of the log: what it tells, and of which task, or which text."""

    kind: Kind
    text: str


def name_callers_cheaply() -> None:
    """Let kfp find the name of a calling method, for an error message, without reading the source of the whole call stack.

    It calls `inspect.stack()` whenever a resource is set, which took nine tenths of the time of importing the pipelines.
    """
    from kfp.dsl import pipeline_task

    def stack() -> list[tuple[None, None, None, str]]:
        asking = sys._getframe(1)
        calling = asking.f_back or asking
        return [(None, None, None, asking.f_code.co_name), (None, None, None, calling.f_code.co_name)]

    pipeline_task.inspect = SimpleNamespace(stack=stack)


def plain(raw: str) -> str:
    """Return a line of the log without colours."""
    return _COLOUR.sub("", raw)


def events(line: str) -> Iterator[Event]:
    """Return what a line of the log tells: a task's start or end, a branch not taken, a cause, or a line that a step prints."""
    for kind, pattern in _EVENTS.items():
        if found := pattern.search(line):
            yield Event(kind, found["name"])  # type: ignore[arg-type]  # the keys are the kinds
            break
    text = line.strip()
    if (line.startswith(_INDENT) and _OWN_LINE not in line) or text.startswith(_ALWAYS):
        yield Event("line", text)


def step_outputs(pipeline_root: Path, task: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return what a task returned: its parameters by name, and its artifacts' `uri` and `metadata` by name."""
    parameters: dict[str, Any] = {}
    artifacts: dict[str, dict[str, Any]] = {}
    for path in pipeline_root.glob(f"*/{task}/executor_output.json"):
        raw = json.loads(path.read_text("utf-8"))
        parameters |= raw.get("parameterValues", {})
        for name, listed in raw.get("artifacts", {}).items():
            for artifact in listed["artifacts"]:
                artifacts[name] = {"uri": artifact["uri"], "metadata": artifact["metadata"]}
    return parameters, artifacts


def run_pipeline(
    pipeline: Any, arguments: dict[str, Any], pipeline_root: str, workspace_root: str, runner: Any, run_id: str
) -> dict[str, Any] | None:
    """Run a pipeline by kfp's local runner without its retries; returns its outputs, or None when a step failed.

    Steps that ask for the run's ID get `run_id`; by itself kfp gives them eight random digits. Retries answer lost
    pods. On one machine there are none, and repeating a wrong parameter would only make it slow.
    """
    from kfp import dsl, local
    from kfp.local import pipeline_orchestrator
    from kfp.pipeline_spec import pipeline_spec_pb2

    local.init(runner, pipeline_root=pipeline_root, workspace_root=workspace_root, raise_on_error=True)
    copy = pipeline_spec_pb2.PipelineSpec()
    copy.CopyFrom(pipeline.pipeline_spec)
    for component in [copy.root, *copy.components.values()]:
        for task in component.dag.tasks.values():
            task.ClearField("retry_policy")
            for given in task.inputs.parameters.values():
                if given.runtime_value.constant.string_value == dsl.PIPELINE_JOB_ID_PLACEHOLDER:
                    given.runtime_value.constant.string_value = run_id
    try:
        outputs: dict[str, Any] = pipeline_orchestrator.run_local_pipeline(copy, arguments)
    except RuntimeError as error:  # how kfp says that a step failed; the step's own output holds the cause
        print(f"run failed: {error}")
        return None
    return outputs


def add_plugins(client: Any, plugins: Mapping[str, Any]) -> list[Any]:
    """Let the runs, and recurring runs, that a client of kfp creates carry `plugins_input`, for which its own functions have no argument.

    Returns a list to which the server's answers are added. A server older than 2.17 passes the field over.
    """
    answers: list[Any] = []

    def carrying(create: Callable[..., Any], name: str) -> Callable[..., Any]:
        def send(**arguments: Any) -> Any:
            arguments[name].plugins_input = dict(plugins)
            answers.append(create(**arguments))
            return answers[-1]

        return send

    runs, recurring = client._run_api, client._recurring_run_api
    runs.run_service_create_run = carrying(runs.run_service_create_run, "run")
    create = recurring.recurring_run_service_create_recurring_run
    recurring.recurring_run_service_create_recurring_run = carrying(create, "recurring_run")
    return answers


def container_runner(arguments: dict[str, Any], run_container: Callable[..., int]) -> Any:
    """Return kfp's DockerRunner whose containers are run by `run_container`, in place of kfp's function of this kind.

    Raises UsageError when this kfp has no such function.
    """
    from kfp import local
    from kfp.local import docker_task_handler

    if not hasattr(docker_task_handler, "run_docker_container"):
        raise UsageError("this kfp runs containers in another way; install the release that constraints.txt names")
    docker_task_handler.run_docker_container = run_container
    return local.DockerRunner(**arguments)
