"""Where versions can be deployed to: the one place that maps a target's name to what does it."""

from collections.abc import Callable

from components.classifier.errors import UsageError
from components.deploy.local import deploy_local
from components.deploy.request import DeployRequest
from components.registry import Registry

TARGETS: dict[str, Callable[[Registry, DeployRequest], str]] = {"local": deploy_local}


def check_target(target: str) -> None:
    """Raise UsageError for a target that this release does not have."""
    if target not in TARGETS:
        raise UsageError(f"target {target!r} is not available in this release; use {' or '.join(TARGETS)}")


def deploy(registry: Registry, request: DeployRequest) -> str:
    """Deploy to the request's target; returns "deployed" or "unchanged"."""
    check_target(request.target)
    return TARGETS[request.target](registry, request)
