"""Where versions can be deployed to: the one place that maps a target's name to what does it."""

from collections.abc import Callable, Mapping
from typing import Any

from components.classifier.errors import UsageError
from components.deploy.local import deploy_local
from components.deploy.request import DeployRequest
from components.registry import Registry


def _deploy_kserve(registry: Registry, request: DeployRequest) -> str:
    from components.deploy.kserve.rollout import deploy_kserve  # imports the Kubernetes client, which the local target has no need of

    return deploy_kserve(registry, request)


TARGETS: dict[str, Callable[[Registry, DeployRequest], str]] = {"local": deploy_local, "kserve": _deploy_kserve}


def check_target(target: str, store: str = "", name: str = "", serving: Mapping[str, Any] | None = None) -> None:
    """Raise UsageError for a target that there is not, or settings, a store or a name that it cannot work with."""
    if target not in TARGETS:
        raise UsageError(f"target {target!r} is not available in this release; use {' or '.join(TARGETS)}")
    if target == "kserve":
        from components.deploy.settings import KServeSettings, check_store

        settings = KServeSettings.read(serving or {})
        if store:
            check_store(store)
        if name:
            settings.service_name(name)
    elif serving:
        raise UsageError(f"serving is for target kserve; target {target!r} takes {', '.join(serving)} from `penstock serve`")


def deploy(registry: Registry, request: DeployRequest) -> str:
    """Deploy to the request's target; returns "deployed" or "unchanged"."""
    check_target(request.target, registry.store.url, registry.name, request.serving)
    return TARGETS[request.target](registry, request)
