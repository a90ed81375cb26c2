"""A server as a process tree: installed, started until it answers, measured, stopped."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.peers import SERVERS, Peer

REPOSITORY = Path(__file__).parents[2]
_START_LIMIT_S = 120
_POLL_S = 0.02


class BenchmarkError(Exception):
    """A peer that cannot be installed, does not start, or answers wrongly: no number is better than a wrong one."""


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    url: str
    pid: int
    seconds_to_ready: float

    def memory(self) -> tuple[float, float]:
        """(RSS, PSS) of the process and its children in MB; PSS counts a page that several share once."""
        rolls = [_read(f"/proc/{pid}/smaps_rollup") for pid in _tree(self.pid)]
        return sum(_kilobytes(roll, "Rss") for roll in rolls) / 1000, sum(_kilobytes(roll, "Pss") for roll in rolls) / 1000


def cpu_seconds(pid: int) -> float:
    """CPU time that a process and its children have used so far."""
    ticks = 0
    for number in _tree(pid):
        fields = _read(f"/proc/{number}/stat").rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:13]))  # utime and stime: proc_pid_stat(5)
    return ticks / os.sysconf("SC_CLK_TCK")


def install(peer: Peer, cache: Path) -> Path:
    """Make the peer's own environment, once for these pins; returns its bin folder."""
    if not peer.requirements:
        return Path(sys.executable).parent
    venv = cache / re.sub(r"[^a-z0-9]+", "-", peer.name.lower())
    mark = venv / "requirements.txt"
    wanted = "\n".join(peer.requirements) + "\n"
    if not mark.exists() or mark.read_text() != wanted:
        print(f"installing {peer.name} into {venv}", file=sys.stderr)
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(venv)],
            [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.requirements],
        ):
            if subprocess.run(command, check=False).returncode != 0:
                raise BenchmarkError(f"{peer.name} cannot be installed: {' '.join(command)}")
        mark.write_text(wanted)
    return venv / "bin"


@contextmanager
def serve(peer: Peer, binaries: Path, model: Path, work: Path) -> Iterator[Running]:
    """Start a peer on free ports, wait until it is ready, and end its process group afterwards."""
    work.mkdir(parents=True, exist_ok=True)
    port, port2 = _free_port(), _free_port()
    names = {"python": str(binaries / "python"), "bin": str(binaries), "port": str(port), "model": str(model), "work": str(work)}
    for name, text in peer.files.items():
        (work / name).write_text(text.replace('"{port}"', str(port)).replace('"{port2}"', str(port2)))
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("PENSTOCK_", "VIRTUAL_ENV"))},
        **{"OMP_NUM_THREADS": "1", "BENCH_PORT": str(port), "BENCH_MODEL": str(model)},
        **{"PYTHONPATH": str(SERVERS if peer.requirements else REPOSITORY), "PATH": f"{binaries}:{os.environ['PATH']}"},
        **peer.environment,
    }
    with (work / "log.txt").open("w") as log:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [part.format(**names) for part in peer.command],
            cwd=work,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _await_ready(process, url + peer.ready, peer.name, work / "log.txt")
            yield Running(url, process.pid, time.perf_counter() - begun)
        finally:
            _stop(process)


def _await_ready(process: "subprocess.Popen[bytes]", url: str, name: str, log: Path) -> None:
    end = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise BenchmarkError(f"{name} ended with {process.returncode}: {log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_S)
    raise BenchmarkError(f"{name} was not ready after {_START_LIMIT_S} s: {log.read_text()[-2000:]}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    for number, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _tree(pid: int) -> list[int]:
    children = [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in _read(str(task)).split()]
    return [pid, *(below for child in children for below in _tree(child))]


def _kilobytes(roll: str, name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB$", roll, re.MULTILINE)
    return int(match[1]) if match else 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:  # the process ended in the meantime
        return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
