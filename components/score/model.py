"""The model version that scores: which one, and its files with their digests checked."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from components.bundle.config import BundleConfig
from components.bundle.files import CONFIG, GOLDEN, ONNX, REFERENCE
from components.bundle.golden import load_golden
from components.readers.places import InputSource, LocalSource, open_source
from components.registry import Registry
from components.settings.scoring import GOLDEN_INPUT
from components.storage import open_store


class Model:
    """One model version in a store; each call fetches what it needs and checks it against the manifest."""

    def __init__(self, store: str, name: str, version: str) -> None:
        self.version = version
        self._registry = Registry(open_store(store), name)

    def config(self, folder: Path) -> BundleConfig:
        """Fetch config.json into a new folder; raises VersionNotFound and IntegrityError."""
        return BundleConfig.load(self._registry.fetch(self.version, folder, [CONFIG]))

    def fetch(self, folder: Path) -> Path:
        """Fetch what scoring needs into a new folder: the graph, its configuration, and the reference where there is one."""
        return self._fetch(folder, (ONNX, CONFIG, REFERENCE))

    def reference(self, folder: Path) -> Path:
        """Fetch reference.json into a new folder, which stays without it when the version has none."""
        return self._fetch(folder, (REFERENCE,))

    @contextmanager
    def open_input(self, address: str) -> Iterator[InputSource]:
        """Open an input: what `open_source` opens, or `golden`; raises as that does."""
        if address == GOLDEN_INPUT and not Path(address).exists():
            with tempfile.TemporaryDirectory(prefix="penstock-golden-") as folder:
                yield LocalSource(self._golden(Path(folder)))
        else:
            with open_source(address) as source:
                yield source

    def _golden(self, folder: Path) -> Path:
        """Write the version's golden pictures into a folder as `golden.npy`; returns the file."""
        images, _ = load_golden(self._registry.fetch(self.version, folder / "golden", [GOLDEN]))
        path = folder / "golden.npy"
        np.save(path, images)
        os.utime(path, (0, 0))  # the same file each time: a later run finds what an earlier one scored
        return path

    def _fetch(self, folder: Path, names: tuple[str, ...]) -> Path:
        published = self._registry.get(self.version).manifest.files
        return self._registry.fetch(self.version, folder, [name for name in names if name in published])


def resolve_version(store: str, name: str, selector: str) -> str:
    """Return the version that "champion", "previous" or a version's name stands for.

    Raises VersionNotFound, saying which versions there are.
    """
    return Registry(open_store(store), name).resolve(selector or "champion")
