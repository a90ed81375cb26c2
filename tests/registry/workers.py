"""What the tests' other processes do: publish and append, and die in the middle of it."""

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from components.registry import Record, Registry
from components.registry.publication import publish_directory
from components.storage import open_store

_STEPS = {
    "open",
    "os.mkdir",
    "os.link",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "shutil.copyfile",
    "os.listdir",
    "os.scandir",
    "http.client.send",
}


def context() -> ForkServerContext:
    """Processes that start quickly, with our modules loaded, and share nothing with the test's process."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["components.registry", "components.storage.s3", "tests.registry.workers"])
    return made


def run(target: Callable[..., None], *arguments: Any) -> int:
    """Run a function in a process of its own; returns the exit code, -9 when it was killed."""
    process = context().Process(target=_with_environment, args=(dict(os.environ), target, *arguments))
    process.start()
    process.join(120)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode


def publish_and_die(address: str, directory: str, step: int) -> None:
    """Publish, and be killed at the `step`-th thing that the process does to a file or says to a server; exit code 0 when it has fewer."""
    registry = Registry(open_store(address), "digits")
    done = 0

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        if event in _STEPS and (event != "open" or _ours(arguments, address)):
            done += 1
            if done == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)
    publish_directory(registry, Path(directory), run="killed")


def append_and_die(address: str, step: int) -> None:
    """Append one record, and be killed at the `step`-th step."""
    ledger = Registry(open_store(address), "digits").ledger
    done = 0

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        if event in _STEPS and (event != "open" or _ours(arguments, address)):
            done += 1
            if done == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)
    ledger.append(Record(action="deployed", version="1", strategy="force", run="the run"))


def publish_in_rounds(number: int, address: str, folder: str, rounds: int, barrier: Any, results: Any) -> None:
    """In each round publish what everybody publishes, then something of one's own."""
    registry = Registry(open_store(address), "digits")
    for turn in range(rounds):
        barrier.wait(300)
        same = publish_directory(registry, Path(folder, f"same{turn}"), run=str(number)).version
        own = publish_directory(registry, Path(folder, f"own{number}-{turn}"), run=str(number)).version
        results.put((turn, number, same, own))


def append_in_rounds(number: int, address: str, rounds: int, barrier: Any, results: Any) -> None:
    """In each round append one record."""
    ledger = Registry(open_store(address), "digits").ledger
    for turn in range(rounds):
        barrier.wait(300)
        record = ledger.append(Record(action="deployed", version=f"{turn}-{number}", strategy="force"))
        results.put((record.sequence, record.version))


def all_at_once(target: Callable[..., None], processes: int, results: int, *arguments: Any) -> list[Any]:
    """Run a function in many processes, which meet at a barrier; returns what they put into the queue, raises what one raised."""
    made = context()
    barrier, queue = made.Barrier(processes), made.Queue()
    started = [
        made.Process(target=_relaying, args=(dict(os.environ), queue, target, number, *arguments, barrier, queue), daemon=True)
        for number in range(processes)
    ]
    for process in started:
        process.start()
    found: list[Any] = []
    try:
        while len(found) < results:
            found.append(queue.get(timeout=300))
            if isinstance(found[-1], str) and found[-1].startswith("Traceback"):
                raise AssertionError(found[-1])
    finally:
        for process in started:
            process.join(5 if len(found) == results else 0)
            process.kill()
    return found


def _relaying(environment: dict[str, str], queue: Any, *target: Any) -> None:
    try:
        _with_environment(environment, *target)
    except BaseException:
        queue.put(traceback.format_exc())
        raise


def _with_environment(environment: dict[str, str], target: Callable[..., None], *arguments: Any) -> None:
    os.environ.clear()  # the fork server has the environment of the first test
    os.environ.update(environment)
    target(*arguments)


def _ours(arguments: tuple[Any, ...], address: str) -> bool:
    return isinstance(arguments[0], str | os.PathLike) and os.fspath(arguments[0]).startswith(address)
