"""The pod that KServe makes of a ServingRuntime and an InferenceService, and Pod Security's "restricted" rules about pods."""

import copy
from typing import Any

import yaml

from tests.manifests.building import MANIFESTS

Object = dict[str, Any]

_POD_FIELDS = ("serviceAccountName", "automountServiceAccountToken", "securityContext", "terminationGracePeriodSeconds")
_RUNTIME_FIELDS = ("affinity", "nodeSelector", "tolerations", "imagePullSecrets")
_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def predictor_pod(runtime: Object, service: Object, *, patched_initializer: bool = True) -> Object:
    """The pod with its init container, which downloads the model; `patched_initializer`: by an administrator, see components/restricted."""
    wanted, given = service["spec"]["predictor"], runtime["spec"]
    container = copy.deepcopy(given["containers"][0])
    container["args"] = [it.replace("{{.Name}}", service["metadata"]["name"]) for it in container["args"]]
    container["volumeMounts"].append({"name": "kserve-provision-location", "mountPath": "/mnt/models", "readOnly": True})
    initializer: Object = {
        "name": "storage-initializer",
        "image": "kserve/storage-initializer:v0.20.0",
        "args": [wanted["model"]["storageUri"], "/mnt/models"],
        "volumeMounts": [{"name": "kserve-provision-location", "mountPath": "/mnt/models"}],
    }
    if patched_initializer:
        patch = (MANIFESTS / "components" / "restricted" / "storage-initializer.yaml").read_text()
        initializer |= yaml.safe_load(patch)["spec"]["container"]
    volumes = [*given.get("volumes", []), {"name": "kserve-provision-location", "emptyDir": {}}]
    spec = {
        **{key: given[key] for key in _RUNTIME_FIELDS if key in given},
        **{key: wanted[key] for key in _POD_FIELDS if key in wanted},
        "initContainers": [initializer],
        "containers": [container],
        "volumes": volumes,
    }
    labels = {**given.get("labels", {}), **service["metadata"].get("labels", {})}
    labels["serving.kserve.io/inferenceservice"] = service["metadata"]["name"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{service['metadata']['name']}-predictor", "labels": labels},
        "spec": spec,
    }


def restricted_violations(pod: Object) -> list[str]:
    """What Pod Security "restricted" has against a pod."""
    spec = pod["spec"]
    wide = spec.get("securityContext", {})
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    found += [f"volume {it['name']}" for it in spec.get("volumes", []) if not (it.keys() - {"name"}) <= _VOLUMES]
    found += ["pod runAsUser 0"] * (wide.get("runAsUser") == 0)
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        found += [f"{container['name']}: {it}" for it in _container_violations(container, wide)]
    return found


def _container_violations(container: Object, wide: Object) -> list[str]:
    own = container.get("securityContext", {})
    capabilities = own.get("capabilities", {})
    profile = own.get("seccompProfile", wide.get("seccompProfile", {})).get("type")
    checks = {
        "privileged": not own.get("privileged"),
        "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
        "capabilities": "ALL" in capabilities.get("drop", []) and set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
        "runAsNonRoot": own.get("runAsNonRoot", wide.get("runAsNonRoot")) is True,
        "runAsUser 0": own.get("runAsUser") != 0,
        "seccompProfile": profile in {"RuntimeDefault", "Localhost"},
        "hostPort": all("hostPort" not in port for port in container.get("ports", [])),
        "procMount": own.get("procMount", "Default") == "Default",
    }
    return [name for name, fine in checks.items() if not fine]
