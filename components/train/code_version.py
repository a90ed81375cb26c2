"""Which code trained: the release, and the commit where it is known."""

import os
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path


@cache
def code_version() -> str:
    """Return `0.1.0`, or `0.1.0+g<commit>`, with `.dirty` when files differ from it.

    `PENSTOCK_CODE_VERSION`, which the image sets when it is built, comes first; a git checkout is asked otherwise.
    """
    stated = os.environ.get("PENSTOCK_CODE_VERSION", "")
    if stated:
        return stated
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return version("penstock")
    try:
        asked = ["git", "-C", str(root), "describe", "--always", "--dirty=.dirty", "--exclude=*"]
        commit = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git, or a checkout of another user: the release alone is true as well
        return version("penstock")
    return f"{version('penstock')}+g{commit}"
