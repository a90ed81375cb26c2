"""What the deploy steps do: find the version that a person asked for, and deploy one to its target."""

from collections.abc import Mapping
from typing import Any

from components.bundle.decision import Decision
from components.bundle.environment import deciding_environment
from components.classifier.errors import UsageError
from components.deploy.local import deploy_local
from components.deploy.permission import refuse_forbidden, strategy_for
from components.deploy.request import PREVIOUS, DeployRequest, Overtaken
from components.integrations import steps
from components.integrations.observe import observed
from components.registry import Registry
from components.registry.ledger import judgement
from components.settings.serving import check_target
from components.storage import open_store


@observed(steps.deploy)
def deploy(registry: Registry, request: DeployRequest) -> str:
    """Deploy to the request's target; returns "deployed", "unchanged", or "held" for a version that was overtaken.

    A run that was slower than another is not an error: its version is recorded as held, with what overtook it, and the champion goes on
    serving. Raises UsageError for a request that is not allowed, in the environment or at all, or does not fit its target, and
    VersionNotFound, else what the target raises.
    """
    check_target(request.target, registry.store.url, registry.name, request.serving, request.namespace)
    request.check()
    registry.ledger.require_key()
    manifest = registry.get(request.version).manifest
    if warning := refuse_forbidden(request, registry.ledger.records(), manifest.checksum):
        print(f"warning: {warning}", flush=True)
    try:
        if request.target == "local":
            return deploy_local(registry, request)
        from components.deploy.kserve.rollout import deploy_kserve  # imports the Kubernetes client, which the local target does not need

        return deploy_kserve(registry, request)
    except Overtaken as overtaken:
        registry.ledger.append(request.draft_hold(str(overtaken)))
        print(overtaken, flush=True)
        return "held"


def named_request(registry: Registry, version: str, asked: str, environment: str, **fields: Any) -> DeployRequest:
    """Return the request to deploy a version that a person asked for, by its name or as `previous`.

    One that awaits approval goes on with the gate's decision, which the ledger keeps. `fields`: the others of DeployRequest.
    Raises UsageError, PolicyError, and IntegrityError for a record that does not keep the decision.
    """
    found, records = deciding_environment(environment), registry.ledger.records()
    strategy = strategy_for(asked, found.deployment, environment, records)
    decision = None
    if strategy in {"quality", "force"}:
        judged = judgement(records, version)
        assert judged is not None
        kept = ("strategy", "environment", "version", "evaluation_digest", "actor", "reason")
        decision = Decision.from_ledger(judged.decision, **{name: getattr(judged, name) for name in kept})
    return DeployRequest(
        version,
        strategy,
        decision,
        environment,
        predictor=found.serving.variables(),
        asked=asked,
        rules=found.deployment,
        **fields,
    )


def select_version(
    asked: str, store: str, name: str, environment: str, actor: str, reason: str, target: str, serving: Mapping[str, Any]
) -> str:
    """Return the version that is asked for: by its name, or as the one before the champion.

    Raises UsageError for a request that is not allowed, VersionNotFound when there is no such version.
    """
    asked = asked.strip()
    if not asked:
        raise UsageError(f"name the version to deploy, or {PREVIOUS} to go back: `penstock models list` shows which there are")
    check_target(target, store, name, serving)
    registry = Registry(open_store(store), name)
    version = registry.resolve(asked)
    request = named_request(registry, version, asked, environment, actor=actor, reason=reason)
    request.check()
    if warning := refuse_forbidden(request, registry.ledger.records(), registry.get(version).manifest.checksum):
        print(f"warning: {warning}")
    return version
