"""Fetching and decoding in threads or in processes, in order and in bounded memory: a few groups of records are under way at a time.

Decoding small pictures is work of Python's interpreter, which runs one thread at a time: there processes do it. They come
from multiprocessing's fork server, which imports what they need once and shares its memory with them. They do not import the caller's
main module, which may be a script without a guard, or kfp's executor.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from types import ModuleType
from typing import Any, TypeVar

from components.classifier.cpu import available_cpus, available_memory
from components.classifier.decode import WORK
from components.classifier.errors import AccessDenied, DataError, ImageError, StoreError, StoreUnavailable, one_line
from components.readers.listing import MAX_FILE_BYTES
from components.readers.records import Encoded

REMOTE_WORKERS = 10
"""Threads where pictures come one by one from a store: most of their time they wait. As many as boto3 keeps connections."""
MIN_PICTURES = 40_000
"""With fewer pictures threads do the work: processes cost one or two seconds of CPU."""
PROCESS_BYTES = 2**28
"""Memory that one process is reckoned with: Python, Pillow, and a few groups of pictures."""

Group = TypeVar("Group")
Result = TypeVar("Result")


def in_order(pool: Executor, groups: Iterable[Group], work: Callable[[Group], Result], ahead: int | Callable[[], int]) -> Iterator[Result]:
    """Yield what `work` makes of each group, in the order of the groups; so many of them are under way beside the first, at a time.

    Raises what `work` and `groups` raise; what is then still waiting is never started.
    """
    under_way: deque[Future[Result]] = deque()
    try:
        for group in groups:
            under_way.append(pool.submit(work, group))
            while len(under_way) > (ahead() if callable(ahead) else ahead):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for future in under_way:
            future.cancel()


def load(record: Encoded) -> bytes:
    """Fetch a picture's bytes.

    Raises ImageError with the reason why this picture cannot be read, and StoreUnavailable or AccessDenied, which say nothing
    about this picture.
    """
    if record.size > MAX_FILE_BYTES:
        raise ImageError(f"the file has {record.size} bytes, more than the limit of {MAX_FILE_BYTES}")
    try:
        return record.load()
    except (StoreUnavailable, AccessDenied):
        raise
    except (OSError, StoreError) as error:
        raise ImageError(f"cannot be read ({(isinstance(error, OSError) and error.strerror) or one_line(error)})") from error


def processes_for(pictures: int, process_bytes: int = PROCESS_BYTES, *most: int) -> int:
    """How many processes so many pictures are worth: as many as CPUs and memory allow, and each of `most`; or one, which is this process.

    `process_bytes`: the memory that one process is reckoned with.
    """
    return 1 if pictures < MIN_PICTURES else max(1, min(available_cpus(), available_memory() // process_bytes, *most))


def prepare(processes: int, modules: Sequence[str]) -> None:
    """Let the fork server import `modules` while this process goes on, where there will be work for several processes."""
    if processes > 1:
        _Context().set_forkserver_preload(list(modules))
        forkserver.ensure_running()


def process_pool(processes: int, modules: Sequence[str] = (), interruptible: bool = False) -> ProcessPoolExecutor:
    """Return a pool of processes that share this one's environment and budget of work, and end when it ends.

    `modules` are what all work of this process needs: the fork server imports them once, if it does not run yet.
    `interruptible`: Ctrl-C ends what they do at once, which is for long work; else they end with what they have begun.
    """
    context = _Context()
    context.set_forkserver_preload(list(modules))
    begin = (dict(os.environ), context.Condition(), context.RawArray("q", 1), interruptible)
    return ProcessPoolExecutor(processes, context, _begin, begin)


def in_processes(groups: Iterable[Group], work: Callable[[Group], Result], processes: int, modules: Sequence[str] = ()) -> Iterator[Result]:
    """Yield what `work` makes of each group, in their order; `work` and the groups are pickled.

    Raises what `work` and `groups` raise, and DataError when one of the processes is ended from outside.
    """
    pool = process_pool(processes, modules)
    try:
        yield from in_order(pool, groups, work, processes + 2)
    except BrokenProcessPool as error:
        raise DataError(
            "a process that reads pictures was ended from outside, probably for its memory; give the step more memory, or fewer CPUs"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this process when its parent is gone, killed included: work that nobody waits for should not use the CPU."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_wait_for_end, args=(parent.sentinel,), daemon=True).start()


def _wait_for_end(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _begin(environment: dict[str, str], changed: Any, used: Any, interruptible: bool) -> None:
    os.environ.update(environment)  # the fork server's is that of the first use
    WORK.share(changed, used)
    if not interruptible:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent too, which ends this process
    _end_with_parent()


class _Process(ForkServerProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _without_main():
            return ForkServerProcess._Popen(process_obj)


class _Context(ForkServerContext):
    Process = _Process


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main module, so that multiprocessing does not import it in the process that it starts."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
