"""What an environment allows: strategies, versions that the gate held, and approvals bound to content and evidence."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.bundle.decision import Decision
from components.bundle.environment import Deployment, deciding_environment, load_environment
from components.bundle.policy import Policy
from components.classifier.errors import IntegrityError, PolicyError, UsageError
from components.deploy.component import approve_version, choose_version, deploy_version
from components.deploy.local import rollback
from components.deploy.permission import approve
from components.deploy.request import DeployRequest
from components.deploy.step import deploy, named_request
from components.gate.decide import decide
from components.registry import Record, Registry
from components.registry.ledger import draft_record
from tests.gate.cases import champion, good
from tests.gate.versions import publish, registry_in
from tests.registry.test_signing import key_pair

POLICY = Policy(minimum_accuracy=0.9)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return registry_in(tmp_path)


@pytest.fixture
def versions(registry: Registry, tmp_path: Path) -> list[str]:
    return [publish(registry, tmp_path / f"model{day}", good(), day=day)[0] for day in (1, 2, 3)]


@pytest.fixture
def strict(tmp_path: Path) -> str:
    """An environment of one's own in which every version needs an approval."""
    path = tmp_path / "strict.yaml"
    path.write_text("policy: {minimum_accuracy: 0.9}\ndeployment: {strategies: [quality], approval: required, held: refuse}\n")
    return str(path)


def judged(registry: Registry, version: str, environment: str, over: str = "", policy: Policy = POLICY) -> Decision:
    evaluation = registry.get(version).manifest.files["evaluation.json"].sha256
    against = champion(3, 3, 360, 353, version=over) if over else None
    return decide(policy, good(champion=against), version=version, environment=environment, evaluation_digest=evaluation)


def hold(registry: Registry, version: str, environment: str) -> Record:
    return registry.ledger.hold(judged(registry, version, environment, policy=Policy(minimum_accuracy=1)))


def by_name(registry: Registry, version: str, environment: str, run: str = "run", asked: str = "") -> str:
    """What the deployment pipeline does: the first step, then the last."""
    given = {"store": registry.store.url, "name": "digits", "environment": environment, "actor": "ann", "reason": "needed"}
    chosen = choose_version.python_func(version=asked or version, target="local", namespace="", **given)
    assert chosen == version
    return str(deploy_version.python_func(version=chosen, asked=asked or version, target="local", namespace="", run=run, **given))


def test_prod_takes_nothing_but_what_the_gate_let_through(registry: Registry, versions: list[str]) -> None:
    with pytest.raises(UsageError, match="environment prod allows strategy quality, not manual; let the gate decide"):
        by_name(registry, versions[0], "prod")
    forced = decide(Policy(minimum_accuracy=1), good(), "force", "bob", "hotfix", version=versions[0])
    rules = load_environment("prod").deployment
    with pytest.raises(UsageError, match="allows strategy quality, not force"):
        deploy(registry, DeployRequest(versions[0], "force", forced, "prod", "bob", "hotfix", rules=rules))
    assert registry.ledger.records() == []
    assert deploy(registry, DeployRequest(versions[0], "quality", judged(registry, versions[0], "prod"), "prod", rules=rules)) == "deployed"


def test_a_version_that_the_gate_held_is_refused_in_prod_with_its_reason(registry: Registry, versions: list[str]) -> None:
    hold(registry, versions[0], "prod")
    with pytest.raises(UsageError, match=rf"the gate held {versions[0]} in prod \(record 1\): failed: minimum_accuracy; .*refuses"):
        by_name(registry, versions[0], "prod")


def test_elsewhere_deploying_what_the_gate_held_is_said(
    registry: Registry, versions: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    hold(registry, versions[0], "dev")
    assert by_name(registry, versions[0], "dev") == "deployed"
    assert f"warning: the gate held {versions[0]} in dev (record 1): failed: minimum_accuracy" in capsys.readouterr().out
    assert by_name(registry, versions[1], "dev") == "deployed"
    assert "warning" not in capsys.readouterr().out


def test_going_back_is_always_allowed_but_only_to_what_served(registry: Registry, versions: list[str]) -> None:
    rules = load_environment("prod").deployment
    for version, over in ((versions[0], ""), (versions[1], versions[0])):
        request = DeployRequest(version, "quality", judged(registry, version, "prod", over), "prod", rules=rules, run=version)
        assert deploy(registry, request) == "deployed"
    hold(registry, versions[2], "prod")
    assert by_name(registry, versions[0], "prod", run="back", asked="previous") == "deployed"
    assert by_name(registry, versions[1], "prod", run="by-name") == "deployed"
    assert [(r.action, r.strategy) for r in registry.ledger.records()[-2:]] == [("rolled_back", "rollback")] * 2
    with pytest.raises(UsageError, match=f"the gate held {versions[2]}"):
        rollback(registry, to=versions[2], actor="ann", reason="trick")
    assert rollback(registry, to=versions[0], actor="ann", reason="worse").champion == versions[0]


def test_what_needs_approval_waits_for_it_and_then_goes_on_as_the_gate_decided(
    registry: Registry, versions: list[str], strict: str
) -> None:
    decision = judged(registry, versions[0], strict)
    waiting = registry.ledger.hold(decision, run="training")
    assert (waiting.action, waiting.champion, registry.ledger.champion()) == ("awaiting", "", None)
    with pytest.raises(UsageError, match=r"asks for an approval .* and nobody has given it; use `penstock models approve"):
        by_name(registry, versions[0], strict)
    approval = approve(registry, versions[0], actor="eve", reason="looked at it")
    assert (approval.action, approval.environment, approval.actor) == ("approved", strict, "eve")
    assert approval.manifest_digest == registry.get(versions[0]).manifest.checksum
    assert (approval.evaluation_digest, approval.decision) == (waiting.evaluation_digest, waiting.decision)
    assert approve(registry, versions[0], actor="bob") == approval
    assert by_name(registry, versions[0], strict) == "deployed"
    assert by_name(registry, versions[0], strict) == "unchanged"
    record = registry.ledger.records()[-1]
    assert (record.action, record.strategy, record.decision) == ("deployed", "quality", decision.for_ledger())
    assert record.evaluation_digest == waiting.evaluation_digest


def test_a_training_run_cannot_skip_the_approval(registry: Registry, versions: list[str], strict: str) -> None:
    rules = load_environment(strict).deployment
    with pytest.raises(UsageError, match="asks for an approval"):
        deploy(registry, DeployRequest(versions[0], "quality", judged(registry, versions[0], strict), strict, rules=rules))


def test_an_approval_for_other_evidence_is_refused(registry: Registry, versions: list[str], strict: str) -> None:
    registry.ledger.hold(judged(registry, versions[0], strict), run="training")
    approve(registry, versions[0], actor="eve")
    registry.ledger.hold(judged(registry, versions[0], strict, policy=Policy(minimum_accuracy=0.5)), run="another")
    with pytest.raises(UsageError, match=r"the approval by eve \(record 2\) is about other evidence than record 3"):
        by_name(registry, versions[0], strict)
    approve(registry, versions[0], actor="eve")
    assert by_name(registry, versions[0], strict) == "deployed"


def test_an_approval_for_other_content_is_refused(registry: Registry, versions: list[str], strict: str) -> None:
    judged_record = registry.ledger.hold(judged(registry, versions[0], strict), run="training")
    other = registry.get(versions[1]).manifest.checksum
    draft = draft_record("approved", versions[0], "quality", environment=strict, actor="eve", manifest_digest=other)
    registry.ledger.append(
        draft.model_copy(update={"decision": judged_record.decision, "evaluation_digest": judged_record.evaluation_digest})
    )
    with pytest.raises(UsageError, match="is about other content of"):
        by_name(registry, versions[0], strict)


def test_an_approval_of_one_version_or_environment_is_none_of_another(registry: Registry, versions: list[str], strict: str) -> None:
    for version in versions[:2]:
        registry.ledger.hold(judged(registry, version, strict), run=version)
    approve(registry, versions[0], actor="eve")
    with pytest.raises(UsageError, match="nobody has given it"):
        by_name(registry, versions[1], strict)
    twin = Path(strict).with_name("twin.yaml")
    twin.write_text(Path(strict).read_text())
    with pytest.raises(UsageError, match="allows strategy quality, not manual"):
        by_name(registry, versions[0], str(twin))


def test_an_approval_is_signed_and_without_its_signature_nothing_is_deployed(
    tmp_path: Path, strict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = key_pair(tmp_path, "ours")
    monkeypatch.setenv("PENSTOCK_SIGNING_KEY", str(private))
    monkeypatch.setenv("PENSTOCK_VERIFY_KEY", str(public))
    registry = registry_in(tmp_path)
    version, _ = publish(registry, tmp_path / "signed", good())
    registry.ledger.hold(judged(registry, version, strict), run="training")
    approve(registry, version, actor="eve")
    key = "deployments/digits/000002.json"
    signed = registry.store.read(key)
    record = json.loads(signed)
    assert (record["action"], bool(record.pop("signature"))) == ("approved", True)
    registry.store.replace(key, json.dumps(record).encode())
    with pytest.raises(IntegrityError, match="signed"):
        by_name(registry_in(tmp_path), version, strict)
    registry.store.replace(key, signed)
    assert by_name(registry_in(tmp_path), version, strict) == "deployed"


def test_an_approved_version_that_was_overtaken_is_held(registry: Registry, versions: list[str], strict: str) -> None:
    for version in versions[:2]:
        registry.ledger.hold(judged(registry, version, strict), run=version)
        approve(registry, version, actor="eve")
    assert by_name(registry, versions[0], strict, run="a") == "deployed"
    assert by_name(registry, versions[1], strict, run="b") == "held"
    assert registry.ledger.records()[-1].reason.startswith(f"overtaken by {versions[0]}")
    with pytest.raises(UsageError, match=f"the gate held {versions[1]}"):
        approve(registry, versions[1], actor="eve")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"environment": "dev"}, "environment dev asks for no approval"),
        ({}, "does not await approval; name the environment"),
        ({"actor": " "}, "an approval needs an actor"),
    ],
)
def test_what_cannot_be_approved(registry: Registry, versions: list[str], how: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        approve(registry, versions[0], **{"actor": "eve", **how})
    assert registry.ledger.records() == []


def test_where_persons_may_deploy_by_name_they_can_approve_what_was_not_judged(
    registry: Registry, versions: list[str], strict: str
) -> None:
    with pytest.raises(UsageError, match="allows strategy quality, not manual"):
        approve(registry, versions[0], environment=strict, actor="eve")
    path = Path(strict)
    path.write_text(path.read_text().replace("[quality]", "[quality, manual]"))
    with pytest.raises(UsageError, match="asks for an approval"):
        by_name(registry, versions[0], strict)
    approve(registry, versions[0], environment=strict, actor="eve")
    assert by_name(registry, versions[0], strict) == "deployed"
    assert registry.ledger.records()[-1].strategy == "manual"


def test_the_approval_step_of_the_ui(registry: Registry, versions: list[str], strict: str) -> None:
    registry.ledger.hold(judged(registry, versions[0], strict))
    given: dict[str, Any] = {"store": registry.store.url, "name": "digits", "environment": strict, "actor": "eve", "reason": "", "run": "r"}
    assert approve_version.python_func(version=versions[0], **given) == "approved"
    assert by_name(registry, versions[0], strict) == "deployed"


def test_a_cluster_may_allow_one_environment_only(monkeypatch: pytest.MonkeyPatch, registry: Registry, versions: list[str]) -> None:
    monkeypatch.setenv("PENSTOCK_ENVIRONMENT", "prod")
    assert deciding_environment("prod").name == "prod"
    with pytest.raises(UsageError, match=r"only environment prod decides here \(PENSTOCK_ENVIRONMENT\), not dev"):
        named_request(registry, versions[0], versions[0], "dev")


@pytest.mark.parametrize(
    ("changes", "looser"),
    [
        ({"minimum_accuracy": 0.99}, ""),
        ({"maximum_ece": 0.01, "require_superiority": True, "class_recall_floors": {"7": 0.95}}, ""),
        ({"slice_floors": {"brightness": 0.9}}, ""),
        ({"minimum_accuracy": 0.96}, "minimum_accuracy"),
        ({"minimum_accuracy": None}, "minimum_accuracy"),
        ({"maximum_size_mb": None}, "maximum_size_mb"),
        ({"maximum_latency_ms": 500}, "maximum_latency_ms"),
        ({"minimum_class_support": 0}, "minimum_class_support"),
        ({"class_recall_floors": {"7": 0.5}}, "class_recall_floors"),
        ({"non_inferiority_margin": 0.1}, "non_inferiority_margin"),
    ],
)
def test_run_parameters_make_the_policy_of_prod_only_stricter(changes: dict[str, object], looser: str) -> None:
    prod = load_environment("prod")
    if not looser:
        assert prod.policy_with(changes).rules_set() == prod.policy.rules_set() | changes
        return
    with pytest.raises(PolicyError, match=f"allows only stricter rules, and {looser} would be looser"):
        prod.policy_with(changes)
    assert load_environment("dev").policy_with(changes)


def test_a_file_without_the_table_allows_what_it_allowed_before(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text("policy: {minimum_accuracy: 0.9}\n")
    assert load_environment(str(path)).deployment == Deployment()
    for text in (
        "deployment: {strategies: [yolo]}",
        "deployment: {aproval: required}",
        "deployment: {strategies: []}",
        "deployment: [quality]",
    ):
        path.write_text(f"{text}\n")
        with pytest.raises(PolicyError, match=r"old\.yaml: deployment: "):
            load_environment(str(path))
