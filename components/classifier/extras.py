"""Which extra brings a package that is not installed: Penstock's own metadata says it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from components.classifier.errors import UsageError

_DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "openlineage": "openlineage-python",
    "mlflow": "mlflow-skinny",
    "pillow_heif": "pillow-heif",
    "OpenSSL": "pyopenssl",
    "prometheus_client": "prometheus-client",
    "huggingface_hub": "huggingface-hub",
    "attr": "attrs",
    "google": "protobuf",
    "grpc": "grpcio",
}
"""Packages by the names of their modules, where these differ."""
_EXTRA = re.compile(r"extra == ['\"]([\w-]+)['\"]")
_NOT_FOUND = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")


def missing(error: ModuleNotFoundError) -> UsageError | None:
    """Return the error of a package that belongs to an extra, with the command that installs it; None for any other module."""
    hint = remedy(error.name or "")
    return UsageError(hint) if hint else None


@contextmanager
def named_where_missing() -> Iterator[None]:
    """End the process with one line where an import inside fails for a package of an extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (told := missing(error)) is None:
            raise
        raise SystemExit(f"error: {told}") from None


def with_remedy(text: str) -> str:
    """Return a step's error, and after it what to install where a package is missing."""
    found = _NOT_FOUND.search(text)
    return f"{text}; {hint}" if found and (hint := remedy(found[1])) else text


def remedy(module: str) -> str:
    """Say what installs a module of an extra, or of a package that an extra's packages need; empty for any other."""
    name = module.partition(".")[0]
    package = _DISTRIBUTIONS.get(name, name.replace("_", "-"))
    extras = _extras_of({package}) or _extras_of(_those_that_need(package))
    extra = extras.pop() if len(extras) == 1 else "all" if extras else ""
    return f"this needs {package}, which is not installed: pip install 'penstock[{extra}]'" if extra else ""


def _extras_of(packages: set[str]) -> set[str]:
    """The extras that name one of the packages."""
    named = [line for line in metadata.requires("penstock") or [] if _package(line) in packages]
    return {found[1] for line in named if (found := _EXTRA.search(line))} - {"dev", "bench"}


def _those_that_need(package: str) -> set[str]:
    """The installed packages that need another one, or need one that does; none where Penstock does without any extra."""
    needs = {
        _package(it.name): {_package(line) for line in it.requires or [] if not _EXTRA.search(line)} for it in metadata.distributions()
    }
    found, new = set[str](), {package}
    while new:
        found |= new
        new = {name for name, needed in needs.items() if needed & new} - found
    return set() if "penstock" in found else found


def _package(requirement: str) -> str:
    """The name at the beginning of a requirement, in its usual form."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()
