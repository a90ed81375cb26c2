"""The InferenceService as a value: rendered for a version, compared, and read back; nothing here talks to a cluster."""

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from components.settings.serving import KServeSettings, canonical

Object = dict[str, Any]

API_VERSION, KIND = "serving.kserve.io/v1beta1", "InferenceService"
MANAGER = "penstock"
MODE = "serving.kserve.io/deploymentMode"
AUTOSCALER = "serving.kserve.io/autoscalerClass"
VERSION = "penstock/model-version"
"""The annotation that names the version; KServe copies it to the pods, which change with the version anyway."""
DIGEST = "penstock/spec-digest"
"""The annotation with the digest of all that shapes the pods; KServe copies it to them, and so tells two specs of a version apart."""
_NOT_OF_PODS = ("minReplicas", "maxReplicas", "canaryTrafficPercent", "deploymentStrategy")
GRACE_SECONDS = 45
"""The ServingRuntime's preStop sleep of 5 s, 2 s in which the predictor still takes requests, 30 s for those in flight."""


def render(
    service: str,
    version: str,
    uri: str,
    settings: KServeSettings,
    environment: Mapping[str, str] | None = None,
    *,
    percent: int | None = None,
) -> Object:
    """Render the InferenceService that serves a version from `uri`.

    `environment`: variables of the predictor. `percent`: the share of the traffic that it gets, in Knative mode.
    """
    max_replicas = settings.max_replicas or max(settings.min_replicas, 1)
    annotations = {MODE: settings.mode, VERSION: version}
    if settings.standard and max_replicas == 1:
        # An autoscaler with nothing to decide only complains about missing metrics; for more than one it is what raises their number.
        annotations[AUTOSCALER] = "none"
    model: Object = {
        "modelFormat": {"name": settings.model_format},
        "runtime": settings.runtime,
        "protocolVersion": "v2",
        "storageUri": uri,
    }
    if environment:
        model["env"] = [{"name": name, "value": value} for name, value in sorted(environment.items())]
    predictor: Object = {
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        "minReplicas": settings.min_replicas,
        "maxReplicas": max_replicas,
        "model": model,
    }
    if settings.standard:
        predictor["terminationGracePeriodSeconds"] = GRACE_SECONDS
        # Of the pod: it covers KServe's init container too, which says nothing of its own.
        predictor["securityContext"] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        # The old pods go only when new ones answer.
        predictor["deploymentStrategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    annotations[DIGEST] = _digest({key: value for key, value in predictor.items() if key not in _NOT_OF_PODS})
    if percent is not None:
        predictor["canaryTrafficPercent"] = percent
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": service,
            "namespace": settings.namespace,
            "labels": {"app.kubernetes.io/managed-by": MANAGER},
            "annotations": annotations,
        },
        "spec": {"predictor": predictor},
    }


def with_lock(wanted: Object, live: Object) -> Object:
    """Return the object bound to what was read: applied to anything newer, it is refused."""
    locked = copy.deepcopy(wanted)
    locked["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
    locked["metadata"]["uid"] = live["metadata"]["uid"]
    return locked


def keep_mode_name(wanted: Object, live: Object) -> Object:
    """Return the object with the mode under the name that it has on the cluster: old and new names mean the same, a change is refused."""
    now = mode_of(live)
    kept = copy.deepcopy(wanted)
    if now and canonical(now) == canonical(kept["metadata"]["annotations"][MODE]):
        kept["metadata"]["annotations"][MODE] = now
    return kept


def mode_of(live: Object) -> str:
    """Return the deployment mode that an InferenceService runs in; empty when it does not say."""
    annotations = live["metadata"].get("annotations") or {}
    return str(annotations.get(MODE) or live.get("status", {}).get("deploymentMode") or "")


def uri_of(live: Object) -> str:
    """Return where an InferenceService's model comes from; empty when it has none."""
    return str(live.get("spec", {}).get("predictor", {}).get("model", {}).get("storageUri") or "")


def digest_of(applied: Object) -> str:
    """Return the digest of the spec that an InferenceService, or a pod template, was made from; empty where another tool made it."""
    return str((applied["metadata"].get("annotations") or {}).get(DIGEST, ""))


def _digest(part: Object) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:32]


def version_of(live: Object | None, models: str) -> str:
    """Return the version that an InferenceService serves, if it is one below the address `models`; else nothing."""
    uri = uri_of(live) if live else ""
    return uri.removeprefix(models).strip("/") if uri.startswith(models) else ""


def agrees(live: Object, wanted: Object) -> bool:
    """Say whether a live object has everything that we would apply, and no traffic percent left from a canary."""
    return agrees_in_spec(live, wanted) and all(
        _within(wanted["metadata"].get(key) or {}, live["metadata"].get(key) or {}) for key in ("annotations", "labels")
    )


def agrees_in_spec(live: Object, wanted: Object) -> bool:
    """Say the same of the spec alone, whose changes make a new generation."""
    percent = "canaryTrafficPercent"
    return _within(wanted["spec"], live.get("spec")) and wanted["spec"]["predictor"].get(percent) == live["spec"]["predictor"].get(percent)


def _within(wanted: Any, live: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(key in live and _within(value, live[key]) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(live, list) and len(live) == len(wanted) and all(_within(w, x) for w, x in zip(wanted, live, strict=True))
    return bool(wanted == live)


def applied_part(live: Object) -> Object:
    """Return what we applied of a live object, to be applied again: fields that other tools own are theirs.

    An object of which we own nothing is taken whole, without what the server adds.
    """
    ours = [entry for entry in live["metadata"].get("managedFields") or [] if _is_ours(entry)]
    whole = {"metadata": {key: live["metadata"][key] for key in ("labels", "annotations") if key in live["metadata"]}, "spec": live["spec"]}
    part: Object = {}
    for entry in ours:
        part = _merge(part, _extract(whole, entry["fieldsV1"]))
    if not part.get("spec"):
        part = copy.deepcopy(whole)
    part.setdefault("metadata", {}).update(name=live["metadata"]["name"], namespace=live["metadata"]["namespace"])
    return {"apiVersion": API_VERSION, "kind": KIND, **part}


def _is_ours(entry: Object) -> bool:
    return entry.get("manager") == MANAGER and not entry.get("subresource")


def _extract(live: Any, fields: Mapping[str, Any]) -> Any:
    """Return the part of `live` that a FieldsV1 set names: `f:` keys of mappings, `k:` items of lists by their keys."""
    below = {key: value for key, value in fields.items() if key != "."}
    if not below:
        return copy.deepcopy(live)
    if isinstance(live, list):
        keys = [json.loads(key[2:]) for key in below if key.startswith("k:")]
        return [copy.deepcopy(item) for item in live if any(key.items() <= item.items() for key in keys)]
    if not isinstance(live, dict):
        return live
    return {key[2:]: _extract(live[key[2:]], value) for key, value in below.items() if key.startswith("f:") and key[2:] in live}


def _merge(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        return one | {key: _merge(one[key], value) if key in one else value for key, value in other.items()}
    return other


def adoption_patch(live: Object) -> list[Object] | None:
    """Return the JSON patch that makes our creation of an object count as an apply; None when it does already.

    Creating must fail when the object is there, which an apply never does; but fields set by a creation belong to another
    entry than applied ones, and the next apply would meet it as a conflict.
    """
    entries = live["metadata"].get("managedFields") or []
    if not any(_is_ours(entry) and entry.get("operation") == "Update" for entry in entries):
        return None
    applied = [e for e in entries if _is_ours(e) and e.get("operation") == "Apply"]
    ours = [e for e in entries if _is_ours(e) and e.get("operation") == "Update"]
    fields: Object = {}
    for entry in [*ours, *applied]:
        fields = _merge(fields, entry["fieldsV1"])
    others = [e for e in entries if not _is_ours(e)]
    joined = {**ours[0], "operation": "Apply", "fieldsV1": fields}
    return [
        {"op": "replace", "path": "/metadata/managedFields", "value": [joined, *others]},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]},
    ]
