"""A person's approval: a ledger record about the content of a version, its evaluation and the gate's decision."""

from components.bundle.environment import deciding_environment
from components.bundle.files import EVALUATION
from components.classifier.errors import UsageError
from components.deploy.permission import refuse_held, require_approval
from components.registry import Record, Registry
from components.registry.ledger import draft_record, judgement


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
