"""What a training starts from: random weights, those that the architecture's name stands for, or weights of the store."""

import tempfile
from pathlib import Path

from torch import nn

from components.bundle.dataset import Split
from components.classifier.errors import UsageError
from components.classifier.images import ImageSpec
from components.classifier.network import build
from components.classifier.own_networks import is_import_path, own_digest
from components.classifier.pretrained import check_pretrained, has_data_config, normalisation, sha256
from components.classifier.weights import load_weights, read_weights
from components.registry.weights import Weights, find_weights
from components.settings.training import TrainingSettings
from components.storage import open_store
from components.train.batches import mean_and_std

_NAMED = 5
"""How many keys a line names."""


class Start:
    """Where one training starts; `store` is the model store, which holds the weights that a setting names."""

    def __init__(self, options: TrainingSettings, store: str = "") -> None:
        """Find the weights; raises UsageError when the store does not have them, or has them for another architecture."""
        self._options, self._store = options, store
        self.record = find_weights(store, options.weights, options.architecture) if options.weights else None

    def network(self, spec: ImageSpec, classes: int) -> tuple[nn.Module, list[str]]:
        """Return the network, and what is to be told about its weights.

        Raises what `build`, `Weights.fetch` and `load_weights` raise.
        """
        options = self._options
        network = build(options.architecture, spec, classes, options.pretrained, width=options.width, dropout=options.dropout)
        if self.record is None:
            return network, []
        with tempfile.TemporaryDirectory(prefix="penstock-weights-") as folder:
            file = Weights(open_store(self._store)).fetch(self.record, Path(folder) / self.record.file)
            loaded = load_weights(network, read_weights(file), f"the weights {self.record.name!r}")
        head = "a new last layer" if loaded.new_head else "their last layer too"
        told = [f"starts from the weights {self.record.name!r} (SHA-256 {self.record.sha256[:12]}…): {loaded.tensors} tensors, {head}"]
        if loaded.unused:
            more = f" and {len(loaded.unused) - _NAMED} more" if len(loaded.unused) > _NAMED else ""
            told.append(f"of these weights the network does not have {', '.join(loaded.unused[:_NAMED])}{more}")
        return network, told

    def normalisation(self, training: Split) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation per channel, of pixels / 255: the weights' own, the architecture's, or the training split's.

        Raises UsageError for normalisation=model where neither weights nor architecture have any.
        """
        options, channels = self._options, training.images.shape[3]
        if options.normalisation == "dataset" or (options.normalisation == "auto" and not options.fine_tunes):
            return mean_and_std(training)
        if self.record is not None and self.record.mean is not None and self.record.std is not None:
            return _for_channels(self.record.mean, channels), _for_channels(self.record.std, channels)
        if has_data_config(options.architecture):
            return normalisation(options.architecture, channels)
        if options.normalisation == "model":
            raise UsageError(f"architecture {options.architecture!r} has no normalisation of its own; use normalisation=dataset")
        return mean_and_std(training)

    def identity(self) -> dict[str, str]:
        """Return the digests of what a resumed training must start from too: the weights, and a user's own network."""
        found = dict[str, str]()
        if self.record is not None:
            found = {"weights_name": self.record.name, "weights_sha256": self.record.sha256}
        if is_import_path(self._options.architecture):
            found["architecture_sha256"] = own_digest(self._options.architecture)
        return found

    def origin(self) -> dict[str, str]:
        """Return what config.json says of where the training started."""
        if not self._options.pretrained:
            return self.identity()
        file = check_pretrained(self._options.architecture)
        return {"pretrained_file": file.name, "pretrained_sha256": sha256(file)}


def _for_channels(values: list[float], channels: int) -> list[float]:
    return values if len(values) == channels else [sum(values) / len(values)] * channels
