"""A local run in containers: what kfp's DockerRunner is told, and what it leaves undone.

The steps see the same paths, network and S3 settings as without containers, and run as the user who started them, so that
what they write is that user's. Nothing else of the machine is in their reach: a read-only root, no capabilities.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.classifier.errors import UsageError
from components.storage.files import user_path
from pipelines.catalogue import load_pipeline
from pipelines.compile import images_of

LABEL = "penstock.run"
"""Marks a run's containers, so that an interrupted run finds them: they are the engine's children, not ours."""

_READ = ("source", "input", "environment")
_WRITTEN = ("store", "output")
"""Parameters that may be paths of this machine."""
_EXTRA = "extra_training_source"
"""A setting of ingest that may be one too."""
_PASSED_ON = (
    "AWS_",
    "PENSTOCK_S3_",
    "PENSTOCK_SIGNING_",
    "PENSTOCK_VERIFY_",
    "PENSTOCK_ENVIRONMENT",
    "PENSTOCK_MODEL_REGISTRY",
    "PENSTOCK_WEBHOOK_URL",
    "PENSTOCK_KFP_UI",
    "OPENLINEAGE_",
    "MLFLOW_",
    "OMP_",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
"""Prefixes of the environment variables that steps read; a value that is a path is mounted too."""
_KEYS = ("PENSTOCK_SIGNING_KEY", "PENSTOCK_VERIFY_KEY")
_SHARED_MEMORY = "2g"


def check_engine(pipeline: str) -> None:
    """Raise UsageError when no engine answers or an image of the pipeline's steps is not there."""
    import docker

    images = images_of(load_pipeline(pipeline))
    try:
        client = docker.from_env()
        try:
            for variable, image in images.items():
                _find_image(client, variable, image)
        finally:
            client.close()
    except docker.errors.DockerException as error:
        raise UsageError(
            "no Docker engine answers; start it, see that you may use /var/run/docker.sock, or point DOCKER_HOST to it"
        ) from error


def _find_image(client: Any, variable: str, image: str) -> None:
    import docker

    try:
        client.images.get(image)
    except docker.errors.ImageNotFound as error:
        raise UsageError(
            f"there is no image {image} on this machine; build it with `make image`, or pull another and name it by {variable}"
        ) from error


def in_containers(arguments: Mapping[str, Any], directory: Path, checkpoints: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Prepare a run for containers; returns its arguments with absolute paths, and the arguments of kfp's DockerRunner.

    `directory`: the run's own, whose `tmp` becomes the steps' temporary folder. `checkpoints`: a directory or a store's address.
    """
    absolute = {key: _absolute(key, value) if key in _READ + _WRITTEN else value for key, value in arguments.items()}
    read = [absolute.get(key, "") for key in _READ]
    if extra := arguments.get("ingest", {}).get(_EXTRA):
        absolute["ingest"] = {**arguments["ingest"], _EXTRA: _absolute(_EXTRA, extra)}
        read.append(absolute["ingest"][_EXTRA])
    environment = {key: value for key, value in os.environ.items() if key.startswith(_PASSED_ON)}
    environment |= {key: _absolute(key, environment[key]) for key in _KEYS if key in environment}
    mounts = {str(directory / "tmp"): False}  # path -> read only
    mounts |= {value: True for value in read if _is_path(value) and Path(value).exists()}
    for written in filter(_is_path, (absolute.get(key, "") for key in _WRITTEN)):
        Path(written).mkdir(parents=True, exist_ok=True)
        mounts[written] = False
    environment["PENSTOCK_CHECKPOINTS"] = checkpoints
    for key, folder, read_only in _folders(checkpoints):
        environment[key] = str(folder)
        mounts[str(folder)] = read_only
    mounts |= {value: True for value in environment.values() if _is_path(value) and value not in mounts and Path(value).exists()}
    gpus = str(arguments.get("gpus", "0"))
    return absolute, {
        "mounts": [{"Type": "bind", "Source": path, "Target": path, "ReadOnly": read_only} for path, read_only in mounts.items()],
        "environment": {**environment, "TMPDIR": str(directory / "tmp")},
        "user": f"{os.getuid()}:{os.getgid()}",
        "network_mode": "host",  # an S3 server on this machine is reached by the same address
        "shm_size": _SHARED_MEMORY,
        "tmpfs": {"/tmp": "mode=1777"},  # HOME
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "labels": {LABEL: directory.name},
        **({"device_requests": [{"count": int(gpus), "capabilities": [["gpu"]]}]} if gpus not in {"", "0"} else {}),
    }


def _absolute(key: str, value: Any) -> Any:
    """A local path in full, without `~`; names such as digits, addresses and the rest as they are."""
    if not isinstance(value, str) or not value or "://" in value or value in _names():
        return value
    path = user_path(value)
    return str(path.absolute()) if key in _WRITTEN or path.exists() else value


def _names() -> set[str]:
    from components.bundle.environment import environment_names
    from components.settings.ingest import NAMED_SOURCES

    return {*NAMED_SOURCES, *environment_names(), "golden"}


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/")


def _folders(checkpoints: str) -> Iterator[tuple[str, Path, bool]]:
    """Folders of the user that steps read by a variable: (variable, folder, read only)."""
    from components.ingest.published import cache_folder

    datasets = cache_folder().absolute()
    datasets.mkdir(parents=True, exist_ok=True)  # a mount must be there
    yield "PENSTOCK_CACHE", datasets, False
    weights = Path(os.environ.get("TORCH_HOME") or Path.home() / ".cache/torch")
    if weights.is_dir():
        yield "TORCH_HOME", weights.absolute(), True
    for variable, name in (("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")):
        file = Path.home() / ".aws" / name
        if variable not in os.environ and file.is_file():
            yield variable, file, True
    if "://" not in checkpoints:
        Path(checkpoints).mkdir(parents=True, exist_ok=True)
        yield "PENSTOCK_CHECKPOINTS", Path(checkpoints).absolute(), False


def run_container(client: Any, image: str, command: list[str], volumes: dict[str, Any], **arguments: Any) -> int:
    """Run one step, print its lines, and return its exit code.

    Takes the place of kfp's function of this kind, which lets the engine remove the container at its end and takes one that is
    gone already for one that succeeded: a step that failed quickly would pass. As on a cluster, the command replaces what the
    image starts by itself (the predictor's would serve), and nobody asks for its health.
    """
    own = {"entrypoint": command[:1], "command": command[1:], "healthcheck": {"test": ["NONE"]}}
    container = client.containers.run(image=image, volumes=volumes, detach=True, **own, **arguments)
    try:
        rest = b""
        for chunk in container.logs(stream=True, follow=True):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                print(line.decode("utf-8", "replace"))
        if rest:
            print(rest.decode("utf-8", "replace"))
        return int(container.wait()["StatusCode"])
    finally:
        container.remove(force=True)


def remove_containers(run: str) -> None:
    """Remove what an interrupted run left; `run` is the name of its directory."""
    import docker

    client = docker.from_env()
    try:
        for container in client.containers.list(all=True, filters={"label": f"{LABEL}={run}"}):
            container.remove(force=True)
    finally:
        client.close()
