"""The child process of a local run: one pipeline through kfp's own local runner, its outputs written to a file.

    python -m pipelines.local_runner REQUEST.json

It lives in a session of its own, so that `pipelines.local` can end it with every step that it started.
"""

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from kfp import local
from kfp.local import pipeline_orchestrator
from kfp.pipeline_spec import pipeline_spec_pb2

from pipelines.catalogue import load_pipeline


def without_retries(spec: pipeline_spec_pb2.PipelineSpec) -> pipeline_spec_pb2.PipelineSpec:
    """Copy a pipeline's specification without its retries.

    Retries answer lost pods. On one machine there are none, and repeating a wrong parameter would only make it slow.
    """
    copy = pipeline_spec_pb2.PipelineSpec()
    copy.CopyFrom(spec)
    for component in [copy.root, *copy.components.values()]:
        for task in component.dag.tasks.values():
            task.ClearField("retry_policy")
    return copy


def main(request_path: str) -> int:
    """Run what the request names; returns 0 when every step succeeded."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(levelname)s - %(message)s")  # which branches were not taken
    request: dict[str, Any] = json.loads(Path(request_path).read_text("utf-8"))
    local.init(
        _runner(request["containers"]),
        pipeline_root=request["pipeline_root"],
        workspace_root=tempfile.mkdtemp(prefix="workspace-"),
        raise_on_error=True,
    )
    pipeline = load_pipeline(request["pipeline"])
    arguments = {**pipeline_defaults(pipeline), **request["arguments"]}
    try:
        outputs = pipeline_orchestrator.run_local_pipeline(without_retries(pipeline.pipeline_spec), arguments)
    except RuntimeError as error:  # how kfp says that a step failed; the step's own output holds the cause
        print(f"run failed: {error}")
        return 1
    result = Path(request["result"])
    result.with_suffix(".part").write_text(json.dumps({"outputs": outputs}, default=str), "utf-8")
    result.with_suffix(".part").replace(result)
    return 0


def _runner(containers: dict[str, Any] | None) -> Any:
    """Steps as processes of this environment, or with DockerRunner's arguments as containers."""
    if containers is None:
        return local.SubprocessRunner(use_venv=False)
    from kfp.local import docker_task_handler

    from pipelines.docker import run_container

    docker_task_handler.run_docker_container = run_container
    return local.DockerRunner(**containers)


def pipeline_defaults(pipeline: Any) -> dict[str, Any]:
    """Default values of a pipeline's parameters by name."""
    inputs = pipeline.component_spec.inputs or {}
    return {name: spec.default for name, spec in inputs.items() if spec.optional}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
