"""Make a model version of the files that train and evaluate wrote."""

import logging
from pathlib import Path

from components.bundle.config import BundleConfig, Variant
from components.bundle.files import CARD, CONFIG, EVALUATED_FILES, REPORT, TRAINED_FILES, WEIGHTS
from components.bundle.markdown import table
from components.classifier.errors import DataError
from components.integrations import steps
from components.integrations.observe import observed
from components.registry import Registry
from components.registry.manifest import MAX_BYTES
from components.registry.publication import publish_files
from components.storage import open_store

logger = logging.getLogger(__name__)


@observed(steps.publish)
def publish(model: Path, evaluation: Path, *, store: str, name: str, run: str = "") -> str:
    """Publish a model with its evaluation; returns the version's name.

    Running it again with the same files finds the version and changes nothing. Raises DataError when a file of the two
    directories is missing, IntegrityError for a damaged config.json, StoreError when the store fails; then no reader sees a version.
    """
    files = {file: model / file for file in _trained(model)} | {file: evaluation / file for file in EVALUATED_FILES}
    missing = [str(path) for path in files.values() if not path.is_file()]
    if missing:
        raise DataError(
            f"cannot publish without {', '.join(missing)}; run the step that writes {'it' if len(missing) == 1 else 'them'} again"
        )
    published = publish_files(Registry(open_store(store), name), files, run=run)
    logger.info("version %s of %s is in %s", published.version, name, published.uri)
    return published.version


def page_of(version: str, *, store: str, name: str) -> str:
    """Return a published version as a page of Kubeflow's UI: where it lies, how to see its report, and its model card."""
    registry = Registry(open_store(store), name)
    card = registry.store.read(registry.key(version, CARD), MAX_BYTES).decode("utf-8", "replace")
    address = registry.uri(version)
    shown = f"{address}{REPORT}, or penstock report {version} --store {store} --name {name}"
    return "\n".join([*table(("", ""), [("version", version), ("address", address), ("report", shown)]), "", card])


def _trained(model: Path) -> list[str]:
    """The files that a model's directory must hold: weights unless it was made of other versions, whose weights are not its own."""
    variant = Variant.of(BundleConfig.load(model).parameters) if (model / CONFIG).is_file() else None
    return [file for file in TRAINED_FILES if file != WEIGHTS or variant is None or variant.kind == "average"]
