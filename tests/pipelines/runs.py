"""Starts the real command line as a user does, and reads what it answers."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


@dataclass
class Done:
    """An ended command: exit code, both outputs, and its JSON where it printed any."""

    code: int
    out: str
    err: str
    json: dict[str, Any] = field(default_factory=dict)

    def step(self, name: str) -> dict[str, Any]:
        return next(step for step in self.json["steps"] if step["name"] == name)

    @property
    def steps(self) -> list[str]:
        return [step["name"] for step in self.json["steps"]]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from pipelines.cli import main; main()", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}


def penstock(*arguments: str, cwd: Path, timeout: float = 800) -> Done:
    """Run a command to its end in a folder of its own."""
    ended = subprocess.run(command(*arguments), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout, check=False)
    document = json.loads(ended.stdout) if ended.stdout.lstrip().startswith("{") else {}
    return Done(ended.returncode, ended.stdout, ended.stderr, document)
