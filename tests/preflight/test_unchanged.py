"""When a training would repeat the last one that was judged, and what sets it apart."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.bundle.config import code_version
from components.bundle.environment import load_environment
from components.deploy.request import DeployRequest
from components.deploy.step import deploy
from components.gate.decide import decide
from components.preflight.unchanged import difference, last_judged, last_training
from components.registry import Manifest, Record, Registry
from components.registry.ledger import draft_record
from components.registry.publication import publish_directory
from components.settings.training import TrainingSettings
from tests import tiny
from tests.gate.cases import good
from tests.gate.versions import registry_in

SETTINGS = TrainingSettings(name="digits", epochs="auto")
RULES = load_environment("dev").policy.rules_set()


@pytest.fixture(autouse=True)
def code(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PENSTOCK_CODE_VERSION", "test")
    code_version.cache_clear()
    yield
    code_version.cache_clear()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("settled")
    return published(registry_in(folder), folder / "model")


def published(registry: Registry, folder: Path) -> Manifest:
    """A version that says it was trained with SETTINGS."""
    tiny.write_bundle(folder, dataset_digest="a" * 64)
    good().save(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "parameters": {**SETTINGS.as_parameters(), "epochs_run": 6}}))
    return publish_directory(registry, folder).manifest


def judged(action: str = "deployed", **changes: Any) -> Record:
    decision = {"verdict": "promote", "policy": json.loads(json.dumps(RULES))}
    fields = {"action": action, "version": "v", "strategy": "quality", "environment": "dev", "decision": decision}
    return Record.model_validate({**fields, **changes})


def apart(record: Record, manifest: Manifest, settings: TrainingSettings = SETTINGS, strategy: str = "quality", code: str = "test") -> str:
    return difference(record, manifest, settings, strategy, RULES, code)


@pytest.mark.parametrize("action", ["deployed", "held", "awaiting"])
def test_the_same_settings_policy_and_code_would_repeat_a_training(action: str, manifest: Manifest) -> None:
    assert apart(judged(action), manifest) == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"record": judged("failed")}, "its deployment failed"),
        ({"record": judged(strategy="manual")}, "it was decided by strategy manual, this one is by quality"),
        ({"record": judged(decision={"verdict": "promote", "policy": {**RULES, "minimum_accuracy": 0.5}})}, "the policy changed"),
        ({"code": "test+g2"}, "its code was test, this is test+g2"),
        ({"settings": SETTINGS.model_copy(update={"seed": 7, "learning_rate": 0.5})}, "learning_rate, seed changed"),
    ],
)
def test_what_changed_is_named(changes: dict[str, Any], said: str, manifest: Manifest) -> None:
    assert apart(**{"record": judged(), "manifest": manifest, **changes}) == said


def test_changed_files_that_are_not_committed_are_never_the_same_code(manifest: Manifest) -> None:
    dirty = manifest.model_copy(update={"code_version": "0.1.0+g1.dirty"})
    assert "0.1.0+g1.dirty" in apart(judged(), dirty, code="0.1.0+g1.dirty")


def test_a_setting_that_older_releases_did_not_know_is_a_change(manifest: Manifest) -> None:
    older = manifest.model_copy(update={"parameters": {k: v for k, v in manifest.parameters.items() if k != "seed"}})
    assert apart(judged(), older) == "seed changed"


def test_only_what_the_gate_judged_in_the_environment_counts() -> None:
    first, held = judged(version="v1"), judged("held", version="v2")
    after = [judged(version="v3", environment="prod"), judged("rolled_back", version="v0"), judged(version="v4", decision={})]
    assert last_judged([first, held, *after], "dev") == held
    assert last_judged(after, "staging") is None


def test_the_dataset_of_the_last_judged_version_needs_no_training(tmp_path: Path) -> None:
    registry = registry_in(tmp_path)
    given = {"store": registry.store.url, "name": "digits", "environment": "dev", "strategy": "quality", "policy": {}, "training": {}}
    assert last_training(given)[0] == ""
    version = published(registry, tmp_path / "model").version
    evaluation = registry.get(version).manifest.files["evaluation.json"].sha256
    decision = decide(load_environment("dev").policy, good(), version=version, environment="dev", evaluation_digest=evaluation)
    deploy(registry, DeployRequest(version, "quality", decision, "dev", "", "", "local", run="one"))
    digest, said = last_training(given)
    assert digest == "a" * 64
    assert f"{version} was trained with these settings on dataset aaaaaaaaaaaa" in said
    assert last_training({**given, "training": {"seed": 3}}) == (
        "",
        f"note: this training goes on whatever the data, since it is not that of {version}: seed changed",
    )
    assert last_training({**given, "policy": {"minimum_accuracy": 0.99}})[0] == ""
    registry.ledger.append(draft_record("failed", version, "quality", decision=decision, environment="dev"))
    assert last_training(given)[0] == ""
