"""The train step: a dataset version in, the trained files of a model version out."""

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
    """Set environment variables for torch and its exporter, except those that the user has set; call it before importing torch.

    A container may run as a user id without an account or a writable home folder: then caches go to the temporary folder, and the
    user id stands for the user name that torch asks for.
    """
    # By default OpenMP's threads spin while they wait: with other load on the same cores, a step took 20 times longer.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    home = os.environ.get("HOME", "")
    if home and os.access(home, os.W_OK):
        return
    root = Path(tempfile.gettempdir()) / f"penstock-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    for variable, folder in _CACHES.items():
        os.environ.setdefault(variable, str(root / folder))
    os.environ.setdefault("USER", f"uid{os.getuid()}")  # getpass reads it before it looks up the account
