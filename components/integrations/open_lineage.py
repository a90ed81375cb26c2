"""OpenLineage: one run per step, started and ended by an event, as a child of the pipeline's run.

The transport is the library's own matter: OPENLINEAGE_URL, openlineage.yml and OPENLINEAGE__TRANSPORT__…. A dataset is named as the
specification says: the store's address is the namespace, the rest of the address the name.
"""

import os
import traceback
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import attr
from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState, set_producer
from openlineage.client.facet_v2 import (
    RunFacet,
    data_quality_assertions_dataset,
    data_quality_metrics_input_dataset,
    dataset_type_dataset,
    dataset_version_dataset,
    error_message_run,
    execution_parameters_run,
    job_type_job,
    output_statistics_output_dataset,
    parent_run,
    processing_engine_run,
)
from openlineage.client.uuid import generate_new_uuid

from components.classifier.errors import first_line
from components.integrations.observe import Data, Event, Listener, run_id
from components.settings.ingest import NAMED_SOURCES

NAMESPACE = "penstock"
"""The namespace of jobs where OPENLINEAGE_NAMESPACE names no other, and of sets that the world knows, such as mnist."""
CLOSE_SECONDS = 5.0
"""How long a transport that sends in the background may take for what it has when the step ends."""


@attr.define
class MetricsRunFacet(RunFacet):
    """What a step measured: a facet of our own, since the specification has none for a model's figures."""

    metrics: dict[str, float]


def listener() -> Listener:
    """Return what sends the events of one step; raises what the library raises for a configuration that it cannot read."""
    set_producer(f"urn:penstock:{installed('penstock')}")
    client, run = _client(), str(generate_new_uuid())

    def tell(event: Event) -> None:
        client.emit(run_event(event, run))
        if event.state != "START":
            client.close(CLOSE_SECONDS)

    return tell


@cache
def _client() -> OpenLineageClient:
    return OpenLineageClient()


def run_event(event: Event, run: str) -> RunEvent:
    """Return the event in OpenLineage's form; `run` is the ID of the step's run."""
    report = event.report
    kind = job_type_job.JobTypeJobFacet(processingType="BATCH", integration="PENSTOCK", jobType="TASK")
    return RunEvent(
        eventType=RunState(event.state),
        eventTime=datetime.now(UTC).isoformat(),
        run=Run(runId=run, facets=dict(_run_facets(event))),
        job=Job(namespace=_namespace(), name=f"penstock.{report.step}", facets={"jobType": kind}),
        inputs=[_input(data) for data in report.inputs],
        outputs=[_output(data) for data in report.outputs],
    )


def parent_id(run: str) -> str:
    """Return the pipeline run's ID as a UUID: Kubeflow's is one, that of a local run is made into one, always the same."""
    try:
        return str(uuid.UUID(run))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"penstock:{run}"))


def identify(address: str) -> tuple[str, str]:
    """Return the namespace and the name of a dataset by its address, as OpenLineage's naming wants them."""
    if address in NAMED_SOURCES:
        return NAMESPACE, address
    if "://" not in address:
        return "file", str(Path(address).absolute())
    scheme, _, rest = address.partition("://")
    authority, _, name = rest.partition("/")
    return f"{scheme}://{authority}", name.strip("/") or "/"


def _namespace() -> str:
    return os.environ.get("OPENLINEAGE_NAMESPACE", "").strip() or NAMESPACE


def _run_facets(event: Event) -> Iterator[tuple[str, RunFacet]]:
    report = event.report
    yield "processing_engine", processing_engine_run.ProcessingEngineRunFacet(version=installed("penstock"), name="Penstock")
    if run := run_id():
        parent = parent_run.Run(runId=parent_id(run)), parent_run.Job(namespace=_namespace(), name="penstock")
        yield "parent", parent_run.ParentRunFacet(*parent)
    if report.parameters:
        named = [execution_parameters_run.ExecutionParameter(key=key, value=str(value)) for key, value in report.parameters.items()]
        yield "executionParameters", execution_parameters_run.ExecutionParametersRunFacet(parameters=named)
    if report.metrics:
        yield "penstock_metrics", MetricsRunFacet(report.metrics)
    if event.error is not None:
        stack = "".join(traceback.format_exception(event.error))
        message = first_line(event.error)
        yield "errorMessage", error_message_run.ErrorMessageRunFacet(message=message, programmingLanguage="PYTHON", stackTrace=stack)


def _facets(data: Data) -> dict[str, Any]:
    facets: dict[str, Any] = {"datasetType": dataset_type_dataset.DatasetTypeDatasetFacet(datasetType=data.kind)}
    if data.version:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=data.version)
    return facets


def _input(data: Data) -> InputDataset:
    namespace, name = identify(data.address)
    facets: dict[str, Any] = {}
    if data.rows is not None:
        columns = {"label": data_quality_metrics_input_dataset.ColumnMetrics(distinctCount=len(data.classes), count=float(data.rows))}
        facets["dataQualityMetrics"] = data_quality_metrics_input_dataset.DataQualityMetricsInputDatasetFacet(columns, rowCount=data.rows)
    if data.checks:
        found = [data_quality_assertions_dataset.Assertion(assertion=check, success=holds) for check, holds in data.checks.items()]
        facets["dataQualityAssertions"] = data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet(assertions=found)
    return InputDataset(namespace=namespace, name=name, facets=_facets(data), inputFacets=facets)


def _output(data: Data) -> OutputDataset:
    namespace, name = identify(data.address)
    rows = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=data.rows)
    facets: dict[str, Any] = {"outputStatistics": rows} if data.rows is not None else {}
    return OutputDataset(namespace=namespace, name=name, facets=_facets(data), outputFacets=facets)
