"""Each rule reports the trap that it is for, and leaves alone the same thing done well."""

from pathlib import Path

import pytest

from components.lint import Level, all_rules, lint
from pipelines.cli.lint import rules_page
from tests.lint.pipelines import CASES, compile_case

ROOT = Path(__file__).parents[2]
FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    for rule, kind in CASES:
        compile_case(rule, kind, folder)
    return folder


def found(rule: str, kind: str, compiled: Path) -> dict[str, Level]:
    """The rules that report the fixture, and how bad they are."""
    path = compiled / f"{rule}.{kind}.yaml" if (rule, kind) in CASES else FIXTURES / f"{rule}.{kind}.yaml"
    return {it.rule.id: it.rule.level for it in lint([str(path)]).findings}


@pytest.mark.parametrize("rule", all_rules())
def test_a_rule_reports_its_trap(rule: str, compiled: Path) -> None:
    reported = found(rule, "bad", compiled)
    assert rule in reported
    assert reported.keys() <= {rule, "retry-of-lost-pods-only"}, "a fixture has one fault"


@pytest.mark.parametrize("rule", all_rules())
def test_a_rule_leaves_alone_what_is_right(rule: str, compiled: Path) -> None:
    reported = found(rule, "good", compiled)
    assert rule not in reported
    assert set(reported.values()) <= {Level.NOTE}


@pytest.mark.parametrize("share", [-5, 101])
def test_a_share_of_the_traffic_lies_between_0_and_100(share: int, tmp_path: Path) -> None:
    service = (FIXTURES / "canary-percent-out-of-range.good.yaml").read_text("utf-8")
    several = "spec:\n  canary: [{trafficPercent: %d, predictor: {model: {}}}]"
    for text in (service.replace("100", str(share)), service.replace("spec:", several % share)):
        (tmp_path / "service.yaml").write_text(text, "utf-8")
        assert "canary-percent-out-of-range" in {it.rule.id for it in lint([str(tmp_path)]).findings}


def test_every_fixture_belongs_to_a_rule() -> None:
    named = {path.name.split(".")[0] for path in FIXTURES.iterdir()} | {rule for rule, _ in CASES}
    assert named == all_rules().keys()


def test_the_compiled_fixtures_are_pipelines(compiled: Path) -> None:
    report = lint([str(compiled)])
    assert (report.pipelines, report.manifests, report.unreadable) == (len(CASES), 0, [])


def test_the_page_of_rules_is_up_to_date() -> None:
    assert (ROOT / "docs/rules.md").read_text("utf-8") == rules_page(), "penstock lint --rules --format markdown > docs/rules.md"
