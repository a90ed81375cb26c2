"""The Dockerfile by its linter, and what is sent to the builder."""

import subprocess
import sys
from pathlib import Path

from tests.images.engine import ROOT


def test_hadolint_finds_nothing() -> None:
    ran = subprocess.run([Path(sys.executable).with_name("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


def test_no_frontend_must_be_pulled() -> None:
    """A line `# syntax=` would fetch an image from a registry before the first step."""
    assert "syntax=" not in (ROOT / "Dockerfile").read_text("utf-8")


def test_only_named_files_are_sent_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule for rule in rules if rule.startswith("!")} == {
        "!pyproject.toml",
        "!constraints.txt",
        "!hashes.txt",
        "!README.md",
        "!LICENSE",
        "!components",
        "!pipelines",
        "!.docker/requirements.py",
    }
