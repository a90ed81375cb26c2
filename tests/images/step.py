"""The step validate_serving as its container gets it: the compiled command with its inputs, run in an image without Kubeflow around it."""

import json
import subprocess
from pathlib import Path

from components.validate_serving.component import validate_serving
from tests.images import engine
from tests.predictor.versions import NAME

STORE = "/store"
OUTPUTS = "/tmp/outputs"
_NO_ACCOUNT = "123456:0"


def command(version: str, store: str = STORE) -> list[str]:
    """Return the step's command: a shell, its script, the component's source, and the executor's arguments."""
    container = validate_serving.pipeline_spec.deployment_spec["executors"]["exec-validate-serving"]["container"]
    values = {"version": version, "store": store, "name": NAME, "environment": "dev"}
    report = {"name": "report", "type": {"schemaTitle": "system.Markdown"}, "uri": f"{OUTPUTS}/report", "metadata": {}}
    outputs = {
        "parameters": {"Output": {"outputFile": f"{OUTPUTS}/version"}},
        "artifacts": {"report": {"artifacts": [report]}},
        "outputFile": f"{OUTPUTS}/outputs.json",
    }
    given = json.dumps({"inputs": {"parameterValues": values}, "outputs": outputs})
    return [*container["command"], *(argument.replace("{{$}}", given) for argument in container["args"])]


def run(image: str, arguments: list[str], *options: str, network: str = "none") -> subprocess.CompletedProcess[str]:
    """Run the step locked down, as a user without an account, with nothing to write to but /tmp."""
    safe = (*engine.UNPRIVILEGED, "--network", network, "--tmpfs", "/tmp", "--user", _NO_ACCOUNT)
    return engine.attempt("run", "--rm", *safe, *options, "--entrypoint", arguments[0], image, *arguments[1:])


def mount(store: Path) -> tuple[str, str]:
    """The option that lets the container read a store of this machine."""
    return "--volume", f"{store}:{STORE}:ro"
