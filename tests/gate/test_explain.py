import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.classifier.errors import PolicyError, UsageError, VersionNotFound
from components.registry import Record
from pipelines.cli import app
from tests.gate.cases import champion, good
from tests.gate.versions import publish, registry_in


@pytest.fixture
def store(tmp_path: Path) -> str:
    registry = registry_in(tmp_path)
    first, _ = publish(registry, tmp_path / "first", good(), day=1)
    registry.ledger.append(Record(action="deployed", version=first, strategy="quality", actor="ann"))
    publish(registry, tmp_path / "second", good(360, 345, champion(1, 10, 360, 345, version=first)), day=2)
    return registry.store.url


def explain(store: str, *arguments: str, columns: int = 120) -> str:
    result = CliRunner(env={"COLUMNS": str(columns)}).invoke(app, ["gate", "explain", *arguments, "--store", store])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def versions(store: str) -> list[str]:
    return sorted(path.name for path in Path(store, "models", "digits").iterdir())


def test_the_champion_is_explained_by_its_stored_evaluation(store: str) -> None:
    shown = explain(store, "champion")
    assert "Promote: " in shown
    assert "0.9806" in shown
    assert "it serves now" in shown
    assert "deployed by quality of ann" in shown


def test_another_environment_or_rule_may_decide_otherwise(store: str) -> None:
    assert "Promote" in explain(store, "champion", "--env", "prod")
    assert "Hold" in explain(store, "champion", "--policy", '{"minimum_accuracy": 0.99}')


def test_json_is_strict_and_whole(store: str) -> None:
    decision = json.loads(explain(store, versions(store)[1], "--json"), parse_constant=pytest.fail)
    assert decision["verdict"] == "hold"
    assert decision["champion"] == versions(store)[0]
    assert {rule["rule"]: rule["outcome"] for rule in decision["rules"]}["forbid_significant_drop"] == "fail"


def test_a_narrow_terminal_shows_all_words(store: str) -> None:
    shown = " ".join(explain(store, "champion", columns=50).split())
    assert "minimum_accuracy pass: accuracy 0.9806 (353 of 360) meets the floor 0.9" in shown
    assert "…" not in shown


def test_nothing_is_changed_by_explaining(store: str) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in Path(store).rglob("*"))
    explain(store, "champion")
    assert sorted((path, path.stat().st_mtime_ns) for path in Path(store).rglob("*")) == before


def test_wrong_use_is_an_error_of_ours(store: str) -> None:
    with pytest.raises(VersionNotFound):
        explain(store, "20260101-000000-000000000000")
    with pytest.raises(UsageError, match="not JSON"):
        explain(store, "champion", "--policy", "minimum_accuracy=0.9")
    with pytest.raises(PolicyError, match="--policy: unknown rule"):
        explain(store, "champion", "--policy", '{"accuracy": 0.9}')
    with pytest.raises(UsageError, match="unknown environment"):
        explain(store, "champion", "--env", "test")
