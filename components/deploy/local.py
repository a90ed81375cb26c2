"""The local target: a version serves once the deployment ledger says so; `penstock serve` follows it."""

from components.classifier.errors import IntegrityError, LedgerConflict, RolloutError
from components.deploy.request import DeployRequest
from components.registry import Record, Registry

_ATTEMPTS = 20


def deploy_local(registry: Registry, request: DeployRequest) -> str:
    """Make a version the champion; returns "deployed", or "unchanged" when it is already or this run made it so before.

    Each attempt reads the ledger anew, and its record is only written if nothing has come since. Raises UsageError for a request that
    the gate did not allow, IntegrityError for a damaged version, and RolloutError when, under strategy quality, another version
    took over since the gate compared: a version must not replace one that it was never compared with.
    """
    request.check()
    problems = registry.verify(request.version)
    if problems:
        raise IntegrityError(f"version {request.version} is damaged: {'; '.join(problems)}; publish it again")
    for _ in range(_ATTEMPTS):
        records = registry.ledger.records()
        if _done(records, request):
            return "unchanged"
        champion = records[-1].champion if records else ""
        _refuse_stale(champion, request)
        try:
            registry.ledger.append(_draft(request, champion), after=len(records))
        except LedgerConflict:
            continue
        return "deployed"
    raise LedgerConflict(f"other writers appended to the ledger of {registry.name} {_ATTEMPTS} times in a row; run again")


def _done(records: list[Record], request: DeployRequest) -> bool:
    """Whether it serves already, or this run's deployment is recorded: a retry must not undo what others did since."""
    if records and records[-1].champion == request.version:
        return True
    return bool(request.run) and any(
        (record.action, record.version, record.run) == ("deployed", request.version, request.run) for record in records
    )


def _refuse_stale(champion: str, request: DeployRequest) -> None:
    if request.strategy == "quality" and request.decision is not None and champion != request.decision.champion:
        compared = request.decision.champion or "nothing"
        raise RolloutError(
            f"{champion or 'nothing'} serves now, but the gate compared {request.version} with {compared}; "
            "run the pipeline again to compare with what serves, or deploy it with strategy manual or force"
        )


def _draft(request: DeployRequest, champion: str) -> Record:
    return Record(
        action="deployed",
        version=request.version,
        champion=request.version,
        previous=champion,
        strategy=request.strategy,
        target="local",
        environment=request.environment,
        actor=request.actor,
        reason=request.reason or (request.decision.summary if request.decision else ""),
        evaluation_digest=request.decision.evaluation_digest if request.decision else "",
        decision=request.decision.for_ledger() if request.decision else {},
        run=request.run,
    )
