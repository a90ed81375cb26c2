"""How many test pictures a policy needs, by simulation of its own rules."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.bundle.environment import load_environment
from components.bundle.policy import Policy
from components.classifier.errors import UsageError
from components.gate.scenarios import Setting, outcome_shares, plan
from pipelines.cli import app


def test_the_numbers_do_what_they_say() -> None:
    for need in plan(Policy(minimum_accuracy_lower_bound=0.9, maximum_accuracy_drop=0.02), Setting(discordance=0.05)):
        if need.rule == "minimum_class_support":
            continue
        assert need.passes is not None
        assert need.catches is not None
        assert outcome_shares(need.rule, need.bound, "good", need.passes, Setting(), 1000, seed=9)["pass"] >= 0.75
        assert outcome_shares(need.rule, need.bound, "bad", need.catches, Setting(), 1000, seed=9)["pass"] <= 0.25


def test_more_classes_and_more_disagreement_need_more_pictures() -> None:
    recall, margin = Policy(minimum_class_recall=0.8), Policy(non_inferiority_margin=0.03)
    assert catches(recall, Setting(classes=20)) > catches(recall, Setting(classes=5))
    assert passes(margin, Setting(discordance=0.1)) > passes(margin, Setting(discordance=0.02))


def test_pictures_of_groups_are_more_by_the_design_effect() -> None:
    floor = Policy(minimum_accuracy_lower_bound=0.9)
    assert passes(floor, Setting(group_size=12, group_correlation=0.5)) == pytest.approx(6.5 * passes(floor, Setting()), abs=1)
    assert passes(floor, Setting(group_size=12, group_correlation=0)) == passes(floor, Setting())
    shown = CliRunner(env={"COLUMNS": "120"}).invoke(app, ["gate", "plan", "--policy", "dev", "--classes", "2", "--group-size", "10"])
    assert "test pictures of " in shown.output
    assert " groups" in shown.output


def test_more_slices_need_more_pictures_and_a_column_counts_as_many_slices_as_it_has() -> None:
    floors = Policy(slice_floors={"site": 0.9})
    of_six = catches(floors, Setting(slices=6))
    assert catches(floors, Setting(slices=2)) < of_six
    assert catches(Policy(slice_floors={"class": 0.9}), Setting(classes=6)) == of_six


def test_a_class_with_an_own_floor_is_planned_for_too() -> None:
    (need, _) = plan(Policy(class_recall_floors={"cat": 0.9}), Setting())
    assert need.catches is not None
    assert outcome_shares(need.rule, need.bound, "bad", need.catches, Setting(), 1000, seed=9)["pass"] <= 0.25


def test_the_command_plans_the_floors_of_an_own_policy(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("policy: {slice_floors: {site: 0.9, site=north: 0.8}}")
    options = ["gate", "plan", "--policy", str(tmp_path / "own.yaml"), "--slices", "4"]
    shown = CliRunner(env={"COLUMNS": "120"}).invoke(app, options)
    assert shown.exit_code == 0, shown.output
    assert "site 0.9, site=north 0.8" in shown.stdout
    assert json.loads(CliRunner().invoke(app, [*options, "--json"]).stdout)["slices"] == 4


def passes(policy: Policy, setting: Setting) -> int:
    return plan(policy, setting)[0].passes or 0


def catches(policy: Policy, setting: Setting) -> int:
    return plan(policy, setting)[0].catches or 0


def test_staging_is_for_a_few_hundred_pictures_and_prods_margin_for_more_than_ten_thousand() -> None:
    margin = {name: passes(only_margin(name), Setting()) for name in ("staging", "prod")}
    assert margin["staging"] <= 400
    assert margin["prod"] > 10_000


def only_margin(environment: str) -> Policy:
    return Policy(non_inferiority_margin=load_environment(environment).policy.non_inferiority_margin)


def test_the_command_shows_every_rule_as_a_table_and_as_json() -> None:
    runner = CliRunner(env={"COLUMNS": "120"})
    options = ["gate", "plan", "--policy", "dev", "--classes", "3"]
    shown = runner.invoke(app, options)
    assert shown.exit_code == 0, shown.output
    listed = json.loads(runner.invoke(app, [*options, "--json"]).stdout)
    assert {need["rule"] for need in listed["rules"]} >= {"minimum_accuracy", "maximum_accuracy_drop", "minimum_class_support"}
    for need in listed["rules"]:
        assert need["rule"] in shown.stdout


def test_an_equal_challenger_never_shows_that_it_is_better() -> None:
    assert plan(Policy(require_superiority=True), Setting())[0].passes is None


def test_an_unknown_policy_is_refused() -> None:
    result = CliRunner().invoke(app, ["gate", "plan", "--policy", "prd"])
    assert isinstance(result.exception, UsageError)
