"""What the deploy steps do: find the version that a person asked for, and deploy one to its target."""

from collections.abc import Mapping
from typing import Any

from components.classifier.errors import UsageError
from components.deploy.local import deploy_local
from components.deploy.request import PREVIOUS, DeployRequest, Overtaken
from components.registry import Registry
from components.settings.serving import check_target
from components.storage import open_store


def deploy(registry: Registry, request: DeployRequest) -> str:
    """Deploy to the request's target; returns "deployed", "unchanged", or "held" for a version that was overtaken.

    A run that was slower than another is not an error: its version is recorded as held, with what overtook it, and the champion goes on
    serving. Raises UsageError for a request that is not allowed or does not fit its target, else what the target raises.
    """
    check_target(request.target, registry.store.url, registry.name, request.serving, request.namespace)
    request.check()
    try:
        if request.target == "local":
            return deploy_local(registry, request)
        from components.deploy.kserve.rollout import deploy_kserve  # imports the Kubernetes client, which the local target does not need

        return deploy_kserve(registry, request)
    except Overtaken as overtaken:
        registry.ledger.append(request.draft_hold(str(overtaken)))
        print(overtaken, flush=True)
        return "held"


def strategy_of(asked: str) -> str:
    """Return the strategy that a request stands for: going back is recorded as a rollback."""
    return "rollback" if asked.strip() == PREVIOUS else "manual"


def select_version(asked: str, store: str, name: str, actor: str, reason: str, target: str, serving: Mapping[str, Any]) -> str:
    """Return the version that is asked for: by its name, or as the one before the champion.

    Raises UsageError for a request that is not allowed, VersionNotFound when there is no such version.
    """
    if not asked.strip():
        raise UsageError(f"name the version to deploy, or {PREVIOUS} to go back: `penstock models list` shows which there are")
    check_target(target, store, name, serving)
    DeployRequest(asked, strategy_of(asked), actor=actor, reason=reason).check()
    return Registry(open_store(store), name).resolve(asked.strip())
