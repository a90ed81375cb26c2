"""The state of a training after each epoch, from which a training that was interrupted continues.

The option `checkpoints` (in a pipeline: PENSTOCK_CHECKPOINTS) is a directory, such as a mounted volume, or the address of a store, such as
`s3://bucket/checkpoints`. Without it, checkpoints lie beside the model: a process that is started again on the same machine finds
them, a new pod does not and starts over, with the same result.
"""

import hashlib
import io
import json
import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from components.classifier.errors import ObjectNotFound
from components.storage import Store, open_store

log = logging.getLogger(__name__)

State = dict[str, Any]


class Checkpoints:
    """Saves and loads the checkpoint of one training; its key follows from `inputs`: the dataset, options, device and code."""

    def __init__(self, where: str, model_path: Path, inputs: dict[str, Any]) -> None:
        identity = json.dumps({**inputs, "torch": torch.__version__}, sort_keys=True)
        self._beside = None if where else model_path.parent / f".{model_path.name}.checkpoint"
        self._store: Store = open_store(where or str(self._beside))
        self._key = f"training-{hashlib.sha256(identity.encode()).hexdigest()[:32]}.pt"

    def save(self, state: State) -> None:
        """Atomically replace the checkpoint. Raises StoreError when it cannot be written."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self._store.replace(self._key, buffer.getvalue())

    def load(self, device: torch.device) -> State | None:
        """Return the last state, or None when there is none or it is damaged. Raises StoreError when the store does not answer."""
        try:
            data = self._store.read(self._key)
        except ObjectNotFound:
            return None
        try:
            state: State = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
        except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:  # damaged: training starts over
            log.warning("the checkpoint %s in %s is damaged (%s); training starts over", self._key, self._store.url, type(error).__name__)
            return None
        return state

    def clear(self) -> None:
        """Remove the checkpoint of a complete training."""
        self._store.delete(self._key)
        if self._beside is not None:
            shutil.rmtree(self._beside, ignore_errors=True)
