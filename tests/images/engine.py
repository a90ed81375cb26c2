"""Docker as these tests use it: the client that can build, images built from this tree, containers that are always removed."""

import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
BASE = "python:3.11-slim-bookworm"
CLIENTS = ("docker", "/usr/bin/docker")
UNPRIVILEGED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
LOCKED_DOWN = (*UNPRIVILEGED, "--network", "none")


def reason_to_skip() -> str:
    """Why no image can be built here; empty where one can."""
    if client() is None:
        return "no Docker client that can build (Debian: docker.io)"
    if subprocess.run([client_path(), "info"], capture_output=True).returncode:
        return "no Docker engine answers (.ci/docker-engine starts one)"
    return ""


@cache
def client() -> str | None:
    """The first client that can build: a newer one without its buildx plugin cannot."""
    for it in (os.environ.get("DOCKER", ""), *CLIENTS):
        if it and shutil.which(it) and subprocess.run([it, "build", "--help"], capture_output=True, env=_environment()).returncode == 0:
            return it
    return None


def client_path() -> str:
    found = client()
    assert found is not None
    return found


def _environment() -> dict[str, str]:
    return {**os.environ, "DOCKER_BUILDKIT": "1"}


def attempt(*arguments: str, stdin: str | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a command of the client, whatever comes of it."""
    return subprocess.run([client_path(), *arguments], input=stdin, capture_output=True, text=True, timeout=timeout, env=_environment())


def docker(*arguments: str, stdin: str | None = None, timeout: float = 120, check: bool = True) -> str:
    """Run a command of the client; returns its standard output."""
    ran = attempt(*arguments, stdin=stdin, timeout=timeout)
    assert ran.returncode == 0 or not check, ran.stderr + ran.stdout
    return ran.stdout


def build(target: str, *options: str, context: Path = ROOT, tag: str = "") -> str:
    """Build a target as `make image` does, REGISTRY included; seconds when nothing changed. Returns its tag."""
    tag = tag or f"{os.environ.get('REGISTRY', '')}penstock-{target}:test"
    docker("build", "--network=host", "--target", target, "--tag", tag, *options, str(context), timeout=1500)
    return tag


def inspect(image: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]
    return document


def python(image: str, code: str, *options: str, timeout: float = 120) -> str:
    """Run Python code in a new container of an image."""
    return docker("run", "--rm", "--interactive", *options, "--entrypoint", "python3", image, "-", stdin=code, timeout=timeout)


def started(label: str, since: float) -> Counter[str]:
    """How many containers of each image were started with a label since a time, as the engine remembers (its last 256 events)."""
    span = ("--since", f"{since:.3f}", "--until", f"{time.time():.3f}")
    told = docker("events", *span, "--filter", "event=start", "--filter", f"label={label}", "--format", "{{.ID}} {{.From}}")
    return Counter(line.split()[1] for line in set(told.splitlines()))


@contextmanager
def container(image: str, *arguments: str, options: tuple[str, ...] = ()) -> Iterator[str]:
    """Start a container in the background; yields its id and removes it at the end."""
    it = docker("run", "--detach", *options, image, *arguments).strip()
    try:
        yield it
    finally:
        docker("rm", "--force", it)


def logs(it: str) -> str:
    ran = subprocess.run([client_path(), "logs", it], capture_output=True, text=True)
    return ran.stdout + ran.stderr
