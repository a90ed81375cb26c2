"""The state of a training after each epoch, from which one that was killed goes on.

Where it lies is said by `PENSTOCK_CHECKPOINTS` or the option `checkpoints`: a directory (a mounted volume) or a store address such as
`s3://bucket/checkpoints`. Without it, it lies beside the model, which a process started again on the same machine finds, but a
re-created pod does not: there training starts over, with the same result.
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
    """Saves and finds the one checkpoint of a training with these inputs; another dataset, option or release has another key."""

    def __init__(self, where: str, model_path: Path, inputs: dict[str, Any]) -> None:
        identity = json.dumps({**inputs, "torch": torch.__version__}, sort_keys=True)
        self._beside = None if where else model_path.parent / f".{model_path.name}.checkpoint"
        self._store: Store = open_store(where or str(self._beside))
        self._key = f"training-{hashlib.sha256(identity.encode()).hexdigest()[:32]}.pt"

    def save(self, state: State) -> None:
        """Put the state in place of the one before; a reader finds the old or the new, never a part."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self._store.replace(self._key, buffer.getvalue())

    def load(self, device: torch.device) -> State | None:
        """Return the last state, or None when there is none."""
        try:
            data = self._store.read(self._key)
        except ObjectNotFound:
            return None
        try:
            state: State = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
        except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:  # whoever damaged it, training can start over
            log.warning("the checkpoint %s in %s is damaged (%s); training starts over", self._key, self._store.url, type(error).__name__)
            return None
        return state

    def clear(self) -> None:
        """Remove the checkpoint: the training is complete."""
        self._store.delete(self._key)
        if self._beside is not None:
            shutil.rmtree(self._beside, ignore_errors=True)
