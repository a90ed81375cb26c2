"""`penstock report`: a version's page from the registry, with the ledger's decision."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.bundle.dataset import Dataset
from components.classifier.errors import EvaluationError, PenstockError, UsageError, VersionNotFound
from components.evaluate.evaluation import evaluate
from components.registry import Record, Registry
from components.registry.publication import publish_directory
from components.report.html import stored_report
from components.storage import open_store
from pipelines.cli import app
from tests import tiny


@pytest.fixture
def registry(tmp_path: Path, digits_dataset: Dataset) -> Registry:
    model = tiny.write_bundle(tmp_path / "model")
    evaluate(digits_dataset.path, model, model)
    registry = Registry(open_store(str(tmp_path / "store")), "digits")
    version = publish_directory(registry, model).version
    decision = {"verdict": "promote", "summary": "every rule passed", "reasons": ["minimum_accuracy: pass: 0.97 meets 0.9"]}
    deployed = Record(action="deployed", version=version, champion=version, strategy="quality", environment="dev", decision=decision)
    registry.ledger.append(deployed)
    return registry


def invoke(*arguments: str, root: Path) -> str:
    result = CliRunner().invoke(app, ["report", *arguments, "--store", str(root / "store")], catch_exceptions=True)
    if isinstance(result.exception, PenstockError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_the_champions_report_is_written_with_its_decision(registry: Registry, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    said = invoke("champion", "--output", str(out), root=tmp_path)
    html = out.read_text("utf-8")
    version = registry.ledger.champion()
    assert version
    assert version in said
    assert version in html
    assert "every rule passed" in html
    assert [path.name for path in tmp_path.glob("*page.html*")] == ["page.html"]


def test_without_a_name_the_file_is_named_after_the_version(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    version = registry.ledger.champion()
    assert f'"report": "report-{version}.html"' in invoke("champion", "--json", root=tmp_path)
    assert (tmp_path / f"report-{version}.html").exists()


def test_an_unknown_version_and_an_impossible_place_are_told(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(VersionNotFound, match=str(registry.ledger.champion())):
        invoke("20200101-000000-000000000000", root=tmp_path)
    (tmp_path / "file").touch()
    for place in ("nowhere/page.html", "file/page.html", "."):
        with pytest.raises(UsageError, match="cannot write"):
            invoke("champion", "--output", str(tmp_path / place), root=tmp_path)


def test_an_evaluation_of_another_release_falls_back_to_the_stored_page(digits_dataset: Dataset, tmp_path: Path) -> None:
    model = tiny.write_bundle(tmp_path / "model")
    evaluate(digits_dataset.path, model, model)
    (model / "evaluation.json").write_text('{"schema_version": 99}')
    (model / "report.html").write_text("<p>as it was")
    registry = Registry(open_store(str(tmp_path / "store")), "digits")
    assert stored_report(registry, publish_directory(registry, model).version) == "<p>as it was"


def test_a_version_without_any_evaluation_is_told(tmp_path: Path) -> None:
    registry = Registry(open_store(str(tmp_path / "store")), "digits")
    version = publish_directory(registry, tiny.write_bundle(tmp_path / "model")).version
    with pytest.raises(EvaluationError, match=f"version {version} holds neither"):
        stored_report(registry, version)
