"""A test split wears out: how many versions it has judged is counted in the ledger, said, and corrected for when asked."""

from pathlib import Path

from components.bundle.environment import load_environment
from components.bundle.policy import Policy
from components.gate.decide import MANY_VERSIONS, decide
from components.gate.step import explain, judge
from components.registry import Record
from tests.gate.cases import champion, good
from tests.gate.versions import publish, registry_in

POLICY = Policy(minimum_accuracy=0.9)
ENVIRONMENT = load_environment("dev").model_copy(update={"policy": POLICY})


def test_versions_that_were_judged_on_the_same_pictures_are_counted_once(tmp_path: Path) -> None:
    registry = registry_in(tmp_path)
    seen = []
    for day in (1, 2, 3):
        version, folder = publish(registry, tmp_path / f"model{day}", good(correct=360 - day), day=day)
        for _ in range(2):  # a step that is run again counts no version twice
            decision = judge(folder, registry, version, ENVIRONMENT, "dev", "quality", "", "")
            registry.ledger.append(Record(action="held", version=version, strategy="quality", decision=decision.for_ledger()))
        seen.append(next(rule.value for rule in decision.rules if rule.rule == "test_split"))
    assert seen == [1, 2, 3]
    other, folder = publish(registry, tmp_path / "other", good(test_digest="f" * 64), day=4)
    fresh = explain(registry, other, POLICY, "dev")
    assert "test_split: pass: the test split has judged 1 version" in fresh.reasons


def test_from_ten_versions_on_the_decision_warns_and_still_promotes() -> None:
    before, after = (decide(POLICY, good(), judged_before=MANY_VERSIONS - k) for k in (2, 1))
    assert "take new test pictures" not in before.reasons[-1]
    assert "significantly better is up to 22%; take new test pictures" in after.reasons[-1]
    assert before.deploy
    assert after.deploy
    assert "rules passed" in after.summary


def test_a_split_alone_promotes_nothing() -> None:
    assert not decide(Policy(), good(), judged_before=0).deploy


def test_the_level_is_divided_by_the_number_of_versions_only_when_asked() -> None:
    better = good(360, 353, champion(7, 0, 360, 353))  # p = 1/128
    plain, corrected = (Policy(require_superiority=True, correct_for_reuse=asked) for asked in (False, True))
    assert decide(plain, better, judged_before=19).deploy
    held = decide(corrected, better, judged_before=19)
    assert held.verdict == "insufficient_data"
    assert "significant up to 0.00125" in " ".join(held.reasons)
    assert decide(corrected, better, judged_before=0).deploy
