"""The gate step: read what was evaluated, judge it, and write the decision where people and later steps find it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from components.bundle.decision import Decision, check_strategy
from components.bundle.environment import Environment
from components.bundle.files import EVALUATION
from components.bundle.policy import Policy
from components.classifier.errors import IntegrityError
from components.gate.decide import decide
from components.integrations import steps
from components.integrations.observe import observed
from components.registry import Ledger, Registry


@observed(steps.gate)
def judge(
    directory: str | Path,
    registry: Registry,
    version: str,
    rules: Environment,
    environment: str,
    strategy: str,
    actor: str,
    reason: str,
    changes: Mapping[str, object] | None = None,
) -> Decision:
    """Decide on a published version by the evaluation in `directory`, which must be the one it was published with.

    `rules`: those of the environment, of which `changes` replace single ones for this run. Raises UsageError as `decide` does and for
    a strategy that the environment does not allow, PolicyError for `changes` that cannot be applied, VersionNotFound, and
    IntegrityError when the evaluation belongs to another version.
    """
    policy = rules.policy_with(changes or {})
    check_strategy(strategy, actor, reason)
    rules.deployment.require_strategy(strategy, environment)
    data = _read(Path(directory) / EVALUATION)
    digest = hashlib.sha256(data).hexdigest()
    published = registry.get(version).manifest.files.get(EVALUATION)
    if published is None or published.sha256 != digest:
        raise IntegrityError(
            f"{EVALUATION} is not the one that version {version} was published with; publish what was evaluated, then judge it"
        )
    values = parse(data)
    return decide(
        policy,
        values,
        strategy,
        actor,
        reason,
        environment=environment,
        version=version,
        evaluation_digest=digest,
        serving=registry.ledger.champion() or "",
        judged_before=judged_before(registry.ledger, version, values),
    )


def judged_before(ledger: Ledger, version: str, evaluation: Mapping[str, object]) -> int:
    """Count the other versions that the ledger says were judged, to be deployed or held, on the evaluation's test split."""
    digest = evaluation.get("test_digest")
    return len({record.version for record in ledger.records() if digest and record.decision.get("test_digest") == digest} - {version})


def explain(registry: Registry, version: str, policy: Policy, environment: str) -> Decision:
    """Decide again on a version from its stored evaluation, whatever serves by now."""
    with registry.opened(version, [EVALUATION]) as folder:
        data = _read(folder / EVALUATION)
    values = parse(data)
    return decide(
        policy,
        values,
        environment=environment,
        version=version,
        evaluation_digest=hashlib.sha256(data).hexdigest(),
        judged_before=judged_before(registry.ledger, version, values),
    )


def parse(data: bytes) -> Mapping[str, object]:
    """Read evaluation.json as it is, NaN and all: what is wrong with it becomes the decision's reason."""
    try:
        values = json.loads(data)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read ({error.strerror}); evaluate the model again") from error
