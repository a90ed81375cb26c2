"""What the steps of a search do between the trials: plan them, drop those that lost, and record who won."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.bundle.dataset import Dataset
from components.bundle.search import SearchRecord, Trial, TrialResult, save_search
from components.classifier.errors import TrainingError
from components.report.search import render_search
from components.settings.search import SearchSettings, plan_trials, rung_epochs, settings_of_trial
from components.storage import open_store
from components.storage.files import write_file


def ranked(results: Sequence[TrialResult]) -> list[TrialResult]:
    """Return the trials that could be trained, best first: by validation accuracy, then by the lower loss, then by their numbers.

    Raises TrainingError, with the first trial's cause, where none of them could.
    """
    trained = [result for result in results if not result.error]
    if not trained:
        raise TrainingError(f"no trial could be trained; {results[0].label}: {results[0].error}")
    return sorted(trained, key=lambda it: (-(it.validation_accuracy or 0.0), it.validation_loss or 0.0, it.trial))


def survivors(results: Sequence[TrialResult], rungs: Sequence[int], reduction: int) -> list[Trial]:
    """Return the trials of the next rung, best first: one of `reduction`, rounded up, and only the best where all are trained to the end.

    `results` are those of one rung, `rungs` the epochs of all. Raises TrainingError where no trial could be trained.
    """
    rung = results[0].rung
    best = ranked(results)
    kept = 1 if results[0].until >= rungs[-1] else math.ceil(len(results) / reduction)
    return [Trial(trial=it.trial, settings=it.settings, rung=rung + 1, until=rungs[rung]) for it in best[:kept]]


def first_rung(search: Mapping[str, Any], training: Mapping[str, Any], own: Mapping[str, Any]) -> list[Trial]:
    """Return the trials of the first rung, each printed. Raises UsageError for settings that no training takes."""
    trials = plan_trials(SearchSettings.read(search), training, own)
    for trial in trials:
        print(trial.label)
    return trials


def next_rung(results: Sequence[str], search: Mapping[str, Any], training: Mapping[str, Any], own: Mapping[str, Any]) -> list[Trial]:
    """Return the trials that go on, by the JSON of a rung's results; the checkpoints of the others are removed.

    Raises TrainingError where no trial could be trained.
    """
    read = [TrialResult.model_validate_json(text) for text in results]
    settings = SearchSettings.read(search)
    epochs = int(settings_of_trial(training, own, {}).epochs)
    kept = survivors(read, rung_epochs(epochs, settings.reduction), settings.reduction)
    going_on = {trial.trial for trial in kept}
    remove_checkpoints([result for result in read if result.trial not in going_on])
    print(f"{len(kept)} of {len(read)} trials go on to {kept[0].until} epochs: {', '.join(trial.label for trial in kept)}")
    return kept


def remove_checkpoints(results: Sequence[TrialResult]) -> None:
    """Remove what trials would have gone on from; it is no error where there is none. Raises StoreError."""
    for result in results:
        place, _, key = result.checkpoint.rpartition("/")
        if key:
            open_store(place).delete(key)


def choose(
    results: Sequence[str],
    dataset: Dataset,
    *,
    search: Mapping[str, Any],
    training: Mapping[str, Any],
    own: Mapping[str, Any],
    source: str,
    ingest: Mapping[str, Any],
    store: str,
    run: str,
) -> SearchRecord:
    """Choose the best trial of the last rung, keep the record of the search in the store, and return it.

    `results` are those of all rungs, as JSON; `source` and `ingest` are the dataset's, for the command that trains the winner again.
    Where all of the last rung failed, it is the best of those that did not fail in the rung before. Only the winner's checkpoint stays,
    for the training that makes the model. Raises TrainingError where no trial could be trained, and StoreError.
    """
    read = [TrialResult.model_validate_json(text) for text in results]
    last = [result for result in read if result.rung == max(it.rung for it in read)]
    failed = {result.trial for result in read if result.error}
    sound = [result for result in read if result.trial not in failed]
    winner = ranked([result for result in sound if result.rung == max(it.rung for it in sound)] or last)[0]
    remove_checkpoints([result for result in last if result.trial != winner.trial])
    record = SearchRecord(
        name=own["name"],
        run=run,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        dataset_digest=dataset.info.digest,
        reduction=SearchSettings.read(search).reduction,
        epochs=last[0].until,
        results=read,
        best=winner.trial,
        command=command_of(winner, training, own, {"source": source, "ingest": ingest}, store),
    )
    save_search(record, open_store(store))
    print(f"note: {winner.label} won with {winner.validation_accuracy:.4f} of {winner.validation_pictures} validation pictures")
    return record


def write_record(record: SearchRecord, directory: Path, page: Path) -> None:
    """Write search.json into a directory, and the report as one HTML file. Raises DiskError."""
    directory.mkdir(parents=True, exist_ok=True)
    record.save(directory)
    write_file(page, [render_search(record).encode()])


def winning_settings(winner: Trial, training: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[str, bool, str, dict[str, Any]]:
    """Return what the training step takes to train the winner: architecture, pretrained, epochs and the mapping `training`."""
    options = settings_of_trial(training, own, winner.settings)
    mapping = {**training, **winner.settings}
    rest = {name: value for name, value in mapping.items() if name not in {"architecture", "pretrained", "epochs"}}
    return options.architecture, options.pretrained, str(options.epochs), rest


def command_of(winner: Trial, training: Mapping[str, Any], own: Mapping[str, Any], data: Mapping[str, Any], store: str) -> str:
    """Return the command that trains the winner alone, from the same `data`: `source` and `ingest` as the run was given them."""
    architecture, pretrained, epochs, rest = winning_settings(winner, training, own)
    given = {**data, "architecture": architecture, "pretrained": pretrained, "epochs": epochs, **rest}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items() if value not in (None, {})}
    sets = " ".join(f"--set {shlex.quote(f'{name}={text}')}" for name, text in texts.items())
    return f"penstock run training --store {shlex.quote(store)} --name {own['name']} {sets}"
