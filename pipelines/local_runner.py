"""The child process of a local run: one pipeline through kfp's own local runner, its outputs written to a file.

    python -m pipelines.local_runner REQUEST.json

It lives in a session of its own, so that `pipelines.local` can end it with every step that it started.
"""

import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from kfp import local

from components.storage.files import write_file
from pipelines.catalogue import load_pipeline
from pipelines.kfp_inside import container_runner, run_pipeline
from pipelines.parameters import parameter_defaults


def main(request_path: str) -> int:
    """Run what the request names; returns 0 when every step succeeded."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(levelname)s - %(message)s")  # which branches were not taken
    request: dict[str, Any] = json.loads(Path(request_path).read_text("utf-8"))
    pipeline = load_pipeline(request["pipeline"])
    arguments = {**parameter_defaults(pipeline), **request["arguments"]}
    workspace = tempfile.mkdtemp(prefix="workspace-")
    outputs = run_pipeline(pipeline, arguments, request["pipeline_root"], workspace, _runner(request["containers"]), request["id"])
    if outputs is None:
        return 1
    write_file(Path(request["result"]), [json.dumps({"outputs": outputs}, default=str).encode()])
    return 0


def _runner(containers: dict[str, Any] | None) -> Any:
    """Steps as processes of this environment, or with DockerRunner's arguments as containers."""
    if containers is None:
        return local.SubprocessRunner(use_venv=False)
    from pipelines.docker import run_container

    containers["environment"] |= {name: os.environ[name] for name in containers.pop("inherited")}
    return container_runner(containers, run_container)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
