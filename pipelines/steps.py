"""What every step of every pipeline gets: a name, credentials, retries, a deadline and a safe identity.

`set_retry` restarts a step whose pod was lost. A stock installation does not retry a step that exits with an error: so steps
themselves retry what may succeed a moment later (storage, the API server), and every step can be started again.
"""

import os
from collections.abc import Mapping
from typing import Any

from kfp import dsl, kubernetes

from components.integrations.observe import MODEL_REGISTRY, RUN
from components.settings.resources import POD, POD_NAMESPACE, read_steps, step_name, step_resources
from pipelines.kfp_inside import name_callers_cheaply

name_callers_cheaply()
RESOURCES = read_steps(os.environ.get("PENSTOCK_RESOURCES", ""))
"""What each step asks of the cluster beside the defaults, read when a pipeline is compiled."""
STORAGE_SECRET = "penstock-s3"
STORAGE_CONFIG = "penstock-storage"

_SECRET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_CONFIG_KEYS = (
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_CA_BUNDLE",
    "PENSTOCK_S3_ADDRESSING",
    "PENSTOCK_S3_ENCRYPTION",
    "PENSTOCK_S3_KMS_KEY",
    "PENSTOCK_S3_REQUEST_PAYER",
    "PENSTOCK_S3_TIMEOUT_S",
    "PENSTOCK_S3_DEADLINE_S",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "PENSTOCK_ENVIRONMENT",
)
SERVICE_SECRET, SERVICE_TOKEN = "penstock-service", "PENSTOCK_KSERVE_TOKEN"
WEBHOOK_SECRET = "penstock-notify"
CA_CONFIG, CA_FOLDER = "penstock-ca", "/etc/penstock/ca"
ENVIRONMENTS_CONFIG, ENVIRONMENTS_FOLDER = "penstock-environments", "/etc/penstock/environments"
VERIFY_CONFIG, VERIFY_FOLDER = "penstock-verify", "/etc/penstock/verify"
SIGNING_SECRET, SIGNING_FOLDER = "penstock-signing", "/etc/penstock/signing"

INTEGRATIONS, INTEGRATIONS_FOLDER = "penstock-integrations", "/etc/penstock/integrations"
"""A ConfigMap and a Secret of this name say what the steps tell OpenLineage, MLflow and the Model Registry: docs/integrations.md."""
_INTEGRATIONS_CONFIG = (
    "OPENLINEAGE_URL",
    "OPENLINEAGE_ENDPOINT",
    "OPENLINEAGE_NAMESPACE",
    "OPENLINEAGE_CONFIG",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
    MODEL_REGISTRY,
    f"{MODEL_REGISTRY}_CA",
)
_INTEGRATIONS_SECRET = (
    "OPENLINEAGE_API_KEY",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    f"{MODEL_REGISTRY}_TOKEN",
)
RUN_LABEL = "pipeline/runid"
"""The label by which Kubeflow marks the pods of a run with its ID."""

RUN_ID = dsl.PIPELINE_JOB_ID_PLACEHOLDER
"""Becomes the run's ID when it runs."""

MINUTE, HOUR = 60, 3600


def some(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Choose some of a pipeline's parameters, by their names."""
    return {name: given[name] for name in names}


def configure(
    task: dsl.PipelineTask,
    display_name: str,
    *,
    timeout: int,
    retries: int = 2,
) -> dsl.PipelineTask:
    """Apply the settings that all steps share.

    `timeout` in seconds, after which Kubernetes ends the pod (a missing secret or an unschedulable pod waits for ever
    otherwise). Nothing is cached: Kubeflow's key holds the ids of input artifacts, which every run makes anew. The step is
    given the credentials of the object store, the public key of signatures and the cluster's own environments: the
    Secret and ConfigMaps are optional, so that a cluster with workload identity (IRSA) or a local run needs none. Requests,
    limits, nodes and labels are those of `step_resources`: a ResourceQuota refuses a pod that lacks one that it counts. Raises
    UsageError for what PENSTOCK_RESOURCES gets wrong about this step.
    """
    task.set_display_name(display_name)
    task.set_caching_options(False)
    if retries:  # the "max duration" is not the longest pause: it bounds all tries together, from the start of the first
        longest = f"{(retries + 1) * timeout}s"
        task.set_retry(num_retries=retries, backoff_duration="10s", backoff_factor=2.0, backoff_max_duration=longest)
    _ask(task)
    kubernetes.set_timeout(task, timeout)
    kubernetes.set_security_context(task, run_as_non_root=True)
    kubernetes.use_secret_as_env(task, STORAGE_SECRET, {key: key for key in _SECRET_KEYS}, optional=True)
    kubernetes.use_config_map_as_env(task, STORAGE_CONFIG, {key: key for key in _CONFIG_KEYS}, optional=True)
    kubernetes.use_config_map_as_volume(task, CA_CONFIG, CA_FOLDER, optional=True)
    kubernetes.use_config_map_as_env(task, VERIFY_CONFIG, {"PENSTOCK_VERIFY_KEY": "PENSTOCK_VERIFY_KEY"}, optional=True)
    kubernetes.use_config_map_as_volume(task, VERIFY_CONFIG, VERIFY_FOLDER, optional=True)
    kubernetes.use_config_map_as_volume(task, ENVIRONMENTS_CONFIG, ENVIRONMENTS_FOLDER, optional=True)
    kubernetes.use_field_path_as_env(task, RUN, f"metadata.labels['{RUN_LABEL}']")
    kubernetes.use_config_map_as_env(task, INTEGRATIONS, {key: key for key in _INTEGRATIONS_CONFIG}, optional=True)
    kubernetes.use_secret_as_env(task, INTEGRATIONS, {key: key for key in _INTEGRATIONS_SECRET}, optional=True)
    kubernetes.use_config_map_as_volume(task, INTEGRATIONS, INTEGRATIONS_FOLDER, optional=True)
    return task


def _ask(task: dsl.PipelineTask) -> None:
    asked = step_resources(step_name(task.name), RESOURCES)
    task.set_cpu_request(asked.cpu).set_memory_request(asked.memory).set_cpu_limit(asked.cpu_limit).set_memory_limit(asked.memory_limit)
    for key, value in asked.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for it in asked.tolerations:
        kubernetes.add_toleration(task, **{name: value for name, value in it.model_dump().items() if value})
    for key, value in asked.labels.items():
        kubernetes.add_pod_label(task, key, value)
    for key, value in asked.annotations.items():
        kubernetes.add_pod_annotation(task, key, value)


def use_gpus(task: dsl.PipelineTask, gpus: str, resource: str, node_selector: dict[str, str]) -> dsl.PipelineTask:
    """Ask for GPUs by run parameters, and let the pod onto nodes that are tainted for them.

    All three are run parameters, or what a step returned. `gpus` is a string: an integer parameter would compile to no limit at
    all. "0" asks for none.
    """
    task.set_accelerator_type(resource)
    task.set_accelerator_limit(gpus)
    kubernetes.add_node_selector_json(task, node_selector)
    kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
    return task


def pod_inputs(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what preflight returned about the pods that train, as inputs of such a step; kfp takes the names without pod_ itself."""
    named = {f"pod_{name}": asked[name] for name in ("cpu", "memory", "cpu_limit", "memory_limit")}
    return {**named, "gpu_resource": asked["gpu_resource"], "node_selector": asked["node_selector"]}


def use_pod(task: dsl.PipelineTask, gpus: str, asked: Mapping[str, Any]) -> dsl.PipelineTask:
    """Give a step that trains the CPUs, memory, GPUs and nodes that preflight returned: `asked` are its outputs."""
    use_gpus(task, gpus, asked["gpu_resource"], asked["node_selector"])
    task.set_cpu_request(asked["cpu"]).set_memory_request(asked["memory"])
    return task.set_cpu_limit(asked["cpu_limit"]).set_memory_limit(asked["memory_limit"])


def within_group(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Let a step within a loop or a condition find the nodes that a step outside of it returned.

    The group gets that value as an input, as all that its steps use. But kfp's extension for Kubernetes writes the name of the step
    that made it, which Kubeflow looks for among the group's own steps (resolveInputParameter in backend/src/v2/driver/resolve.go).
    """
    selector = task.platform_config["kubernetes"]["nodeSelector"]["nodeSelectorJson"]
    if made := selector.pop("taskOutputParameter", None):
        selector["componentInputParameter"] = f"pipelinechannel--{made['producerTask']}-{made['outputParameterKey']}"
    return task


def know_own_pod(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Tell the step the name and the namespace of its pod."""
    kubernetes.use_field_path_as_env(task, POD, "metadata.name")
    return kubernetes.use_field_path_as_env(task, POD_NAMESPACE, "metadata.namespace")


def use_webhook(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Give the step the address to which the outcome is posted, and that of Kubeflow's UI; the Secret is optional."""
    names = ("PENSTOCK_WEBHOOK_URL", "PENSTOCK_KFP_UI")
    return kubernetes.use_secret_as_env(task, WEBHOOK_SECRET, {name: name for name in names}, optional=True)


def configure_rollout(task: dsl.PipelineTask, display_name: str, *, retries: int = 2) -> dsl.PipelineTask:
    """Apply the settings of a step that changes what serves: it asks golden requests, and writes the ledger.

    It is given the bearer token that golden requests need where an ingress asks for one; the Secret is optional.
    """
    configure(task, display_name, timeout=1 * HOUR, retries=retries)
    kubernetes.use_secret_as_env(task, SERVICE_SECRET, {SERVICE_TOKEN: SERVICE_TOKEN}, optional=True)
    return use_signing_key(task)


def use_signing_key(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Give a step that publishes, or writes the ledger, the private key by which it signs; the Secret is optional."""
    names = ("PENSTOCK_SIGNING_KEY", "PENSTOCK_SIGNING_PASSWORD")
    kubernetes.use_secret_as_env(task, SIGNING_SECRET, {name: name for name in names}, optional=True)
    return kubernetes.use_secret_as_volume(task, SIGNING_SECRET, SIGNING_FOLDER, optional=True)
