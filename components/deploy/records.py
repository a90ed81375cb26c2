"""What a deployment reads from the deployment ledger and writes to it, whatever the target."""

from collections.abc import Sequence
from typing import Literal

from components.classifier.errors import RolloutError
from components.deploy.request import DeployRequest
from components.registry import Record
from components.registry.ledger import deployments


def champion_of(records: Sequence[Record]) -> str:
    """Return who serves after these records; empty when nothing does."""
    return records[-1].champion if records else ""


def recorded(records: Sequence[Record], request: DeployRequest) -> bool:
    """Say whether this run's deployment is recorded: a repeated step must not undo what others did since."""
    mine = [record for record in records if request.run and record.run == request.run]
    return any(record.action in {"deployed", "rolled_back"} and record.version == request.version for record in mine)


def refuse_stale(records: Sequence[Record], request: DeployRequest) -> None:
    """Raise RolloutError when the ledger has moved on since what the request rests on.

    Strategy quality: another version serves than the gate compared with. Strategy rollback: going back leads elsewhere now.
    """
    champion = champion_of(records)
    if request.strategy == "quality" and request.decision is not None and champion != request.decision.champion:
        compared = request.decision.champion or "nothing"
        raise RolloutError(
            f"{champion or 'nothing'} serves now, but the gate compared {request.version} with {compared}; "
            "run the pipeline again to compare with what serves, or deploy it with strategy manual or force"
        )
    if request.strategy == "rollback":
        stack = deployments(list(records))
        if stack[-2:-1] != [request.version]:
            raise RolloutError(
                f"{champion or 'nothing'} serves now and going back would bring {stack[-2] if len(stack) > 1 else 'nothing'}, "
                f"not {request.version}; look at the history, then run it again"
            )


def draft(request: DeployRequest, *, failed: str = "") -> Record:
    """Return the record of the request's deployment, or of its failure for the reason given."""
    action: Literal["deployed", "rolled_back", "failed"] = "rolled_back" if request.strategy == "rollback" else "deployed"
    reason = request.reason or (request.decision.summary if request.decision else "")
    return Record(
        action="failed" if failed else action,
        version=request.version,
        champion="" if failed else request.version,
        strategy=request.strategy,
        target=request.target,
        environment=request.environment,
        actor=request.actor,
        reason=failed or reason,
        evaluation_digest=request.decision.evaluation_digest if request.decision else "",
        decision=request.decision.for_ledger() if request.decision else {},
        run=request.run,
    )


def draft_return(request: DeployRequest, version: str, reason: str) -> Record:
    """Return the record of going back to `version` after the request's version failed for `reason`."""
    return Record(
        action="rolled_back",
        version=version,
        champion=version,
        strategy="rollback",
        target=request.target,
        environment=request.environment,
        actor=request.actor,
        reason=f"{request.version} failed: {reason}",
        run=request.run,
    )
