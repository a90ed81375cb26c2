"""Make a model version of the files that train and evaluate wrote."""

import logging
from pathlib import Path

from components.bundle.files import EVALUATED_FILES, TRAINED_FILES
from components.classifier.errors import DataError
from components.registry import Registry
from components.registry.publication import publish_files
from components.storage import open_store

logger = logging.getLogger(__name__)


def publish(model: Path, evaluation: Path, *, store: str, name: str, run: str = "") -> str:
    """Publish a model with its evaluation; returns the version's name.

    Running it again with the same files finds the version and changes nothing. Raises DataError when a file of the two
    directories is missing, StoreError when the store fails; then no reader sees a version.
    """
    files = {file: model / file for file in TRAINED_FILES} | {file: evaluation / file for file in EVALUATED_FILES}
    missing = [str(path) for path in files.values() if not path.is_file()]
    if missing:
        raise DataError(
            f"cannot publish without {', '.join(missing)}; run the step that writes {'it' if len(missing) == 1 else 'them'} again"
        )
    published = publish_files(Registry(open_store(store), name), files, run=run)
    logger.info("version %s of %s is in %s", published.version, name, published.uri)
    return published.version
