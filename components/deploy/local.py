"""The local target: a version serves once the deployment ledger says so; `penstock serve` follows it."""

from components.classifier.errors import IntegrityError, LedgerConflict
from components.deploy.records import champion_of, draft, recorded, refuse_stale
from components.deploy.request import DeployRequest
from components.registry import Registry

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
        if champion_of(records) == request.version or recorded(records, request):
            return "unchanged"
        refuse_stale(records, request)
        try:
            registry.ledger.append(draft(request), after=len(records))
        except LedgerConflict:
            continue
        return "deployed"
    raise LedgerConflict(f"other writers appended to the ledger of {registry.name} {_ATTEMPTS} times in a row; run again")
