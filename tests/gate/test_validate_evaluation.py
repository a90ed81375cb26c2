"""A figure that is not a finite number never passes a comparison."""

import json
from typing import Any

import pytest

from components.bundle.environment import load_environment
from components.bundle.policy import Policy
from components.gate.decide import decide
from components.gate.step import parse
from tests.gate.cases import champion, good

ODD = [float("nan"), float("inf"), float("-inf"), None, "0.99", 99.2, -0.1]
DEV = load_environment("dev").policy


def put(path: str, value: object) -> dict[str, Any]:
    values = good(champion=champion(3, 3, 360, 353)).model_dump()
    at = values
    *parents, last = path.split(".")
    for key in parents:
        at = at[int(key)] if isinstance(at, list) else at[key]
    at[last] = value
    return values


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize(
    "path",
    [
        "accuracy",
        "accuracy.value",
        "macro_f1",
        "per_class.3.recall_low",
        "calibration.ece_after",
        "champion.paired.accuracy.value",
        "latency.p95_ms",
    ],
)
def test_an_odd_figure_holds_and_is_named(path: str, value: object) -> None:
    if (path, value) in {("latency.p95_ms", 99.2), ("per_class.3.recall_low", None)}:
        return  # those are sound
    decision = decide(DEV, put(path, value))
    assert (decision.verdict, decision.deploy) == ("hold", False)
    reasons = [rule.reason for rule in decision.rules]
    assert any(reason.startswith(f"{path} is {value!r}") for reason in reasons)
    if not isinstance(value, float) or value not in (99.2, -0.1):
        assert any("not a finite number" in reason for reason in reasons)


@pytest.mark.parametrize(
    "text",
    [
        '{"accuracy": NaN}',
        '{"accuracy": Infinity}',
        '{"accuracy": null}',
        '{"accuracy": "0.99"}',
        '{"accuracy": 99.2}',
        "{}",
        "[]",
        "",
        "NaN",
    ],
)
def test_files_that_others_wrote_hold(text: str) -> None:
    decision = decide(DEV, parse(text.encode()))
    assert decision.verdict == "hold"
    assert any("not a finite number" in reason for reason in decision.reasons)
    json.loads(decision.model_dump_json(), parse_constant=pytest.fail)


def test_a_changed_evaluation_object_is_looked_at_again() -> None:
    decision = decide(Policy(minimum_macro_f1=0.5), good().model_copy(update={"macro_f1": float("nan")}))
    assert decision.reasons == ["evaluation: fail: macro_f1 is nan, not a finite number; evaluate the model again"]


def test_figures_that_contradict_each_other_hold() -> None:
    decision = decide(Policy(minimum_accuracy=0.9), put("accuracy.correct", 360))
    assert decision.verdict == "hold"
    assert "is not 360 of 360" in decision.reasons[0]


@pytest.mark.parametrize("path", ["accuracy", "champion.paired.only_champion", "n"])
def test_a_missing_figure_holds(path: str) -> None:
    values = put(path, 0)
    *parents, last = path.split(".")
    at = values
    for key in parents:
        at = at[key]
    del at[last]
    decision = decide(DEV, values)
    assert decision.verdict == "hold"
    assert path in decision.reasons[0]
