"""What crosses the steps of a search: trials, their results, and search.json, which holds them all."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from components.bundle.formats import JsonFile, parsed
from components.classifier.errors import IntegrityError, ObjectNotFound
from components.storage import Store

FOLDER, SEARCH = "searches", "search.json"
"""In the store: searches/NAME/RUN/search.json."""


class Trial(BaseModel):
    """One training that a search tries: `settings` are those that it tries, and it trains until `until` epochs are done."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    trial: int
    """Its number, from 1."""
    settings: dict[str, Any]
    rung: int
    until: int

    @property
    def label(self) -> str:
        """How it is called for people: `trial 3 (learning_rate 0.01, width 2)`."""
        return f"trial {self.trial} ({', '.join(f'{name} {shown(value)}' for name, value in self.settings.items())})"


class TrialResult(Trial):
    """What a trial had reached at the end of a rung; the figures are of the validation split, None where the training failed."""

    seed: int
    epochs: int
    """Epochs that it has trained since its start; fewer than `until` where its validation loss no longer fell."""
    best_epoch: int = 0
    validation_accuracy: float | None = None
    validation_loss: float | None = None
    validation_pictures: int = 0
    seconds: float = 0.0
    """How long these epochs took, those of the rungs before included."""
    device: str = ""
    error: str = ""
    """Why it could not be trained, such as a loss that diverged; "" for one that was."""
    checkpoint: str = ""
    """The address of its checkpoint, from which the next rung goes on."""

    def figures(self) -> dict[str, float]:
        """Return what it reached, without figures that it has none of."""
        found = {"validation_accuracy": self.validation_accuracy, "validation_loss": self.validation_loss}
        return {key: value for key, value in found.items() if value is not None} | {"epochs": self.epochs, "seconds": self.seconds}

    def __str__(self) -> str:
        if self.error:
            return f"{self.label} failed: {self.error}"
        figures = f"val accuracy {self.validation_accuracy:.4f}, val loss {self.validation_loss:.4f}"
        return f"{self.label}: {figures} after {self.epochs} {'epoch' if self.epochs == 1 else 'epochs'}, {self.seconds:.1f} s"


class SearchRecord(JsonFile):
    """search.json: all results of a search, rung by rung, and which trial won."""

    FILE: ClassVar[str] = SEARCH
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: str
    run: str
    time: str
    """When it ended, UTC."""
    dataset_digest: str
    reduction: int
    epochs: int
    """What the last rung has."""
    results: list[TrialResult]
    best: int
    """The number of the trial that won."""
    command: str = ""
    """How the winner's training is repeated alone, on this store."""

    @property
    def winner(self) -> TrialResult:
        """Return what the winner had reached at the end."""
        return next(result for result in reversed(self.results) if result.trial == self.best)

    def last_results(self) -> list[TrialResult]:
        """Return the last result of each trial, in the order of their numbers."""
        last = {result.trial: result for result in self.results}
        return [last[number] for number in sorted(last)]


def shown(value: Any) -> str:
    """Return a setting's value in few characters; None stands for the default of the network or the library."""
    return "default" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def save_search(record: SearchRecord, store: Store) -> None:
    """Keep the record of a search in a store; a step that is started again writes it once more. Raises StoreError."""
    store.replace(_key(record.name, record.run), (record.model_dump_json(indent=1) + "\n").encode())


def search_records(store: Store, name: str) -> list[SearchRecord]:
    """Return the searches of a model, newest first. Raises IntegrityError for a record that cannot be read, and StoreError."""
    found = []
    for run in store.names(f"{FOLDER}/{name}/"):
        key = _key(name, run)
        try:
            text = store.read(key)
        except ObjectNotFound:
            continue
        found.append(parsed(SearchRecord, text, f"{key} in {store.url}", "delete it", IntegrityError))
    return sorted(found, key=lambda record: record.time, reverse=True)


def _key(name: str, run: str) -> str:
    return f"{FOLDER}/{name}/{run}/{SEARCH}"
