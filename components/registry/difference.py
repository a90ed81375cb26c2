"""What differs between two versions, from their manifests."""

from dataclasses import dataclass
from typing import Any

from components.registry.manifest import Manifest

_ORIGIN = ("architecture", "dataset_digest", "code_version", "trained_at", "run")


@dataclass(frozen=True)
class Difference:
    """One field that differs; None where a version does not have it."""

    section: str
    """`origin`, `classes`, `parameters`, `metrics` or `files`."""
    field: str
    first: Any
    second: Any


def differences(first: Manifest, second: Manifest) -> list[Difference]:
    """Compare two manifests; files by their digests. Equal fields are left out."""
    a, b = _fields(first), _fields(second)
    return [
        Difference(section, field, a[section].get(field), b[section].get(field))
        for section in a
        for field in sorted(a[section].keys() | b[section].keys())
        if a[section].get(field) != b[section].get(field)
    ]


def _fields(manifest: Manifest) -> dict[str, dict[str, Any]]:
    return {
        "origin": {field: getattr(manifest, field) for field in _ORIGIN},
        "classes": {name: position for position, name in enumerate(manifest.classes)},
        "parameters": manifest.parameters,
        "metrics": manifest.metrics,
        "files": {name: entry.sha256 for name, entry in manifest.files.items()},
    }
