"""What the environment and the ledger say about a deployment: its strategy, a hold by the gate, and the approval. Nothing is written."""

from components.bundle.environment import Deployment
from components.classifier.errors import UsageError
from components.deploy.request import PREVIOUS, DeployRequest
from components.registry import Record
from components.registry.ledger import judgement, served


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
