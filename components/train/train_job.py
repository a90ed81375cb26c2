"""A TrainJob of Kubeflow Trainer v2, by the SDK of Kubeflow: submitted, followed, and deleted when it or its step ends.

It refers to the TrainingRuntime of manifests/components/trainer, in its namespace: the Trainer refuses a TrainJob that changes the
environment of a node's container by a patch, so that the Secret of the store is named in the runtime.
"""

import time
from collections.abc import Callable
from typing import Any

from kubeflow.trainer import CustomTrainerContainer, TrainerClient
from kubeflow.trainer.options import (
    JobSetSpecPatch,
    JobSetTemplatePatch,
    JobSpecPatch,
    JobTemplatePatch,
    Name,
    PodSpecPatch,
    PodTemplatePatch,
    ReplicatedJobPatch,
    RuntimePatch,
    TrainerCommand,
    TrainingRuntimeSpecPatch,
)
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from components.classifier.errors import TrainingError, UsageError, first_line
from components.doctor.gather import Reader
from components.doctor.seen import Object
from components.train.nodes import ENDED, JobRequest, Waiting, cause, status_line, waiting_for, without_memory

RUNTIME = "penstock-nodes"
JOB_LABEL = "jobset.sigs.k8s.io/jobset-name"
SECONDS = 5.0
"""Between two looks at the job."""
MAX_SILENCE = 300.0
"""Seconds for which the API server may fail before the step gives up."""
STUCK_SECONDS = 120.0
"""Seconds for which pods may wait for what does not pass by itself, as an image that is not there, before the step gives up."""
_FAILURES = (RuntimeError, TimeoutError)  # what the SDK raises, the answer of the API server being its cause
_ADVICE = {
    403: "apply manifests/components/trainer in the namespace of the runs, and bind the Role penstock-nodes to the account of the steps",
    404: "install Kubeflow Trainer 2.3 or later, and apply manifests/components/trainer in the namespace of the runs",
}
"""By the status of the API server's answer; whatever else it is may pass."""


def run_job(request: JobRequest, show: Callable[[str], None] = print, seconds: float = SECONDS) -> None:
    """Submit a TrainJob, or find the one of that name, and show its status and the log of the first node until it is complete.

    However that ends, the job is deleted. Raises TrainingError when it cannot be submitted, when it fails, or when it is deleted.
    """
    client = TrainerClient()
    try:
        _submit(client, request)
        show(f"TrainJob {request.name}: {request.nodes} nodes of {request.image}")
        _follow(client, request, show, seconds)
    finally:
        try:
            client.delete_job(request.name)
        except _FAILURES as error:
            if _status(error) != 404:
                show(f"note: TrainJob {request.name} could not be deleted ({_reason(error)}); `kubectl delete trainjob {request.name}`")


def _submit(client: TrainerClient, request: JobRequest) -> None:
    pod = PodTemplatePatch(spec=PodSpecPatch(node_selector=request.node_selector))
    node = ReplicatedJobPatch(name="node", template=JobTemplatePatch(spec=JobSpecPatch(template=pod)))
    jobs = JobSetTemplatePatch(spec=JobSetSpecPatch(replicated_jobs=[node]))
    selected = [RuntimePatch(TrainingRuntimeSpecPatch(template=jobs))] if request.node_selector else []
    trainer = CustomTrainerContainer(
        image=request.image, num_nodes=request.nodes, resources_per_node=request.resources, env=request.environment
    )
    try:
        runtime = client.get_runtime(RUNTIME)
        client.train(runtime=runtime, trainer=trainer, options=[Name(request.name), TrainerCommand(request.command), *selected])
    except _FAILURES as error:
        if _status(error) != 409:  # there is one: of this step, before its pod was lost
            raise TrainingError(f"TrainJob {request.name} cannot be submitted ({_reason(error)}); {_advice(error)}") from error


def _follow(client: TrainerClient, request: JobRequest, show: Callable[[str], None], seconds: float) -> None:
    patient = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, _FAILURES) and _status(error) not in {403, 404}),
        stop=stop_after_delay(MAX_SILENCE),
        wait=wait_fixed(seconds),
        reraise=True,
    )
    said, lines, fine = "", 0, time.monotonic()
    pods = f"pods?labelSelector={JOB_LABEL}={request.name}"
    while True:
        try:
            job = patient(client.get_job, request.name)
        except _FAILURES as error:
            raise TrainingError(f"TrainJob {request.name} cannot be followed ({_reason(error)}); {_advice(error)}") from error
        states = {step.name: step.status or "Unknown" for step in job.steps}
        starting = job.status not in ENDED and (len(states) < request.nodes or "Pending" in states.values())
        waiting = Waiting()
        if starting:
            events = _read(client, "events?fieldSelector=type=Warning")
            waiting = waiting_for(request.name, request.nodes, job.creation_timestamp, _read(client, pods), events)
        if (line := status_line(job.status, states, waiting.reason)) != said:
            show(f"TrainJob {request.name}: {line}")
            said = line
        fine = fine if waiting.stuck else time.monotonic()
        if time.monotonic() - fine > STUCK_SECONDS:
            raise TrainingError(
                f"TrainJob {request.name} does not start: {waiting.reason}; correct that (the image is {request.image}), and run again"
            )
        log = _log(client, request.name, "node-0")
        for line in log[lines:]:
            show(line)
        lines = max(lines, len(log))
        if job.status == "Complete":
            return
        if job.status == "Failed":
            failed = [step.name for step in job.steps if step.status == "Failed"]
            logs = {name: _log(client, request.name, name) for name in failed}
            raise TrainingError(cause(request.name, logs, without_memory(_read(client, pods))))
        time.sleep(seconds)


def _read(client: TrainerClient, kind: str) -> list[Object]:
    """Objects of the namespace; none where the account may not list them, or the API server does not answer now."""
    try:
        answer = Reader().get(f"/api/v1/namespaces/{client.backend.namespace}/{kind}")
    except UsageError:
        return []
    return answer.get("items") or [] if isinstance(answer, dict) else []


def _log(client: TrainerClient, job: str, node: str) -> list[str]:
    try:
        return list(client.get_job_logs(job, step=node))
    except _FAILURES:  # the container has not started, or its machine does not answer: the next look is soon
        return []


def _status(error: BaseException) -> Any:
    return getattr(error.__cause__, "status", None)


def _advice(error: BaseException) -> str:
    return _ADVICE.get(_status(error), "run again")


def _reason(error: BaseException) -> str:
    status = _status(error)
    answer = f"{status} {getattr(error.__cause__, 'reason', '')}".strip() if status else first_line(error.__cause__ or error)
    return f"{first_line(error)}: {answer}"
