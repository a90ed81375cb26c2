from typing import Any

import pytest
from pydantic import ValidationError

from components.bundle.policy import Policy
from components.classifier.errors import PolicyError, UsageError
from components.gate.decide import decide
from tests.gate.cases import apart, champion, evaluation, good

FLOOR = Policy(minimum_accuracy=0.9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"minimum_accuracy": 99}, "minimum_accuracy: 99 must be between 0 and 1 (write 0.99 for 99%)"),
        ({"minimum_accuracy": 1.1}, "minimum_accuracy: 1.1 must be between 0 and 1 (write 0.011 for 1.1%)"),
        ({"minimum_accuracy": "99"}, "99 must be between 0 and 1"),
        ({"minimum_accuracy": -0.1}, "-0.1 must be between 0 and 1"),
        ({"minimum_accuracy": "high"}, "'high' is not a number"),
        ({"minimum_accuracy": True}, "True is not a number"),
        ({"minimum_accuracy": float("nan")}, "nan is not a finite number"),
        ({"minimum_acuracy": 0.9}, "unknown rule 'minimum_acuracy' (did you mean 'minimum_accuracy'?)"),
        ({"f1": 0.9, "bleu": 1}, "unknown rule 'f1'"),
        ({"f1": 0.9, "bleu": 1}, "unknown rule 'bleu'"),
        ({"f1": 0.9}, "the rules are minimum_accuracy, minimum_accuracy_lower_bound"),
        ({1: 0.9}, "unknown rule '1'"),
        ({"maximum_latency_ms": 0}, "0 must be greater than 0"),
        ({"maximum_size_mb": "-1"}, "-1 must be greater than 0"),
        ({"minimum_class_support": 1.5}, "1.5 must be a whole number"),
        ({"require_superiority": 1}, "1 must be true or false"),
        ({"forbid_significant_drop": "yes"}, "'yes' must be true or false"),
        ({"class_recall_floors": {"cat": 80}}, "class_recall_floors.cat: 80 must be between 0 and 1"),
        ({"class_recall_floors": 0.8}, "class_recall_floors: Input should be a valid dictionary"),
        ([0.9], "a policy is a table of rules"),
        ("minimum_accuracy=0.9", "a policy is a table of rules"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_with_what_is_wrong(values: Any, message: str) -> None:
    with pytest.raises(PolicyError) as error:
        Policy.read(values, "my.yaml")
    assert str(error.value).startswith("my.yaml: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(PolicyError, match="run parameter policy"):
        FLOOR.override(values)


def test_the_class_itself_is_as_strict() -> None:
    with pytest.raises(ValidationError, match="between 0 and 1"):
        Policy(minimum_accuracy=99)
    with pytest.raises(ValidationError, match="unknown rule"):
        Policy.model_validate({"accuracy": 0.9})
    with pytest.raises(ValidationError, match="frozen"):
        FLOOR.minimum_accuracy = 0.1  # type: ignore[misc]


def test_bounds_may_be_text_or_floats_as_run_parameters_bring_them() -> None:
    text = {"minimum_accuracy": "0.9", "minimum_class_support": "10", "require_superiority": "True", "class_recall_floors": {"a": "1e-05"}}
    numbers = {"minimum_accuracy": 0.9, "minimum_class_support": 10.0, "require_superiority": True, "class_recall_floors": {"a": 0.00001}}
    assert Policy.read(text) == Policy.read(numbers)
    assert Policy.read({"minimum_accuracy": 1}).minimum_accuracy == 1.0
    assert Policy.read({"minimum_accuracy": 0}).minimum_accuracy == 0.0


def test_overriding_replaces_single_rules_and_null_turns_one_off() -> None:
    policy = Policy(minimum_accuracy=0.9, maximum_ece=0.1, minimum_class_support=10, forbid_significant_drop=True)
    changed = policy.override(
        {"minimum_accuracy": 0.8, "maximum_ece": None, "minimum_class_support": None, "forbid_significant_drop": None}
    )
    assert changed.rules_set() == {"minimum_accuracy": 0.8, "minimum_class_support": 1}
    assert policy.override({}) == policy


def test_a_bound_of_zero_is_a_rule_too() -> None:
    decision = decide(Policy(minimum_accuracy=0), good())
    assert decision.verdict == "promote"
    assert decision.policy["minimum_accuracy"] == 0


def test_an_empty_policy_decides_too_and_promotes_nothing() -> None:
    decision = decide(Policy(), good(), environment="dev", version="v")
    assert (decision.verdict, decision.deploy) == ("hold", False)
    assert "sets no rule" in decision.summary
    assert decision.reasons


def test_a_policy_of_which_nothing_can_be_judged_promotes_nothing() -> None:
    decision = decide(Policy(non_inferiority_margin=0.01), good())
    assert decision.verdict == "hold"
    assert "no rule of the policy could be judged" in decision.summary


@pytest.mark.parametrize(
    ("correct", "lower_bound", "verdict"),
    [(353, 0.95, "promote"), (353, 0.97, "insufficient_data"), (353, 0.995, "hold"), (320, 0.95, "hold")],
)
def test_the_verdict_follows_from_the_worst_rule(correct: int, lower_bound: float, verdict: str) -> None:
    decision = decide(Policy(minimum_accuracy=0.9, minimum_accuracy_lower_bound=lower_bound), good(360, correct))
    assert decision.verdict == verdict
    assert decision.deploy == (verdict == "promote")


def test_one_line_of_reason_for_each_rule_with_value_and_bound() -> None:
    decision = decide(Policy(minimum_accuracy=0.995, maximum_ece=0.05), good(360, 353, champion(3, 4, 360, 353)))
    assert decision.reasons == [
        "minimum_accuracy: fail: accuracy 0.9806 (353 of 360) is below the floor 0.995",
        "minimum_class_support: pass: every class has at least 36 test pictures, 1 needed",
        "maximum_ece: pass: expected calibration error 0.0100 is within 0.05",
        "champion: pass: compared with 20260101-000000-aaaaaaaaaaaa on the same 360 test pictures",
    ]
    assert decision.summary == "failed: minimum_accuracy"


def test_a_champion_that_cannot_be_compared_holds_under_any_policy() -> None:
    decision = decide(FLOOR, good(champion=apart("it knows other classes: 9 against 10")))
    assert decision.verdict == "hold"
    assert "other classes: 9 against 10" in " ".join(decision.reasons)
    assert "manual" in " ".join(decision.reasons)  # how to go on


@pytest.mark.parametrize(
    ("compared", "serving", "promoted"),
    [("a", "a", True), ("a", "b", False), ("a", "", False), ("", "b", False), ("", "", True), ("a", "new", True), ("a", None, True)],
)
def test_only_a_comparison_with_what_serves_now_counts(compared: str, serving: str | None, promoted: bool) -> None:
    against = champion(3, 3, 360, 353, version=compared) if compared else None
    decision = decide(FLOOR, good(champion=against), version="new", serving=serving)
    assert decision.deploy == promoted
    assert decision.champion == compared


def test_a_champion_that_may_have_trained_on_the_test_pictures_is_said() -> None:
    against = {**champion(3, 3, 360, 353), "dataset_digest": "f" * 64}
    decision = decide(FLOOR, good(champion=against))
    assert decision.deploy
    assert "trained on another dataset version" in " ".join(decision.reasons)
    assert "another dataset" not in " ".join(decide(FLOOR, good(champion=champion(3, 3, 360, 353))).reasons)


def test_a_class_without_test_pictures_is_never_promoted_unless_the_policy_allows_it() -> None:
    absent = evaluation([[50, 0, 0], [0, 50, 0], [0, 0, 0]], classes=["cat", "dog", "fox"])
    decision = decide(Policy(minimum_accuracy=0.9, minimum_class_recall=0.9), absent)
    assert decision.verdict == "insufficient_data"
    assert "'fox' has 0" in " ".join(decision.reasons)
    allowed = decide(Policy(minimum_accuracy=0.9, minimum_class_recall=0.9, minimum_class_support=0), absent)
    assert allowed.verdict == "promote"
    assert "no test pictures: 'fox'" in " ".join(allowed.reasons)


def test_force_skips_the_rules_and_says_what_they_found() -> None:
    decision = decide(Policy(minimum_accuracy=0.995), good(), "force", "ann", "demo for the board")
    assert (decision.verdict, decision.deploy, decision.actor, decision.reason) == ("promote", True, "ann", "demo for the board")
    assert {rule.outcome for rule in decision.rules} == {"skipped"}
    assert decision.rules[0].reason == "by itself fail: accuracy 0.9806 (353 of 360) is below the floor 0.995"
    assert decision.summary == "forced by ann: demo for the board (by itself hold: failed: minimum_accuracy)"


@pytest.mark.parametrize(("actor", "reason", "missing"), [("", "", "actor and reason"), ("ann", " ", "reason"), ("", "why", "actor")])
def test_force_needs_a_name_and_a_reason(actor: str, reason: str, missing: str) -> None:
    with pytest.raises(UsageError, match=f"needs {missing}"):
        decide(FLOOR, good(), "force", actor, reason)


@pytest.mark.parametrize(
    ("strategy", "message"), [("qualty", "did you mean 'quality'"), ("", "use quality or force"), ("manual", "deployment pipeline")]
)
def test_an_unknown_strategy_is_refused(strategy: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        decide(FLOOR, good(), strategy, "ann", "why")
