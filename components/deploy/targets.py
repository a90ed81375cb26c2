"""Where versions can be deployed to: the one place that maps a target's name to what does it."""

from collections.abc import Callable

from components.deploy.local import deploy_local
from components.deploy.request import DeployRequest
from components.registry import Registry
from components.settings.serving import check_target


def _deploy_kserve(registry: Registry, request: DeployRequest) -> str:
    from components.deploy.kserve.rollout import deploy_kserve  # imports the Kubernetes client, which the local target has no need of

    return deploy_kserve(registry, request)


TARGETS: dict[str, Callable[[Registry, DeployRequest], str]] = {"local": deploy_local, "kserve": _deploy_kserve}


def deploy(registry: Registry, request: DeployRequest) -> str:
    """Deploy to the request's target; returns "deployed" or "unchanged"."""
    check_target(request.target, registry.store.url, registry.name, request.serving)
    return TARGETS[request.target](registry, request)
