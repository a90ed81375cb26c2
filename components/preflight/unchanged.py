"""Whether a training would repeat the last one: with the same settings, policy and code, only other data makes another model."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from components.bundle.config import code_version
from components.bundle.environment import deciding_environment
from components.registry import Manifest, Record, Registry
from components.settings.training import TrainingSettings
from components.storage import open_store


def last_training(given: Mapping[str, Any]) -> tuple[str, str]:
    """Look up the dataset that needs no training, by the parameters of a training run.

    Returns the digest of the dataset that the environment's last judged version was trained on, empty when a training of the same data
    would not be the same; and what was found, in one line. Raises what the registry and the store raise.
    """
    environment = deciding_environment(given["environment"])
    registry = Registry(open_store(given["store"]), given["name"])
    judged = last_judged(registry.ledger.records(), given["environment"])
    found = registry.find(judged.version) if judged else None
    if judged is None or found is None:
        return "", "note: no training of this environment has been judged yet, so this one goes on whatever the data"
    settings = TrainingSettings.of_run(given)
    rules = environment.policy_with(given["policy"]).rules_set()
    why = difference(judged, found.manifest, settings, given["strategy"], rules, code_version())
    if why:
        return "", f"note: this training goes on whatever the data, since it is not that of {judged.version}: {why}"
    digest = found.manifest.dataset_digest
    return digest, f"note: {judged.version} was trained with these settings on dataset {digest[:12]}; if it is the same, nothing is trained"


def last_judged(records: Sequence[Record], environment: str) -> Record | None:
    """Return the newest record with which a run ended that the gate had judged in an environment, or None."""
    ended = {"deployed", "held", "awaiting", "failed"}
    return next((it for it in reversed(records) if it.environment == environment and it.action in ended and it.decision), None)


def difference(judged: Record, manifest: Manifest, settings: TrainingSettings, strategy: str, rules: Mapping[str, Any], code: str) -> str:
    """Say why a training of the same data would not repeat the one that a record is about; empty when it would.

    `manifest`: of the version that the record is about. `rules`: those that the policy sets now. Where and how a version serves does
    not count: the deployment pipeline changes that without a training.
    """
    if judged.action == "failed":
        return "its deployment failed"
    if judged.strategy != strategy:
        return f"it was decided by strategy {judged.strategy}, this one is by {strategy}"
    if code.endswith(".dirty") or code != manifest.code_version:
        return f"its code was {manifest.code_version}, this is {code}"
    changed = [name for name, value in _plain(settings.as_parameters()).items() if manifest.parameters.get(name) != value]
    if changed:
        return f"{', '.join(changed)} changed"
    return "" if _plain(rules) == judged.decision.get("policy") else "the policy changed"


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON gives them back: that is how manifests and records keep them."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain
