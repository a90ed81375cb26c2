"""The state of a training, from which one that was interrupted continues: after a kill, a lost node, Ctrl-C or a full disk.

| where | when it is written |
|---|---|
| the option `checkpoints`, or PENSTOCK_CHECKPOINTS, which a local run sets to `.penstock/checkpoints` | |
| otherwise the folder `checkpoints` of the model store that the step was given, as on a cluster | |
| otherwise beside the model | |
| in a directory | after each epoch, and every `checkpoint_minutes` within one |
| in a store such as `s3://bucket/checkpoints` | every `checkpoint_minutes`, and after the last epoch |
| everywhere | when the training is told to stop |
"""

import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from components.classifier.errors import ObjectNotFound, StoreError
from components.settings.training import TrainingSettings
from components.storage import Store, open_store

State = dict[str, Any]

_DIGEST_BYTES = 32
"""At the end of a checkpoint, the SHA-256 of what is before it: torch reads a file of which single bytes have changed without a word."""


def checkpoint_address(options: TrainingSettings, store: str = "") -> str:
    """Return where checkpoints lie: a directory, a store's address, or "" for beside the model; `store` is the model store."""
    named = options.checkpoints or os.environ.get("PENSTOCK_CHECKPOINTS", "")
    return named or (f"{store.rstrip('/')}/checkpoints" if store else "")


class Checkpoints:
    """Saves and loads the checkpoint of one training; its key follows from `inputs`: the dataset, options, device and code.

    Of several processes that train together one `writes`; the others only read, and know what was written.
    """

    def __init__(self, where: str, model_path: Path, inputs: dict[str, Any], minutes: float = 0.0, *, writes: bool = True) -> None:
        self._writes = writes
        identity = json.dumps({**inputs, "torch": torch.__version__}, sort_keys=True)
        self._beside = None if where else model_path.parent / f".{model_path.name}.checkpoint"
        self._store: Store = open_store(where or str(self._beside))
        self._key = f"training-{hashlib.sha256(identity.encode()).hexdigest()[:32]}.pt"
        self._each_epoch = "://" not in where
        self._seconds = 60 * minutes
        self._last = time.monotonic()
        self.saved = ""
        """How far the last one goes, such as `epoch 3`; "" when there is none."""

    @property
    def place(self) -> str:
        """Where they lie, for messages."""
        return self._store.url

    @property
    def address(self) -> str:
        """The address of the checkpoint itself."""
        return f"{self._store.url.rstrip('/')}/{self._key}"

    def due(self, *, epoch_ended: bool) -> bool:
        """Say whether it is time for one: after an epoch on a disk, and after `minutes` everywhere (0: only after epochs)."""
        if epoch_ended and (self._each_epoch or not self._seconds):
            return True
        return 0 < self._seconds <= time.monotonic() - self._last

    def save(self, state: State, reached: str) -> str:
        """Atomically replace the checkpoint; `reached` is how far it goes. Returns "", or why it could not be written.

        A training whose checkpoint cannot be written goes on: the one before stays, and a full disk may be freed by the next time.
        """
        self._last = time.monotonic()
        if not self._writes:
            self.saved = reached
            return ""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0, io.SEEK_END)
        buffer.write(hashlib.sha256(buffer.getbuffer()).digest())
        try:
            self._store.replace(self._key, buffer.getvalue())
        except StoreError as error:
            return str(error)
        self.saved = reached
        return ""

    def load(self, device: torch.device, tell: Callable[[str], None] = print) -> State | None:
        """Return the last state, or None when there is none or it is damaged, which is told.

        Raises StoreError when the store does not answer.
        """
        try:
            data = self._store.read(self._key)
        except ObjectNotFound:
            return None
        content = memoryview(data)[:-_DIGEST_BYTES]
        if hashlib.sha256(content).digest() != data[-_DIGEST_BYTES:]:
            tell(f"warning: the checkpoint {self._key} in {self.place} is damaged; the training starts over")
            return None
        state: State = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        return state

    def clear(self, tell: Callable[[str], None] = print) -> None:
        """Remove the checkpoint of a complete training; one that cannot be removed is told."""
        if not self._writes:
            return
        try:
            self._store.delete(self._key)
        except StoreError as error:
            tell(f"warning: {error}; the training is complete, delete {self.address} yourself")
        if self._beside is not None:
            shutil.rmtree(self._beside, ignore_errors=True)
