"""What must be set before torch is loaded: caches in a place that can be written, threads that wait without spinning."""

import os
import tempfile
from pathlib import Path

_CACHES = {
    "XDG_CACHE_HOME": "cache",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "MPLCONFIGDIR": "matplotlib",
}


def prepare_environment() -> None:
    """Set environment variables for torch and its exporter, except those that the user has set.

    A container may run under a number that has no account, with a home folder that cannot be written: then caches go to the
    temporary folder, and the number takes the place of the user's name that torch asks for.
    """
    # OpenMP's threads spin while they wait: beside any other load on the same cores, a step took 20 times longer.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    home = os.environ.get("HOME", "")
    if home and os.access(home, os.W_OK):
        return
    root = Path(tempfile.gettempdir()) / f"penstock-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    for variable, folder in _CACHES.items():
        os.environ.setdefault(variable, str(root / folder))
    os.environ.setdefault("USER", f"uid{os.getuid()}")  # getpass looks here before it asks for the account
