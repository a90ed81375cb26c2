"""The gate step: read what was evaluated, judge it, and write the decision where people and later steps find it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.classifier.bundle import EVALUATION
from components.classifier.errors import IntegrityError
from components.gate.decision import Decision
from components.gate.policy import Policy, check_strategy, decide
from components.registry import Registry

DECISION_KEY = "decision_json"
"""The decision artifact's metadata key that carries the whole decision to the steps after the gate."""


def judge(
    directory: str | Path, registry: Registry, version: str, policy: Policy, environment: str, strategy: str, actor: str, reason: str
) -> Decision:
    """Decide on a published version by the evaluation in `directory`, which must be the one it was published with.

    Raises UsageError as `decide` does, VersionNotFound, and IntegrityError when the evaluation belongs to another version.
    """
    check_strategy(strategy, actor, reason)
    data = _read(Path(directory) / EVALUATION)
    digest = hashlib.sha256(data).hexdigest()
    published = registry.get(version).manifest.files.get(EVALUATION)
    if published is None or published.sha256 != digest:
        raise IntegrityError(
            f"{EVALUATION} is not the one that version {version} was published with; publish what was evaluated, then judge it"
        )
    return decide(
        policy,
        parse(data),
        strategy,
        actor,
        reason,
        environment=environment,
        version=version,
        evaluation_digest=digest,
        serving=registry.ledger.champion() or "",
    )


def explain(registry: Registry, version: str, policy: Policy, environment: str, scratch: Path) -> Decision:
    """Decide again on a version from its stored evaluation, fetched into `scratch`, whatever serves by now."""
    data = _read(registry.fetch(version, scratch, (EVALUATION,)) / EVALUATION)
    return decide(policy, parse(data), environment=environment, version=version, evaluation_digest=hashlib.sha256(data).hexdigest())


def parse(data: bytes) -> Mapping[str, object]:
    """Read evaluation.json as it is, NaN and all: what is wrong with it becomes the decision's reason."""
    try:
        values = json.loads(data)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def write(decision: Decision, path: str | Path) -> dict[str, Any]:
    """Write the decision as Markdown and return the artifact's metadata: verdict, reasons, and the decision as JSON."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(decision.to_markdown(), "utf-8")
    metadata = {"verdict": decision.verdict, "summary": decision.summary, "reasons": decision.reasons}
    return {**metadata, DECISION_KEY: decision.model_dump_json()}


def read_decision(metadata: Mapping[str, Any], version: str) -> Decision:
    """Read the decision that the gate left in an artifact's metadata; raises IntegrityError when it is not about `version`."""
    text = metadata.get(DECISION_KEY)
    if not isinstance(text, str):
        raise IntegrityError(f"the decision artifact carries no {DECISION_KEY}; run the gate again")
    decision = Decision.model_validate_json(text)
    if decision.version != version:
        raise IntegrityError(f"the decision is about version {decision.version}, not {version}; run the gate again")
    return decision


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read ({error.strerror}); evaluate the model again") from error
