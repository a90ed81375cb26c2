"""One trial of a search: a training that pauses after some epochs, and leaves the checkpoint from which the next rung goes on."""

from pathlib import Path
from typing import Any

from components.bundle.dataset import Dataset
from components.bundle.search import Trial, TrialResult
from components.classifier.device import choose_device
from components.classifier.errors import DataError, TrainingError, UsageError
from components.classifier.progress import TrainingProgress
from components.classifier.stopping import stoppable
from components.settings.training import TrainingSettings
from components.train.checkpoint import checkpoint_address
from components.train.distributed import Group, launch
from components.train.start import Start
from components.train.training import TrainingRun, checkpoints_of, use_all_cpus


def train_trial(dataset_path: str | Path, trial: Trial, options: TrainingSettings, store: str) -> TrialResult:
    """Train a trial until `trial.until` epochs are done, from its checkpoint where there is one; returns its validation figures.

    `options` are what the whole training would have, so that on a CPU it goes on bit for bit as one that never paused, up to the model.
    A training that cannot go on is a result with `error`: one that diverges or fills the memory, or whose settings do not go together,
    such as a width and a network that has none. Raises TrainingError for a missing device, DataError without validation pictures,
    UsageError where no place for checkpoints is named, and StoreError.
    """
    device = choose_device(options.device, options.gpus)
    if not checkpoint_address(options, store):
        raise UsageError("a trial needs a place for its checkpoint; name a store")
    result = TrialResult(**trial.model_dump(), seed=options.seed, epochs=0, device=device.type)
    try:
        reached = (
            _train_together(dataset_path, trial.until, options, store)
            if options.processes == 1
            else launch(options.processes, _train_together, dataset_path, trial.until, options, store)
        )
    except (TrainingError, UsageError) as error:
        return result.model_copy(update={"error": str(error)})
    return result.model_copy(update=reached)


def _train_together(dataset_path: str | Path, until: int, options: TrainingSettings, store: str) -> dict[str, Any]:
    """Return how far a trial came, and its figures at the best epoch until then, as fields of TrialResult."""
    group, device = Group.join(choose_device(options.device, options.gpus))
    use_all_cpus()
    dataset = Dataset.load(dataset_path)
    pictures = len(dataset.split("validation"))
    if pictures == 0:
        raise DataError("a search chooses by the validation split, which holds no picture; give ingest a validation_fraction above 0")
    start = Start(options, store)
    checkpoints = checkpoints_of(dataset, Path(dataset_path), options, store, device, group, start)
    show = TrainingProgress(silent=group.rank > 0)
    try:
        with stoppable() as stop:
            fitted = TrainingRun(dataset, options, device, show, group, start).trainer.fit(checkpoints, show, stop, until)
    except TrainingError:
        checkpoints.clear()  # it loses, and no rung goes on from here
        raise
    history = fitted.history[:until]  # a checkpoint may be of a later rung, where a search is run again
    best = history[fitted.kept[len(history) - 1] - 1]
    return {
        "epochs": len(history),
        "best_epoch": best.epoch,
        "validation_accuracy": best.validation_accuracy,
        "validation_loss": best.validation_loss,
        "validation_pictures": pictures,
        "seconds": round(sum(epoch.seconds for epoch in history), 2),
        "checkpoint": checkpoints.address,
    }
