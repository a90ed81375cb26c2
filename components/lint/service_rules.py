"""Traps of KServe, seen on its 0.20 controller, and of what its services need."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from components.lint.manifest import KNATIVE, KSERVE, MODE, STANDARD, Manifest
from components.lint.registry import Hit, Level, rule
from components.lint.values import at, is_template, mapping, number, sequence, text

_MAX_LABEL = 63
_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_MUTABLE = {"latest", "current", "newest", "best", "main", "master", "prod", "production", "staging", "stable", "champion", "active"}
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}")
_S3_ENDPOINT = f"{KSERVE}/s3-endpoint"
_S3_HTTPS = f"{KSERVE}/s3-usehttps"


def _storage_uris(manifest: Manifest) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    for model, keys in manifest.models():
        uri = text(model, "storageUri")
        if uri and not is_template(uri):
            yield uri, (*keys, "storageUri")


@rule(Level.WARNING)
def storage_uri_without_slash(manifest: Manifest) -> Iterator[Hit]:
    """An s3:// storageUri of a folder does not end with a slash.

    KServe downloads every object whose key begins with this text: …/v1 also brings …/v10, as a folder beside the model.

    Fix: end it with a slash.
    """
    for uri, keys in _storage_uris(manifest):
        last = uri.rpartition("/")[2]
        if uri.startswith("s3://") and uri.count("/") > 2 and last and not re.search(r"\.[A-Za-z][A-Za-z0-9]*$", last):
            yield Hit(manifest.at(*keys), f"storageUri {uri}", uri + "/")


@rule(Level.WARNING)
def mutable_storage_uri(manifest: Manifest) -> Iterator[Hit]:
    """A storageUri names a path whose content changes.

    New content under the same address is not picked up; a pod that is restarted later serves another model than the others do.

    Fix: a path for each version, which is never written again; deploy by changing the storageUri.
    """
    for uri, keys in _storage_uris(manifest):
        found = [part for part in urlsplit(uri).path.split("/") if part.lower() in _MUTABLE]
        if found and not uri.startswith(("hf://", "https://huggingface")):
            yield Hit(manifest.at(*keys), f"storageUri {uri} holds {found[0]}")


@rule(Level.ERROR)
def unknown_storage_scheme(manifest: Manifest) -> Iterator[Hit]:
    """A storageUri has a scheme that KServe's download does not know.

    The pod's storage-initializer fails, and the service never gets ready; minio:// is Kubeflow Pipelines' own.

    Fix: s3://bucket/path/ with the endpoint in the Secret's annotations, or another scheme that KServe lists.
    """
    for uri, keys in _storage_uris(manifest):
        scheme = urlsplit(uri).scheme
        if scheme == "minio" or (not scheme and not uri.startswith("/")):
            yield Hit(manifest.at(*keys), f"storageUri {uri}")


@rule(Level.ERROR)
def canary_percent_in_standard_mode(manifest: Manifest) -> Iterator[Hit]:
    """canaryTrafficPercent is set in Standard mode.

    It is accepted and ignored: the new version takes all traffic at once.

    Fix: Knative mode, or spec.canary with the Gateway API; in Standard mode take the field out.
    """
    for _, spec, keys in manifest.components():
        if manifest.mode == STANDARD and at(spec, "canaryTrafficPercent") is not None:
            yield Hit(manifest.at(*keys, "canaryTrafficPercent"), f"canaryTrafficPercent {spec['canaryTrafficPercent']} in {STANDARD} mode")


@rule(Level.NOTE)
def missing_deployment_mode(manifest: Manifest) -> Iterator[Hit]:
    """An InferenceService does not say its deployment mode.

    It gets the cluster's default, which another cluster or release sets otherwise; the mode of a service cannot be changed later.

    Fix: annotation serving.kserve.io/deploymentMode: Standard (plain Deployments) or Knative.
    """
    if manifest.is_service and not at(manifest.annotations, MODE):
        yield Hit(manifest.at("metadata"), f"{manifest.name or 'the service'} has no annotation {MODE}")


@rule(Level.ERROR)
def strategy_in_knative_mode(manifest: Manifest) -> Iterator[Hit]:
    """A field that only one deployment mode knows is set in the other one.

    The webhook refuses deploymentStrategy and spec.canary in Knative mode: nothing is applied.

    Fix: take the field out, or use Standard mode.
    """
    if manifest.mode != KNATIVE:
        return
    for _, spec, keys in manifest.components():
        if "deploymentStrategy" in spec:
            yield Hit(manifest.at(*keys, "deploymentStrategy"), f"deploymentStrategy in {KNATIVE} mode")
    if manifest.is_service and sequence(manifest.value, "spec", "canary"):
        yield Hit(manifest.at("spec", "canary"), f"spec.canary in {KNATIVE} mode")


@rule(Level.ERROR)
def canary_percent_out_of_range(manifest: Manifest) -> Iterator[Hit]:
    """A canary's share of the traffic is not between 0 and 100, or all shares together are more than 100.

    The webhook refuses the service.

    Fix: whole percents from 0 to 100.
    """
    shares = []
    for name, spec, keys in manifest.components():
        percent = number(spec, "canaryTrafficPercent")
        if name != "canary" and percent is not None and not 0 <= percent <= 100:
            yield Hit(manifest.at(*keys, "canaryTrafficPercent"), f"canaryTrafficPercent {percent}")
    for index, canary in enumerate(sequence(manifest.value, "spec", "canary") if manifest.is_service else []):
        shares.append(number(canary, "trafficPercent") or 0)
        if shares[-1] < 0:
            yield Hit(manifest.at("spec", "canary", index, "trafficPercent"), f"trafficPercent {shares[-1]}")
    if sum(shares) > 100:
        yield Hit(manifest.at("spec", "canary"), f"the canaries' shares are {sum(shares)} percent together")


@rule(Level.ERROR)
def s3_endpoint_form(manifest: Manifest) -> Iterator[Hit]:
    """The annotation serving.kserve.io/s3-endpoint is not HOST:PORT.

    KServe puts a scheme before it: with one of its own, a path or a blank the address is wrong, and the download fails with "Could
    not connect" or "Invalid endpoint".

    Fix: host:port alone; the scheme goes into serving.kserve.io/s3-usehttps ("0" or "1").
    """
    endpoint = at(manifest.annotations, _S3_ENDPOINT)
    if manifest.kind not in ("Secret", "ServiceAccount") or not isinstance(endpoint, str) or is_template(endpoint):
        return
    scheme, _, rest = endpoint.rpartition("://")
    host = rest.strip().partition("/")[0].rstrip(".")
    if endpoint != host:
        https = str(at(manifest.annotations, _S3_HTTPS) or "1")
        agrees = not scheme or (scheme == "https") == (https == "1")
        yield Hit(manifest.at("metadata", "annotations", _S3_ENDPOINT), f"s3-endpoint is {endpoint!r}", host if agrees and host else None)


@rule(Level.WARNING)
def s3_secret_not_listed(manifest: Manifest) -> Iterator[Hit]:
    """A Secret with KServe's S3 annotations is listed by no ServiceAccount.

    KServe reads credentials only from the Secrets that the predictor's ServiceAccount lists: the download fails with 403 or "Unable
    to locate credentials".

    Fix: secrets: [{name: …}] in the ServiceAccount that serviceAccountName names, in the same namespace.
    """
    if manifest.kind != "Secret" or not manifest.name or not any(it.startswith(f"{KSERVE}/s3-") for it in manifest.annotations):
        return
    accounts = [it for it in manifest.others("ServiceAccount") if Path(it.document.file).parent == Path(manifest.document.file).parent]
    listed = {text(it, "name") for account in accounts for it in sequence(account.value, "secrets")}
    if accounts and manifest.name not in listed:
        yield Hit(manifest.at("metadata", "name"), f"no ServiceAccount beside it lists {manifest.name}")


@rule(Level.ERROR)
def service_name_too_long(manifest: Manifest) -> Iterator[Hit]:
    """An InferenceService's name and namespace are too long together.

    KServe makes one DNS label of NAME-predictor-NAMESPACE; over 63 characters the service is accepted and never gets an address.

    Fix: a shorter name or namespace.
    """
    if manifest.is_service and manifest.name:
        label = "-".join(filter(None, (manifest.name, "predictor", manifest.namespace)))
        if len(label) > _MAX_LABEL:
            yield Hit(manifest.at("metadata", "name"), f"{label} has {len(label)} characters")


@rule(Level.ERROR)
def service_name_form(manifest: Manifest) -> Iterator[Hit]:
    """An InferenceService's name is not what KServe's webhook takes.

    A name that begins with a digit or holds a dot or a capital is refused: nothing is applied.

    Fix: small letters, digits and dashes, a letter first.
    """
    if manifest.is_service and manifest.name and not _SERVICE_NAME.fullmatch(manifest.name):
        yield Hit(manifest.at("metadata", "name"), f"the name is {manifest.name}")


@rule(Level.ERROR)
def replicas_reversed(manifest: Manifest) -> Iterator[Hit]:
    """minReplicas is larger than maxReplicas.

    KServe's webhook, or the API server, refuses it.

    Fix: raise maxReplicas, or lower minReplicas.
    """
    specs = [(spec, keys) for _, spec, keys in manifest.components()]
    if manifest.kind == "HorizontalPodAutoscaler":
        specs.append((mapping(manifest.value, "spec"), ("spec",)))
    for spec, keys in specs:
        least, most = number(spec, "minReplicas"), number(spec, "maxReplicas")
        if least is not None and most and least > most:
            yield Hit(manifest.at(*keys, "minReplicas"), f"minReplicas {least}, maxReplicas {most}")


@rule(Level.NOTE)
def zero_replicas_in_standard_mode(manifest: Manifest) -> Iterator[Hit]:
    """minReplicas 0 in Standard mode.

    It is taken as 1: nothing scales to zero, and a GPU stays in use.

    Fix: Knative mode, or KEDA (serving.kserve.io/autoscalerClass: keda).
    """
    for _, spec, keys in manifest.components():
        keda = text(manifest.annotations, f"{KSERVE}/autoscalerClass") == "keda"
        if manifest.mode == STANDARD and number(spec, "minReplicas") == 0 and not keda:
            yield Hit(manifest.at(*keys, "minReplicas"), "minReplicas is 0")


@rule(Level.NOTE)
def single_replica_without_budget(manifest: Manifest) -> Iterator[Hit]:
    """A service has one replica, and no PodDisruptionBudget selects it.

    When its node is drained or its pod crashes, requests fail for seconds, until another pod has loaded the model.

    Fix: minReplicas: 2 with a PodDisruptionBudget that selects serving.kserve.io/inferenceservice: NAME; KServe makes none.
    """
    if not manifest.is_service or not (spec := mapping(manifest.value, "spec", "predictor")):
        return
    least = number(spec, "minReplicas")
    if (1 if least is None else least) == 1 and not any(_selects(it, manifest) for it in manifest.others("PodDisruptionBudget")):
        yield Hit(manifest.at("spec", "predictor"), f"{manifest.name or 'the service'} has one replica, and no budget")


def _selects(budget: Manifest, service: Manifest) -> bool:
    labels = {f"{KSERVE}/inferenceservice": service.name, **mapping(service.value, "metadata", "labels")}
    for _, spec, _ in service.components():
        labels |= mapping(spec, "labels")
        runtime = text(spec, "model", "runtime")
        for it in service.project.manifests:
            if it.kind in ("ServingRuntime", "ClusterServingRuntime") and it.name == runtime:
                labels |= mapping(it.value, "spec", "labels")
    wanted = mapping(budget.value, "spec", "selector", "matchLabels")
    return bool(wanted or sequence(budget.value, "spec", "selector", "matchExpressions")) and wanted.items() <= labels.items()


@rule(Level.WARNING)
def budget_blocks_drains(manifest: Manifest) -> Iterator[Hit]:
    """A PodDisruptionBudget never lets a pod go.

    `kubectl drain` and cluster upgrades wait for ever at this node.

    Fix: maxUnavailable: 1.
    """
    if manifest.kind == "PodDisruptionBudget":
        for key, never in (("maxUnavailable", (0, "0", "0%")), ("minAvailable", ("100%",))):
            value = at(manifest.value, "spec", key)
            if not isinstance(value, bool) and value in never:
                yield Hit(manifest.at("spec", key), f"{key} is {value}")


@rule(Level.ERROR)
def model_and_containers(manifest: Manifest) -> Iterator[Hit]:
    """A predictor has both a model and containers, or several models.

    The webhook takes exactly one of them.

    Fix: keep `model` and put what the container needs into a ServingRuntime, or keep the containers.
    """
    frameworks = {"model", "sklearn", "xgboost", "tensorflow", "pytorch", "triton", "onnx", "pmml", "lightgbm", "paddle", "huggingface"}
    for name, spec, keys in manifest.components():
        found = [key for key in spec if key in frameworks and isinstance(spec[key], dict)]
        kserve = [it for it in sequence(spec, "containers") if text(it, "name") == "kserve-container"]
        if name in ("predictor", "canary") and (len(found) > 1 or (found and kserve)):
            yield Hit(manifest.at(*keys), f"{name} has {' and '.join(found + (['containers'] if kserve else []))}")


@rule(Level.ERROR)
def blocked_variable(manifest: Manifest) -> Iterator[Hit]:
    """A predictor's container sets PYTHONPATH.

    KServe's webhook refuses the variable.

    Fix: install the package in the image, or set the path in its entry point.
    """
    if not manifest.is_service:
        return
    parts = [(container.spec, container.place.keys) for container in manifest.containers()]
    for spec, keys in [*parts, *manifest.models()]:
        for index, variable in enumerate(sequence(spec, "env")):
            if text(variable, "name") == "PYTHONPATH":
                yield Hit(manifest.at(*keys, "env", index), "PYTHONPATH is set")


@rule(Level.WARNING)
def timestamp_annotation(manifest: Manifest) -> Iterator[Hit]:
    """An InferenceService has a time in its annotations or labels.

    They travel to the pods: each apply with another time replaces every pod, although nothing else changed.

    Fix: leave it out; mark a version by a value that changes with the version only.
    """
    if manifest.is_service:
        for part in ("annotations", "labels"):
            for key, value in mapping(manifest.value, "metadata", part).items():
                if isinstance(value, str) and _TIME.match(value):
                    yield Hit(manifest.at("metadata", part, key), f"{key} is {value}")
