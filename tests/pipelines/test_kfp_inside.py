"""What we know about kfp's inside still holds: its log, its executor's files, and the function that runs a container."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from kfp import dsl
from kfp.local import docker_task_handler

from pipelines.docker import run_container
from pipelines.kfp_inside import Event, events, name_callers_cheaply, plain, step_outputs
from tests.pipelines.runs import ROOT, environment

PIPELINE = """
import json, logging, sys
from kfp import dsl, local
from pipelines.kfp_inside import run_pipeline
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(levelname)s - %(message)s")

@dsl.component
def speak(words: str, note: dsl.Output[dsl.Artifact]) -> str:
    from components.classifier.errors import DataError
    print(f"I say {words}")
    note.metadata["length"] = len(words)
    if words == "nothing":
        raise DataError("there is nothing to say; give words")
    return words

@dsl.pipeline
def talk(words: str = "hello"):
    said = speak(words=words)
    said.set_caching_options(False)
    said.set_retry(num_retries=2)
    with dsl.If(said.outputs["Output"] == "hello", name="greeted"):
        speak(words="welcome")
    with dsl.Else(name="ignored"):
        speak(words="goodbye")

outputs = run_pipeline(talk, {"words": sys.argv[1]}, sys.argv[2], sys.argv[3], local.SubprocessRunner(use_venv=False), "run-7")
print("outputs", json.dumps(outputs))
"""


def talk(words: str, tmp_path: Path) -> list[Event]:
    """Run the pipeline as local runs do; returns what its log tells."""
    (tmp_path / "talk.py").write_text(PIPELINE)  # kfp reads a component's source from its file
    ran = subprocess.run(
        [sys.executable, str(tmp_path / "talk.py"), words, str(tmp_path / "root"), str(tmp_path / "workspace")],
        env={**environment(), "PYTHONPATH": str(ROOT), "COLUMNS": "120", "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    return [event for line in ran.stdout.splitlines() for event in events(plain(line))]


def told(found: list[Event], *kinds: str) -> list[tuple[str, str]]:
    return [(event.kind, event.text) for event in found if event.kind in kinds]


def test_starts_ends_and_the_branch_not_taken_are_read_from_the_log(tmp_path: Path) -> None:
    found = talk("hello", tmp_path)
    steps = told(found, "started", "succeeded", "failed", "skipped")
    assert [step for step in steps if step[0] != "skipped"] == [
        ("started", "speak"),
        ("succeeded", "speak"),
        ("started", "speak-2"),
        ("succeeded", "speak-2"),
    ]
    assert len(told(found, "skipped")) == 1
    assert ("line", "I say hello") in told(found, "line")
    parameters, artifacts = step_outputs(tmp_path / "root", "speak")
    assert parameters == {"Output": "hello"}
    assert artifacts["note"]["metadata"]["length"] == 5


def test_a_step_that_fails_is_run_once_and_its_cause_is_found(tmp_path: Path) -> None:
    found = talk("nothing", tmp_path)
    assert told(found, "started", "succeeded", "failed") == [("started", "speak"), ("failed", "speak")]
    assert ("our_error", "there is nothing to say; give words") in told(found, "our_error")


def test_kfp_calls_the_container_function_as_ours_is_called() -> None:
    assert hasattr(docker_task_handler, "run_docker_container")
    kfps = inspect.signature(docker_task_handler.run_docker_container).parameters
    ours = inspect.signature(run_container).parameters
    assert list(kfps)[:4] == list(ours)[:4] == ["client", "image", "command", "volumes"]
    assert "run_docker_container(" in inspect.getsource(docker_task_handler.DockerTaskHandler.run)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ModuleNotFoundError: no module", [("error", "ModuleNotFoundError: no module")]),
        ("    [KFP Executor 2026 INFO]: --component_module_path", []),
        ("    epoch 1: loss 0.3", [("line", "epoch 1: loss 0.3")]),
        ("12:00:00.000 - INFO - Streaming something", []),
    ],
)
def test_lines_that_tell_of_no_step(line: str, expected: list[tuple[str, str]]) -> None:
    assert [(event.kind, event.text) for event in events(line)] == expected


def test_a_method_that_a_step_cannot_have_is_still_named() -> None:
    name_callers_cheaply()

    @dsl.pipeline
    def inner() -> None:
        dsl.importer("gs://x", dsl.Model)

    with pytest.raises(ValueError, match="set_cpu_limit can only be used on single-step components"):

        @dsl.pipeline
        def outer() -> None:
            inner().set_cpu_limit("1")
