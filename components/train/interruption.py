"""Nothing half-written: outputs appear whole, and a training that is told to stop cleans up behind itself."""

import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


@contextmanager
def finished_or_absent(path: Path) -> Iterator[Path]:
    """Give a folder beside `path` that takes its place when the block ends well, and is removed otherwise.

    What lay at `path` before is replaced. Folders that a killed process left behind are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.unfinished-"
    for left in path.parent.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    working = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    try:
        yield working
        _make_readable(working)
        if path.exists():
            shutil.rmtree(path)
        working.rename(path)
    finally:
        shutil.rmtree(working, ignore_errors=True)


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM, which a stopped pod gets, into an exit that cleans up; Python would die on the spot."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _make_readable(folder: Path) -> None:
    # Temporary folders and safetensors' files are private; the next step may run as another user.
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)
