"""The predictor as a child process: started, waited for, measured, and always stopped."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from components.classifier.errors import ServingError

_POLL_SECONDS = 0.02
_STOP_SECONDS = 10


@dataclass(frozen=True)
class Started:
    """A predictor that is ready: its address, and seconds from the start of the process until then."""

    url: str
    cold_start: float


class PredictorProcess:
    """`python -m components.predictor` on a free port of this machine; a context manager that ends the process."""

    def __init__(self, name: str, model_dir: Path, *options: str) -> None:
        self._command = [
            *(sys.executable, "-m", "components.predictor", "--model_name", name, "--model_dir", str(model_dir)),
            *("--http_port", "0", "--host", "127.0.0.1", "--stop_with_parent", "true", *options),
        ]
        self._log = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - lives as long as the process, closed in __exit__
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0

    def __enter__(self) -> Self:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PENSTOCK_")}
        self._began = time.monotonic()
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, env=environment)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self._log.close()

    def wait(self, timeout: float) -> Started:
        """Wait until the model answers; raises ServingError with the predictor's own reason if it ends or takes too long."""
        deadline = self._began + timeout
        process = self.process
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServingError(f"the predictor ended with exit code {process.returncode}: {self._reason()}")
            events = {event.get("event"): event for event in self.events()}
            if "serving" in events and "listening" in events:
                return Started(f"http://127.0.0.1:{events['listening']['port']}", time.monotonic() - self._began)
            time.sleep(_POLL_SECONDS)
        raise ServingError(f"the predictor was not ready within {timeout:g} s: {self._reason()}")

    def memory(self) -> int:
        """Return the highest resident memory so far in bytes (the present one where /proc has no highest; 0 without /proc)."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return 0
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        return int(fields.get("VmHWM", fields.get("VmRSS", "0 kB")).split()[0]) * 1024

    def stop(self) -> int | None:
        """Stop the process, by a signal first and by force after 10 seconds; returns its exit code."""
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # after SIGTERM it would accept requests for a while
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        return self._process.returncode

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The child process, once started."""
        if self._process is None:
            raise RuntimeError("the predictor was not started")
        return self._process

    def events(self) -> list[dict[str, object]]:
        """The JSON lines that the predictor has logged so far."""
        found = []
        for line in self._text().splitlines():
            if line.startswith("{"):
                with suppress(json.JSONDecodeError):  # of a line that is being written right now
                    found.append(json.loads(line))
        return found

    def _text(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")  # the child shares the file's position

    def _reason(self) -> str:
        reasons = [str(event["error"]) for event in self.events() if "error" in event]
        lines = self._text().strip().splitlines()
        return reasons[-1] if reasons else lines[-1] if lines else "it logged nothing"


@contextmanager
def predictor(name: str, model_dir: Path, timeout: float, *options: str) -> Iterator[tuple[PredictorProcess, Started]]:
    """Run the predictor on a model folder while the block lasts; raises ServingError if it does not become ready."""
    with PredictorProcess(name, model_dir, *options) as process:
        yield process, process.wait(timeout)
