"""Which versions a variant is made of: whether they go together, and whether the dataset that they were trained on is kept."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.bundle import files
from components.bundle.config import BundleConfig, Kind, Variant
from components.bundle.dataset import is_kept_in, kept_address
from components.classifier.errors import DataError, RegistryError, UsageError
from components.registry.registry import Registry
from components.settings.variant import VariantSettings


@dataclass(frozen=True)
class Chosen:
    """The parents by their full names, in the order that was asked for, and the address of the dataset that they were trained on."""

    versions: list[str]
    source: str


def choose(registry: Registry, options: VariantSettings) -> Chosen:
    """Find the versions, and refuse in one line what cannot become a variant.

    Raises VersionNotFound, IntegrityError for a damaged version, UsageError for versions that do not go together, RegistryError for
    one that lacks a file which is needed, and DataError where the dataset is not kept in the store.
    """
    versions = [registry.select(selector) for selector in options.selectors]
    if len(set(versions)) < len(versions):
        twice = next(version for version in versions if versions.count(version) > 1)
        raise UsageError(f"versions={options.versions!r} names {twice} twice; name each version once")
    with tempfile.TemporaryDirectory(prefix="penstock-parents-") as scratch:
        configs = [BundleConfig.load(registry.fetch(version, Path(scratch) / version, [files.CONFIG])) for version in versions]
    made = Variant.of(configs[0].parameters)
    if options.kind == "int8" and made is not None and made.kind == "int8":
        raise UsageError(f"version {versions[0]} is int8 already, made of {made.parents[0].version}; name a version in floating point")
    if options.kind == "average":
        _require_weights(registry, versions)
    require_agreement(options.kind, versions, configs)
    return Chosen(versions, _kept(registry, versions[0], configs[0]))


def require_agreement(kind: Kind, versions: Sequence[str], configs: Sequence[BundleConfig]) -> None:
    """Raise UsageError, naming the first version that differs from the first one and in what, unless all of them go together."""
    first = _facts(kind, configs[0])
    for version, config in zip(versions[1:], configs[1:], strict=True):
        for what, value in _facts(kind, config).items():
            if value != first[what]:
                raise UsageError(
                    f"versions {versions[0]} and {version} cannot become one {kind}: their {what} differ "
                    f"({_short(first[what])} and {_short(value)}); choose versions with the same {what}"
                )


def _facts(kind: Kind, config: BundleConfig) -> dict[str, Any]:
    spec = config.input.spec
    facts = {
        "classes": config.classes,
        "input shapes": f"{spec.height}x{spec.width}",
        "channels": spec.channels,
        "bit depths of 16-bit files": spec.levels,
        "datasets": config.dataset_digest,
    }
    if kind == "average":
        width = config.parameters.get("width", 1.0)
        facts |= {"architectures": config.architecture, "widths": width, "normalisations": [config.input.mean, config.input.std]}
    return facts


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _require_weights(registry: Registry, versions: Sequence[str]) -> None:
    for version in versions:
        if files.WEIGHTS not in registry.get(version).manifest.files:
            raise RegistryError(
                f"version {version} has no {files.WEIGHTS}, so that its weights cannot be averaged; name versions that were trained"
            )


def _kept(registry: Registry, version: str, config: BundleConfig) -> str:
    if not is_kept_in(registry.store, config.dataset_digest):
        raise DataError(
            f"the dataset {config.dataset_digest[:12]} that version {version} was trained on is not kept in {registry.store.url}, and "
            "without it a variant can be neither calibrated nor evaluated on the same test pictures; run a training of the same source "
            "with keep_dataset=true, which keeps it under the same digest"
        )
    return kept_address(registry.store, config.dataset_digest)
