"""MLflow: one run per pipeline run, which its steps share, found again by a tag with the pipeline run's ID.

Where Kubeflow's own MLflow plugin has started a run for the step, the pipeline's run that it started is used, and its end left to it.
What a step that is started again tells again is not written twice.
"""

import os
import time
import uuid
from functools import cache
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # of seven, with pauses that grow, a step would see only the first three

from mlflow import MlflowClient, MlflowException
from mlflow.entities import Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun

from components.classifier.errors import first_line
from components.integrations.observe import Event, Listener, Report, run_id

TAG = "penstock.run"
"""The tag by which the steps of a pipeline run find their MLflow run."""
SETTLE_SECONDS = 0.5
"""And twice what making a run took: how long the step that made one waits for those that began before it and have not come yet."""
_BATCH = 1000
"""How many metrics MLflow takes at a time."""


def listener() -> Listener:
    """Return what writes one step's reports into the run; raises what MLflow raises for an address that it does not know."""
    client = MlflowClient()

    def tell(event: Event) -> None:
        report = event.report
        if not report.model:  # ingest does not know whose data it reads; train tells them
            return
        run = _run(client, report.model)
        if event.state == "START":
            if run.info.status != "RUNNING":  # a step that is started again, or one that follows a run that was resumed
                client.update_run(run.info.run_id, "RUNNING")
            return
        if event.state == "COMPLETE":
            _write(client, run, report)
        else:
            client.set_tag(run.info.run_id, "penstock.failed", f"{report.step}: {first_line(event.error or Exception())}")
        _end(client, run, event)

    return tell


def _write(client: MlflowClient, run: MlflowRun, report: Report) -> None:
    identifier, known = run.info.run_id, run.data
    params = [Param(name, str(value)) for name, value in report.parameters.items() if name not in known.params]
    tags = [RunTag(f"penstock.{name}", value) for name, value in report.tags.items()]
    stamp = run.info.start_time
    metrics = [Metric(name, value, stamp, 0) for name, value in report.metrics.items() if known.metrics.get(name) != value]
    metrics += _epochs(client, run, report)
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(identifier, metrics[start : start + _BATCH])
    client.log_batch(identifier, params=params, tags=tags)
    for name, content in report.files.items():
        if isinstance(content, Path):
            client.log_artifact(identifier, str(content))
        else:
            client.log_text(identifier, content().decode(), name)


def _epochs(client: MlflowClient, run: MlflowRun, report: Report) -> list[Metric]:
    """The curves, with the epoch as the step, less what is there already."""
    fields = ("train_loss", "validation_loss", "validation_accuracy", "learning_rate")
    found: list[Metric] = []
    for name in fields if report.epochs else ():
        told = {metric.step for metric in client.get_metric_history(run.info.run_id, f"epoch_{name}")}
        values = [(epoch.epoch, getattr(epoch, name)) for epoch in report.epochs if epoch.epoch not in told]
        found += [Metric(f"epoch_{name}", value, run.info.start_time + step, step) for step, value in values if value is not None]
    return found


def _end(client: MlflowClient, run: MlflowRun, event: Event) -> None:
    ended = event.report.run_ended if event.state == "COMPLETE" else "KILLED" if event.state == "ABORT" else "FAILED"
    if ended and "MLFLOW_RUN_ID" not in os.environ:
        client.set_terminated(run.info.run_id, ended)


def _run(client: MlflowClient, model: str) -> MlflowRun:
    """Return the pipeline run's MLflow run, made where there is none."""
    if given := os.environ.get("MLFLOW_RUN_ID"):
        own = client.get_run(given)
        return client.get_run(own.data.tags.get("mlflow.parentRunId", given))
    experiment, run = _experiment(client, model), run_id() or _own_id()
    if found := _oldest(client, experiment, run):
        return found
    began = time.monotonic()
    own = client.create_run(experiment, tags={TAG: run}, run_name=run, start_time=int(time.time() * 1000))
    time.sleep(SETTLE_SECONDS + 2 * (time.monotonic() - began))  # shards of a scoring start at once
    oldest = _oldest(client, experiment, run) or own
    if oldest.info.run_id != own.info.run_id:
        client.delete_run(own.info.run_id)
    return oldest


def _oldest(client: MlflowClient, experiment: str, run: str) -> MlflowRun | None:
    found = client.search_runs([experiment], f"tags.`{TAG}` = '{run}'")
    return min(found, key=lambda it: (it.info.start_time, it.info.run_id), default=None)


def _experiment(client: MlflowClient, model: str) -> str:
    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or f"penstock-{model}"
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:  # another run was first
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


@cache
def _own_id() -> str:
    """Stands for the run's ID outside of runs, so that what one process tells is kept together."""
    return uuid.uuid4().hex
