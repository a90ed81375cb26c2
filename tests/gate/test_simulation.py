"""docs/gate.md states how often each rule errs; that is what the rules do."""

import pytest

from benchmarks import gate
from components.bundle.environment import environment_names, load_environment
from components.gate.scenarios import TRUTHS, outcome_shares, sampled_rules

SLOW = {"minimum_class_recall", "minimum_macro_f1", "slice_floors"}
ROWS = [
    pytest.param(*row, marks=pytest.mark.release if row[0] in SLOW else (), id=f"{row[0]} {row[1]} {row[2].classes}") for row in gate.rows()
]


def documented() -> str:
    return gate.DOCS.read_text("utf-8").split(gate.BEGIN)[1].split(gate.END)[0]


@pytest.mark.parametrize(("rule", "bound", "setting"), ROWS)
def test_the_table_in_the_docs_is_what_the_rules_do(rule: str, bound: object, setting: gate.Setting) -> None:
    for line in gate.table(rule, bound, setting):
        assert line in documented()


def test_the_table_has_a_row_for_each_rule_of_each_environment_and_no_other() -> None:
    lines = [line for line in documented().splitlines() if line.startswith("| `")]
    assert len(lines) == len(ROWS) * len(gate.PICTURES)
    for name in environment_names():
        for rule in sampled_rules(load_environment(name).policy):
            assert f"| `{rule}`" in documented()


def test_the_rates_that_the_docs_state_in_words_are_those_of_the_table() -> None:
    fails: dict[str, list[tuple[float, float]]] = {}
    for line in documented().splitlines():
        if line.startswith("| `"):
            name, _, good, bound, _ = (cell.strip() for cell in line.strip("|").split("|"))
            fails.setdefault(name.split("`")[1], []).append((float(good.split(" / ")[2]), float(bound.split(" / ")[2])))
    proof = fails.pop("require_superiority")  # an equal challenger is not better: it fails as often as not
    assert max(fail for fail, _ in proof) > 50
    champion = {name: fails.pop(name) for name in ("forbid_significant_drop", "maximum_accuracy_drop", "non_inferiority_margin")}
    assert max(good for rows in champion.values() for good, _ in rows) == 2.2
    assert max(good for rows in fails.values() for good, _ in rows) == 0.5
    at_the_bound = {name: max(bound for _, bound in rows) for name, rows in fails.items()}
    assert (at_the_bound["minimum_accuracy_lower_bound"], at_the_bound["minimum_macro_f1"]) == (4.1, 4.7)
    assert max(at_the_bound["minimum_accuracy"], at_the_bound["maximum_ece"]) <= 2.5 + 0.5
    assert max(at_the_bound["minimum_class_recall"], at_the_bound["slice_floors"]) <= 5 + 0.5


@pytest.mark.parametrize(
    ("rule", "bound", "n"), [("maximum_accuracy_drop", 0.02, 359), ("maximum_ece", 0.05, 100), ("minimum_accuracy", 0.9, 100)]
)
def test_what_is_good_is_rarely_held_and_what_is_bad_is_mostly_caught(rule: str, bound: float, n: int) -> None:
    assert outcome_shares(rule, bound, "good", n, gate.SETTING, 1000, seed=7)["pass"] >= 0.97
    assert outcome_shares(rule, bound, "bad", n, gate.SETTING, 1000, seed=7)["pass"] <= 0.15


def test_of_a_hundred_sound_classes_of_ten_pictures_none_holds_the_model() -> None:
    assert outcome_shares("minimum_class_recall", 0.9, "at the bound", 1000, gate.MANY, 60, seed=7)["pass"] >= 0.9


def test_of_sound_slices_at_their_floors_one_fails_in_at_most_one_of_twenty_evaluations_and_a_bad_one_is_caught() -> None:
    floors = {"site": 0.9, "brightness": 0.8, "site=north": 0.95}
    setting = gate.Setting(slices=5)
    fails = [outcome_shares("slice_floors", floors, truth, 2000, setting, 300, seed=7)["fail"] for truth in TRUTHS]
    assert fails[0] <= 0.01
    assert 0 < fails[1] <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5
    assert fails[2] >= 0.8
