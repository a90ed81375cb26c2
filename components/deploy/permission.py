"""What the environment and the ledger say about a deployment: its strategy, a hold by the gate, and the approval.

An approval is a ledger record about the content of a version, its evaluation and the gate's decision; nothing else is written here.
"""

from components.bundle.environment import Deployment, deciding_environment
from components.bundle.files import EVALUATION
from components.classifier.errors import UsageError
from components.deploy.request import PREVIOUS, DeployRequest
from components.registry import Record, Registry
from components.registry.ledger import draft_record, judgement, served


def strategy_for(asked: str, rules: Deployment, environment: str, records: list[Record]) -> str:
    """Return the strategy by which a version that a person names is deployed.

    What awaits approval goes on by the strategy that the gate let it through with. `previous`, and where persons may not deploy a
    version by name, one that served in the environment before, is a rollback. All else is manual.
    """
    if asked == PREVIOUS:
        return "rollback"
    judged = judgement(records, asked)
    if judged is not None and judged.action == "awaiting" and judged.environment == environment:
        return judged.strategy
    return "rollback" if "manual" not in rules.strategies and asked in served(records, environment) else "manual"


def refuse_forbidden(request: DeployRequest, records: list[Record], manifest_digest: str) -> str:
    """Return a warning about a version that the gate held, or nothing.

    Going back to what served before is always allowed. Raises UsageError for a strategy that the environment does not allow, for a
    version that the gate held where it refuses those, and without the approval that it asks for. `manifest_digest`: the version's.
    """
    rules, version, environment = request.rules, request.version, request.environment
    if request.strategy == "rollback" and (request.asked == PREVIOUS or version in served(records, environment)):
        return ""
    strategy = "manual" if request.strategy == "rollback" else request.strategy  # one that never served is deployed, not brought back
    warning = refuse_held(version, rules, environment, records) if strategy == "manual" else ""
    rules.require_strategy(strategy, environment)
    if rules.approval == "required":
        require_approval(version, environment, records, manifest_digest)
    return warning


def refuse_held(version: str, rules: Deployment, environment: str, records: list[Record]) -> str:
    """Return a warning about a version whose newest judgement is a hold; raises UsageError where the environment refuses it."""
    judged = judgement(records, version)
    if judged is None or judged.action != "held":
        return ""
    said = f"the gate held {version} in {judged.environment} (record {judged.sequence}): {judged.reason}"
    if rules.held == "refuse":
        raise UsageError(f"{said}; environment {environment} refuses what the gate held: train a version that passes it")
    return said


def require_approval(version: str, environment: str, records: list[Record], manifest_digest: str) -> None:
    """Raise UsageError unless a record approves this content of the version, on the evidence by which the gate judged it last."""
    given = [record for record in records if (record.action, record.version, record.environment) == ("approved", version, environment)]
    command = f"`penstock models approve {version} --env {environment}`"
    if not given:
        raise UsageError(f"environment {environment} asks for an approval of {version}, and nobody has given it; use {command}")
    approval, judged = given[-1], judgement(records, version)
    by = f"the approval by {approval.actor} (record {approval.sequence}) is about"
    if approval.manifest_digest != manifest_digest:
        raise UsageError(f"{by} other content of {version} than lies in the store; look at both, then use {command}")
    if judged is not None and (approval.evaluation_digest, approval.decision) != (judged.evaluation_digest, judged.decision):
        raise UsageError(f"{by} other evidence than record {judged.sequence}, the gate's newest judgement; look at it, then use {command}")


def approve(registry: Registry, version: str, *, environment: str = "", actor: str, reason: str = "", run: str = "") -> Record:
    """Approve a version for an environment, by default the one in which the gate judged it; returns the ledger's record.

    The same approval again changes nothing. Raises UsageError without an actor, for an environment that asks for no approval, and for
    a version that does not await one there and may not be deployed by its name; VersionNotFound, and IntegrityError for a damaged one.
    """
    if not actor.strip():
        raise UsageError("an approval needs an actor: who approves; it is recorded")
    version = registry.resolve(version)
    registry.require_intact(version)
    manifest = registry.get(version).manifest
    evaluation = manifest.files[EVALUATION].sha256 if EVALUATION in manifest.files else ""
    found: Record | None = None

    def decide(records: list[Record]) -> Record | None:
        nonlocal found
        judged = judgement(records, version)
        awaits = judged is not None and judged.action == "awaiting"
        where = environment or (judged.environment if judged is not None else "")
        if not where:
            raise UsageError(f"{version} does not await approval; name the environment for which it is approved, by --env")
        rules = deciding_environment(where).deployment
        if rules.approval != "required":
            raise UsageError(f"environment {where} asks for no approval; deploy {version} by the deployment pipeline")
        refuse_held(version, rules, where, records)
        if judged is None or not awaits or judged.environment != where:
            rules.require_strategy("manual", where)
        try:
            require_approval(version, where, records, manifest.checksum)
        except UsageError:
            draft = draft_record(
                "approved",
                version,
                judged.strategy if judged is not None and awaits else "manual",
                environment=where,
                actor=actor.strip(),
                reason=reason,
                run=run,
                manifest_digest=manifest.checksum,
            )
            evidence = {"evaluation_digest": evaluation} if judged is None else {"evaluation_digest": judged.evaluation_digest}
            return draft.model_copy(update={**evidence, "decision": judged.decision if judged is not None else {}})
        found = next(r for r in reversed(records) if (r.action, r.version, r.environment) == ("approved", version, where))
        return None

    record = registry.ledger.append_if(decide) or found
    assert record is not None
    return record
