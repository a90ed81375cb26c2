"""Real S3 servers for the tests, each started as a process of its own and stopped with the test session.

| server | what it is here for | where it comes from |
|---|---|---|
| ministack | a quick server with the right semantics | PyPI, in a virtual environment of its own |
| Ceph RGW | a server that people run in production | Debian: radosgw ceph-mon ceph-osd |
| s3rver | the hostile one: it ignores conditions | npm |
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

MINISTACK, S3RVER = "1.5.33", "3.7.1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "penstock-tests"
BUCKET = "penstock-tests"


@dataclass(frozen=True)
class Server:
    """A running server and the keys of a user of it."""

    endpoint: str
    access_key: str = "penstock"
    secret_key: str = "penstock-secret"
    pid: int = 0
    extra: dict[str, str] = field(default_factory=dict)
    guest: "Server | None" = None
    """The same server for a user who has no rights of its own."""

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        keys = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_EC2_METADATA_DISABLED": "true", **keys, **self.extra}

    def client(self) -> Any:
        """A plain boto3 client, to look behind the store's back."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(
                s3={"addressing_style": "path"},
                retries={"mode": "standard", "total_max_attempts": 3},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def make_bucket(self, name: str = BUCKET) -> str:
        """Create a bucket and return its name."""
        self.client().create_bucket(Bucket=name)
        return name


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def process(command: list[str], port: int, log: Path, *, environment: dict[str, str] | None = None, seconds: float = 60) -> Iterator[int]:
    """Run a server until it listens; end it, and all that it started, afterwards."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        # The environment of a test holds the keys of the server under test; another server must not see them.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        running = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**inherited, **(environment or {})},
        )
    try:
        wait_for(lambda: _listens(port) or _ended(running, command, log), seconds, f"{command[0]} did not listen on port {port}; see {log}")
        yield running.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGTERM)
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def wait_for(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(otherwise)
        time.sleep(0.05)


@contextmanager
def ministack(folder: Path, bind: str = "127.0.0.1") -> Iterator[Server]:
    """Start ministack with an administrator whose secret is checked; what it holds survives in `folder`."""
    port = free_port()
    environment = {
        "AUTH": "true", "BIND_HOST": bind, "SERVICES": "s3,iam,sts", "GATEWAY_PORT": str(port), "S3_PERSIST": "1",
        "S3_DATA_DIR": str(folder / "data"), "STATE_DIR": str(folder / "state"), "LOG_LEVEL": "ERROR",
    }  # fmt: skip
    with process([str(_ministack_program())], port, folder / "ministack.log", environment=environment) as pid:
        yield Server(f"http://127.0.0.1:{port}", "test", "test", pid)


def _ministack_program() -> Path:
    home = CACHE / f"ministack-{MINISTACK}"
    program = home / "bin" / "ministack"
    with _only_one("ministack"):
        if not program.exists():
            shutil.rmtree(home, ignore_errors=True)
            _install([sys.executable, "-m", "venv", str(home)], "python3-venv")
            _install([str(home / "bin" / "pip"), "install", "--quiet", f"ministack=={MINISTACK}"], "access to PyPI")
    return program


@contextmanager
def s3rver(folder: Path) -> Iterator[Server]:
    """Start s3rver, which ignores If-None-Match."""
    port, program = free_port(), _s3rver_program()
    command = ["node", str(program), "--directory", str(folder / "data"), "--address", "127.0.0.1", "--port", str(port), "--silent"]
    (folder / "data").mkdir(parents=True)
    with process(command, port, folder / "s3rver.log") as pid:
        yield Server(f"http://127.0.0.1:{port}", "S3RVER", "S3RVER", pid)


def _s3rver_program() -> Path:
    home = CACHE / f"s3rver-{S3RVER}"
    program = home / "node_modules" / "s3rver" / "bin" / "s3rver.js"
    with _only_one("s3rver"):
        if not program.exists():
            home.mkdir(parents=True, exist_ok=True)
            _install(
                ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(home), f"s3rver@{S3RVER}"],
                "node, npm and access to the npm registry",
            )
    return program


def _install(command: list[str], needs: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", b"") or b""
        raise AssertionError(
            f"`{' '.join(command)}` failed; the tests need {needs}. {error} {said.decode(errors='replace')[-500:]}"
        ) from error


@contextmanager
def _only_one(name: str) -> Iterator[None]:
    """Let one test process at a time install a server."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _ended(running: subprocess.Popen[bytes], command: list[str], log: Path) -> bool:
    if running.poll() is not None:
        raise AssertionError(f"{command[0]} ended with {running.returncode}: {log.read_text(errors='replace')[-1000:]}")
    return False
