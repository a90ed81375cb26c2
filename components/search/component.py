"""The steps of a search between its trials, as Kubeflow sees them."""

from typing import NamedTuple

from kfp import dsl

from components.step_image import component


@component
def plan_trials(name: str, architecture: str, pretrained: bool, device: str, gpus: str, training: dict, search: dict) -> list:
    """Choose the trials of the first rung; returns each as JSON."""
    from components.search.steps import first_rung

    own = {"name": name, "architecture": architecture, "pretrained": pretrained, "device": device, "gpus": gpus}
    return [trial.model_dump_json() for trial in first_rung(search, training, own)]


@component
def keep_best(results: list, name: str, architecture: str, pretrained: bool, device: str, gpus: str, training: dict, search: dict) -> list:
    """Let the better trials of a rung go on to the next, by their validation accuracy; returns each as JSON.

    Args:
        results: What each trial of the rung reached.
    """
    from components.search.steps import next_rung

    own = {"name": name, "architecture": architecture, "pretrained": pretrained, "device": device, "gpus": gpus}
    return [trial.model_dump_json() for trial in next_rung(results, search, training, own)]


@component
def choose_best(
    dataset: dsl.Input[dsl.Dataset],
    first: list,
    second: list,
    third: list,
    source: str,
    ingest: dict,
    store: str,
    name: str,
    architecture: str,
    pretrained: bool,
    device: str,
    gpus: str,
    training: dict,
    search: dict,
    run: str,
    record: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> NamedTuple("Outputs", [("architecture", str), ("pretrained", bool), ("epochs", str), ("training", dict)]):  # type: ignore[valid-type]
    """Choose the trial of the last rung with the best validation accuracy, and record the search; returns what trains it.

    Args:
        dataset: A dataset version, as ingest writes it.
        first: What the trials of the first rung reached.
        second: What those of the second rung reached.
        third: What those of the last rung reached.
        run: The run's id, under which the store keeps the record.
        record: search.json, every trial with its settings, seed, figures and time.
        report: The trials as a table and a picture, one HTML file.
        metrics: The winner's number, settings and validation figures.
    """
    from pathlib import Path

    from components.bundle.dataset import Dataset
    from components.bundle.search import shown
    from components.search.steps import choose, winning_settings, write_record

    own = {"name": name, "architecture": architecture, "pretrained": pretrained, "device": device, "gpus": gpus}
    chosen = choose(
        [*first, *second, *third],
        Dataset.load(dataset.path),
        search=search,
        training=training,
        own=own,
        source=source,
        ingest=ingest,
        store=store,
        run=run,
    )
    write_record(chosen, Path(record.path), Path(report.path))
    for key, value in {"trial": chosen.best, **chosen.winner.settings, **chosen.winner.figures()}.items():
        metrics.log_metric(key, value if isinstance(value, int | float) else shown(value))
    return winning_settings(chosen.winner, training, own)
