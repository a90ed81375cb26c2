import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kfp import dsl

from components.bundle.decision import Decision
from components.bundle.policy import Policy
from components.classifier.errors import IntegrityError, RegistryError, UsageError, VersionNotFound
from components.deploy.component import deploy_model
from components.deploy.local import rollback
from components.deploy.request import DeployRequest
from components.deploy.step import deploy
from components.gate.decide import decide
from components.registry import Record, Registry
from tests.gate.cases import champion, good
from tests.gate.versions import publish, registry_in

POLICY = Policy(minimum_accuracy=0.9)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return registry_in(tmp_path)


@pytest.fixture
def versions(registry: Registry, tmp_path: Path) -> list[str]:
    return [publish(registry, tmp_path / f"model{day}", good(), day=day)[0] for day in (1, 2, 3)]


def promoted(version: str, over: str = "") -> Decision:
    against = champion(3, 3, 360, 353, version=over) if over else None
    return decide(POLICY, good(champion=against), version=version, environment="dev", evaluation_digest="e" * 64)


def request(version: str, over: str = "", run: str = "run-1", **changes: str) -> DeployRequest:
    return DeployRequest(version, "quality", promoted(version, over), "dev", "ann", "", run=run, **changes)


def by_hand(version: str, run: str = "") -> DeployRequest:
    return DeployRequest(version, "manual", actor="ann", reason="needed", run=run)


def test_deploying_appends_one_record_that_says_why(registry: Registry, versions: list[str]) -> None:
    assert deploy(registry, request(versions[0])) == "deployed"
    assert deploy(registry, request(versions[1], over=versions[0], run="run-2")) == "deployed"
    record = registry.ledger.records()[-1]
    assert (record.action, record.version, record.champion, record.previous) == ("deployed", versions[1], versions[1], versions[0])
    assert (record.strategy, record.actor, record.environment, record.run) == ("quality", "ann", "dev", "run-2")
    assert record.evaluation_digest == "e" * 64
    assert record.decision["verdict"] == "promote"
    assert record.reason == record.decision["summary"]


def test_the_served_version_again_changes_nothing(registry: Registry, versions: list[str]) -> None:
    deploy(registry, request(versions[0]))
    for again in (request(versions[0]), request(versions[0], run="run-2"), by_hand(versions[0])):
        assert deploy(registry, again) == "unchanged"
    assert len(registry.ledger.records()) == 1


def test_a_repeated_step_does_not_undo_what_came_since(registry: Registry, versions: list[str]) -> None:
    deploy(registry, request(versions[0]))
    deploy(registry, by_hand(versions[1]))
    assert deploy(registry, request(versions[0])) == "unchanged"
    assert registry.ledger.champion() == versions[1]


def test_a_version_never_replaces_one_that_it_was_not_compared_with(registry: Registry, versions: list[str]) -> None:
    deploy(registry, request(versions[0]))
    deploy(registry, request(versions[1], over=versions[0], run="fast"))
    for _ in range(2):
        assert deploy(registry, request(versions[2], over=versions[0], run="slow")) == "held"
    held = registry.ledger.records()[-1]
    assert (held.action, held.version, held.champion, held.sequence) == ("held", versions[2], versions[1], 3)
    assert held.reason.startswith(f"overtaken by {versions[1]}: the gate compared {versions[2]} with {versions[0]}; run the pipeline again")
    assert held.decision["verdict"] == "promote"
    assert deploy(registry, request(versions[2], run="slower")) == "held"
    assert "with nothing" in registry.ledger.records()[-1].reason
    assert registry.ledger.champion() == versions[1]


def test_manual_and_force_may_replace_any(registry: Registry, versions: list[str]) -> None:
    deploy(registry, request(versions[0]))
    deploy(registry, by_hand(versions[2]))
    forced = decide(Policy(minimum_accuracy=1), good(), "force", "bob", "hotfix", version=versions[1])
    assert deploy(registry, DeployRequest(versions[1], "force", forced, "prod", "bob", "hotfix", run="r")) == "deployed"
    record = registry.ledger.last()
    assert record is not None
    assert (record.strategy, record.actor, record.reason, record.previous) == ("force", "bob", "hotfix", versions[2])


@pytest.mark.parametrize("strategy", ["manual", "force"])
def test_deploying_despite_the_gate_needs_a_name_and_a_reason(registry: Registry, versions: list[str], strategy: str) -> None:
    for actor, reason in (("", "why"), ("ann", " ")):
        with pytest.raises(UsageError, match="who deploys, and why"):
            deploy(registry, DeployRequest(versions[0], strategy, None, "dev", actor, reason))
    assert registry.ledger.records() == []


def test_what_the_gate_did_not_allow_is_refused(registry: Registry, versions: list[str]) -> None:
    held = decide(Policy(minimum_accuracy=1), good(), version=versions[0])
    for wrong, message in (
        (DeployRequest(versions[0], "quality", held), "the gate held version"),
        (DeployRequest(versions[0], "quality", None), "needs the gate's decision"),
        (DeployRequest(versions[0], "quality", promoted(versions[1])), "the decision is about version"),
        (DeployRequest(versions[0], "force", promoted(versions[0]), actor="a", reason="b"), "decided with strategy 'quality'"),
        (DeployRequest(versions[0], "yolo", promoted(versions[0])), "unknown strategy"),
    ):
        with pytest.raises(UsageError, match=message):
            deploy(registry, wrong)
    assert registry.ledger.records() == []


def test_a_damaged_or_missing_version_is_not_deployed_even_by_force(registry: Registry, versions: list[str]) -> None:
    model = Path(registry.store.url, "models", "digits", versions[0], "model.onnx")
    model.chmod(0o644)
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    forced = decide(POLICY, good(), "force", "bob", "hotfix", version=versions[0])
    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        deploy(registry, DeployRequest(versions[0], "force", forced, "dev", "bob", "hotfix"))
    with pytest.raises(VersionNotFound):
        deploy(registry, by_hand("20260101-000000-000000000000"))
    assert registry.ledger.records() == []


def test_a_version_that_is_deleted_while_its_files_are_hashed_is_not_deployed(registry: Registry, versions: list[str]) -> None:
    deploy(registry, request(versions[0]))

    class Deleted(Registry):
        def verify(self, version: str) -> list[str]:
            problems = super().verify(version)
            super().delete(version)
            return problems

    with pytest.raises(VersionNotFound, match=f"no version '{versions[1]}'"):
        deploy(Deleted(registry.store, registry.name), request(versions[1], over=versions[0], run="run-2"))
    assert registry.ledger.champion() == versions[0]


def test_a_version_that_is_deleted_while_its_record_is_written_is_told(
    registry: Registry, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(registry, request(versions[0]))
    late = Registry(registry.store, registry.name)
    append_if = late.ledger.append_if

    def deleted_meanwhile(draft: Callable[[list[Record]], Record | None]) -> Record | None:
        def drafted(records: list[Record]) -> Record | None:
            record = draft(records)
            registry.delete(versions[1])
            return record

        return append_if(drafted)

    monkeypatch.setattr(late.ledger, "append_if", deleted_meanwhile)
    with pytest.raises(RegistryError, match=rf"{versions[1]} was deleted while it became the champion, .* or go back by"):
        deploy(late, request(versions[1], over=versions[0], run="run-2"))
    assert rollback(registry, actor="ann", reason="deleted").champion == versions[0]


def test_an_unknown_target_is_refused_by_name(registry: Registry, versions: list[str]) -> None:
    with pytest.raises(UsageError, match="target 'moon' is not available in this release; use local or kserve"):
        deploy(registry, request(versions[0], target="moon"))


def test_of_many_first_deployers_one_wins_and_the_others_are_held(registry: Registry, versions: list[str]) -> None:
    """They start together and each compared with nothing."""
    start = threading.Barrier(3)

    def go(version: str) -> str:
        own = Registry(registry.store, "digits")
        start.wait()
        return deploy(own, request(version, run=version))

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(go, versions))
    assert results.count("deployed") == 1
    assert results.count("held") == 2
    records = registry.ledger.records()
    assert [record.action for record in records] == ["deployed", "held", "held"]
    assert {record.champion for record in records} == {versions[results.index("deployed")]}


def test_manual_deployers_at_once_all_get_their_record_with_the_true_predecessor(registry: Registry, versions: list[str]) -> None:
    start = threading.Barrier(3)

    def go(version: str) -> str:
        own = Registry(registry.store, "digits")
        start.wait()
        return deploy(own, by_hand(version, run=version))

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(go, versions)) == ["deployed"] * 3
    records = registry.ledger.records()
    assert [record.previous for record in records] == ["", *[record.champion for record in records[:-1]]]


def test_a_hold_in_between_is_no_conflict(registry: Registry, versions: list[str]) -> None:
    deploy(registry, request(versions[0]))
    registry.ledger.append(Record(action="held", version=versions[2], strategy="quality", run="other"))
    assert deploy(registry, request(versions[1], over=versions[0], run="run-2")) == "deployed"


def test_the_step_reads_the_decision_that_the_gate_left(registry: Registry, versions: list[str], tmp_path: Path) -> None:
    decision = dsl.Markdown(uri=str(tmp_path / "decision.md"))
    decision.metadata.update(promoted(versions[0]).for_artifact())
    parameters = {
        "environment": "dev",
        "strategy": "quality",
        "actor": "ann",
        "reason": "",
        "target": "local",
        "namespace": "",
        "run": "run-1",
    }

    def step(version: str) -> str:
        return str(deploy_model.python_func(version=version, decision=decision, store=registry.store.url, name="digits", **parameters))

    assert step(versions[0]) == "deployed"
    assert step(versions[0]) == "unchanged"
    with pytest.raises(IntegrityError, match="the decision is about version"):
        step(versions[1])
    assert len(registry.ledger.records()) == 1
