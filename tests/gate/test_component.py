"""The gate's steps as kfp calls them, on published versions."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from components.bundle.evaluation import Evaluation
from components.classifier.errors import IntegrityError, PolicyError, UsageError, VersionNotFound
from components.gate.component import gate_model, record_hold
from components.registry import Registry
from components.registry.publication import publish_directory
from tests.gate.cases import champion, good
from tests.gate.versions import publish, registry_in


class Gate:
    """A published version, and the gate step on it."""

    def __init__(self, directory: Path, evaluation: Evaluation) -> None:
        self.registry = registry_in(directory)
        self.version, self.folder = publish(self.registry, directory / "model", evaluation)
        self.store = self.registry.store.url
        self.decision, self.report = dsl.Markdown(uri=str(directory / "decision.md")), dsl.HTML(uri=str(directory / "report.html"))

    def __call__(self, **changes: Any) -> str:
        parameters = {
            "environment": "dev",
            "strategy": "quality",
            "actor": "",
            "reason": "",
            "policy": {},
            "version": self.version,
            **changes,
        }
        evaluation = dsl.Artifact(uri=str(self.folder))
        outputs = {"decision": self.decision, "report": self.report}
        return str(gate_model.python_func(evaluation=evaluation, store=self.store, name="digits", **outputs, **parameters))

    def hold(self, run: str = "run-1") -> str:
        parameters = {"actor": "ann", "run": run}
        return str(record_hold.python_func(version=self.version, decision=self.decision, store=self.store, name="digits", **parameters))


def test_a_good_model_is_let_through(tmp_path: Path) -> None:
    gate = Gate(tmp_path, good())
    assert gate() == "deploy"
    assert gate.decision.metadata["verdict"] == "promote"
    assert json.loads(gate.decision.metadata["decision_json"])["version"] == gate.version
    assert Path(gate.decision.path).read_text().startswith("# Promote")
    stored = (gate.folder / "report.html").read_text()  # without predictions the stored one is passed on
    assert Path(gate.report.path).read_text() == stored


def test_run_parameters_replace_single_rules(tmp_path: Path) -> None:
    gate = Gate(tmp_path, good())
    assert gate(policy={"minimum_accuracy": "0.99"}) == "hold"
    assert gate(policy={"minimum_accuracy": 0.99}, strategy="force", actor="ann", reason="demo") == "deploy"
    with pytest.raises(PolicyError, match="between 0 and 1"):
        gate(policy={"minimum_accuracy": 99})
    with pytest.raises(PolicyError, match="unknown rule 'accuracy'"):
        gate(policy={"accuracy": 0.9})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "force"}, "needs actor and reason"),
        ({"strategy": "always"}, "unknown strategy"),
        ({"environment": "test"}, "there are dev, prod, staging"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_written(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    gate = Gate(tmp_path, good())
    with pytest.raises(UsageError, match=message):
        gate(**changes)
    assert not Path(gate.decision.path).exists()


def test_the_evaluation_must_be_that_of_the_version(tmp_path: Path) -> None:
    """What is judged is what would be deployed."""
    gate = Gate(tmp_path, good(correct=300))
    good().save(gate.folder)
    with pytest.raises(IntegrityError, match="is not the one that version"):
        gate()
    shutil.rmtree(gate.folder)
    with pytest.raises(IntegrityError, match="cannot be read"):
        gate()
    with pytest.raises(VersionNotFound):
        Gate(tmp_path / "other", good())(version="20260101-000000-000000000000")


def test_an_evaluation_with_nan_is_held_not_crashed_on(tmp_path: Path) -> None:
    registry = registry_in(tmp_path)
    version, folder = publish(registry, tmp_path / "sound", good())
    text = (folder / "evaluation.json").read_text().replace(f'"macro_f1":{good().macro_f1}', '"macro_f1":NaN')
    text = text.replace(f'"macro_f1": {good().macro_f1}', '"macro_f1": NaN')
    assert "NaN" in text
    (folder / "evaluation.json").write_text(text)
    gate = Gate.__new__(Gate)
    gate.registry, gate.store, gate.folder = registry, registry.store.url, folder
    gate.version = publish_directory(registry, folder).version
    gate.report = dsl.HTML(uri=str(tmp_path / "report.html"))
    gate.decision = dsl.Markdown(uri=str(tmp_path / "decision.md"))
    assert gate.version != version
    assert gate() == "hold"
    assert "macro_f1 is nan, not a finite number" in str(gate.decision.metadata["reasons"])


def test_a_hold_is_recorded_once_with_its_reasons_and_the_champion_stays(tmp_path: Path) -> None:
    gate = Gate(tmp_path, good(correct=300))
    assert gate() == "hold"
    assert gate.hold() == gate.hold() == "held"
    (record,) = gate.registry.ledger.records()
    assert (record.action, record.version, record.champion, record.actor) == ("held", gate.version, "", "ann")
    assert record.decision["verdict"] == "hold"
    assert "accuracy 0.8333 (300 of 360) is below the floor 0.9" in str(record.decision["reasons"])
    assert len(record.evaluation_digest) == 64
    gate.hold(run="")
    gate.hold(run="")
    assert len(gate.registry.ledger.records()) == 2


def test_a_comparison_with_a_former_champion_is_held(tmp_path: Path) -> None:
    """Another run was faster: what serves now is not what the challenger was compared with."""
    gate = Gate(tmp_path, good(champion=champion(3, 3, 360, 353)))
    assert gate() == "hold"
    assert "but none serves now" in str(gate.decision.metadata["reasons"])


def test_a_decision_about_another_version_is_not_recorded(tmp_path: Path) -> None:
    gate = Gate(tmp_path, good(correct=300))
    gate()
    gate.version = "20260101-000000-000000000000"
    with pytest.raises(IntegrityError, match="the decision is about version"):
        gate.hold()
    gate.decision.metadata.clear()
    with pytest.raises(IntegrityError, match="run the gate again"):
        gate.hold()
    assert Registry(gate.registry.store, "digits").ledger.records() == []
