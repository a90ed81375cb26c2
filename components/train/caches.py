"""Where libraries keep their caches: under the temporary folder when the home folder cannot be written, or the user has no account."""

import os
import tempfile
from pathlib import Path

_VARIABLES = {
    "XDG_CACHE_HOME": "cache",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "MPLCONFIGDIR": "matplotlib",
}


def use_writable_caches() -> None:
    """Set the environment so that torch and its export write nowhere but to the temporary folder, and ask for no user name.

    Nothing changes where the home folder is writable, and what the user has set stays.
    """
    home = os.environ.get("HOME", "")
    if home and os.access(home, os.W_OK):
        return
    root = Path(tempfile.gettempdir()) / f"penstock-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    for variable, folder in _VARIABLES.items():
        os.environ.setdefault(variable, str(root / folder))
    os.environ.setdefault("USER", f"uid{os.getuid()}")  # getpass looks here before it asks for the account, which may not exist
