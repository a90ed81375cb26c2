"""Which extra brings a package that is not installed: Penstock's own metadata says it."""

import re
from importlib import metadata

from components.classifier.errors import UsageError

_DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "multipart": "python-multipart",
    "openlineage": "openlineage-python",
    "mlflow": "mlflow-skinny",
    "pillow_heif": "pillow-heif",
    "OpenSSL": "pyopenssl",
    "prometheus_client": "prometheus-client",
    "huggingface_hub": "huggingface-hub",
}
"""Packages by the names of their modules, where these differ."""
_NOT_FOUND = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")


def missing(error: ModuleNotFoundError) -> UsageError | None:
    """Return the error of a package that belongs to an extra, with the command that installs it; None for any other module."""
    hint = remedy(error.name or "")
    return UsageError(hint) if hint else None


def with_remedy(text: str) -> str:
    """Return a step's error, and after it what to install where a package is missing."""
    found = _NOT_FOUND.search(text)
    return f"{text}; {hint}" if found and (hint := remedy(found[1])) else text


def remedy(module: str) -> str:
    """Say what installs a module of an extra; empty for a module of none."""
    name = module.partition(".")[0]
    package = _DISTRIBUTIONS.get(name, name.replace("_", "-"))
    wanted = re.compile(rf"{re.escape(package)}\b(?!-).*extra == ['\"]([\w-]+)['\"]")
    found = {match[1] for line in metadata.requires("penstock") or [] if (match := wanted.match(line))} - {"dev", "bench"}
    extra = found.pop() if len(found) == 1 else "all"
    return f"this needs {package}, which is not installed: pip install 'penstock[{extra}]'" if found or extra != "all" else ""
