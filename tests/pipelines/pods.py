"""The pods that Kubeflow's backend makes of a compiled pipeline's steps, as far as a cluster's admission looks at them.

A step's container lies beside Kubeflow's launcher and Argo's own two containers (backend/src/v2/compiler/argocompiler/container.go);
what these ask for is the installation's, and here nothing, where the launcher's is fixed.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from components.settings.resources import Resources

Object = dict[str, Any]

_LAUNCHER = {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "128Mi"}}
_AMOUNT = re.compile(r"resource(Cpu|Memory)(Request|Limit)")


def step_pods(compiled: Path, asked: Resources | None = None, gpus: str = "0") -> dict[str, Object]:
    """Return a pod for each step of a compiled pipeline, by the step's name; `asked`: what the run sets in `resources`."""
    asked = asked or Resources()
    cpu_limit, memory_limit = asked.limits(busy=True)
    returned = {"cpu": asked.cpu, "memory": asked.memory, "cpu_limit": cpu_limit, "memory_limit": memory_limit}
    preflights = ("check-parameters-", "check-search-")
    values = {f"pipelinechannel--{prefix}{name}": value for prefix in preflights for name, value in returned.items()}
    values |= {"pipelinechannel--gpus": gpus, "pipelinechannel--check-parameters-gpus": gpus}
    values |= {f"pipelinechannel--{prefix}gpu_resource": asked.gpu_resource for prefix in ("", *preflights)}
    spec, platforms = yaml.safe_load_all(compiled.read_text("utf-8"))
    settings = platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    executors = spec["deploymentSpec"]["executors"]
    return {
        name.removeprefix("exec-"): _pod(name.removeprefix("exec-"), it["container"], settings[name], values, asked)
        for name, it in executors.items()
    }


def _pod(name: str, container: Object, settings: Object, values: dict[str, str], asked: Resources) -> Object:
    resources: dict[str, dict[str, str]] = {"requests": {}, "limits": {}}
    for key, value in container.get("resources", {}).items():
        if found := _AMOUNT.fullmatch(key):
            resources[f"{found[2].lower()}s"][found[1].lower()] = _resolved(value, values)
    if accelerator := container.get("resources", {}).get("accelerator"):
        count = _resolved(accelerator["resourceCount"], values)
        if count != "0":
            resources["limits"][_resolved(accelerator["resourceType"], values)] = count
    selector = settings.get("nodeSelector", {})
    security = {"runAsNonRoot": True, "allowPrivilegeEscalation": False}
    more = {"image": "argoproj/argoexec:v3.7.3", "securityContext": security}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{name}-pod", **settings.get("podMetadata", {})},
        "spec": {
            "restartPolicy": "Never",
            "nodeSelector": asked.node_selector if "nodeSelectorJson" in selector else selector.get("labels", {}),
            "tolerations": settings.get("tolerations", []),
            "initContainers": [
                {"name": "init", **more},
                {"name": "kfp-launcher", "image": "ghcr.io/kubeflow/kfp-launcher:2.17.0", "resources": _LAUNCHER},
            ],
            "containers": [{"name": "wait", **more}, {"name": "main", "image": container["image"], "resources": resources}],
        },
    }


def _resolved(value: str, values: dict[str, str]) -> str:
    found = re.fullmatch(r"\{\{\$\.inputs\.parameters\['(.+)'\]\}\}", value)
    return values[found[1]] if found else value
