"""A hold is a result: it goes into the deployment ledger with its reasons, and the champion goes on serving."""

from components.bundle.decision import Decision
from components.registry import Ledger, Record


def record_hold(ledger: Ledger, decision: Decision, actor: str = "", run: str = "") -> Record:
    """Append a `held` record, or return the one that the same run, or the same judgement, left before."""
    draft = Record(
        action="held",
        version=decision.version,
        strategy="force" if decision.strategy == "force" else "quality",
        environment=decision.environment,
        actor=actor or decision.actor,
        reason=decision.summary,
        evaluation_digest=decision.evaluation_digest,
        decision=decision.for_ledger(),
        run=run,
    )
    last = ledger.last()
    if last is not None and not run and _same(last, draft):
        return last
    return ledger.append(draft)


def _same(record: Record, draft: Record) -> bool:
    fields = ("action", "version", "environment", "run", "decision")
    return all(getattr(record, field) == getattr(draft, field) for field in fields)
