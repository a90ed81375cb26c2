"""The publish step: two directories in, one version out, as often as it is run."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.bundle import files
from components.bundle.config import BundleConfig, Parent, Variant
from components.bundle.markdown import escape
from components.classifier.errors import DataError
from components.publish.component import publish_model
from components.publish.publishing import publish
from components.registry import Registry, verify_directory
from components.storage import open_store
from pipelines.cli import app
from tests.registry import bundles


@pytest.fixture
def steps(tmp_path: Path) -> tuple[Path, Path]:
    """What train and evaluate leave."""
    model, evaluation = bundles.evaluated(tmp_path / "model"), tmp_path / "evaluation"
    evaluation.mkdir()
    for name in files.EVALUATED_FILES:
        shutil.move(model / name, evaluation / name)
    return model, evaluation


def test_the_files_of_both_steps_are_one_version(steps: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, evaluation = steps
    (model / "checkpoint.pt").write_bytes(b"not for serving")
    with caplog.at_level(logging.INFO):
        version = publish(model, evaluation, store=str(tmp_path / "store"), name="digits", run="run-1")
    registry = Registry(open_store(str(tmp_path / "store")), "digits")
    fetched = registry.fetch(version, tmp_path / "fetched")
    assert set(verify_directory(fetched).files) == {*files.TRAINED_FILES, *files.EVALUATED_FILES, files.CARD}
    assert version in caplog.text
    assert publish(model, evaluation, store=str(tmp_path / "store"), name="digits", run="run-2") == version
    assert registry.get(version).manifest.run == "run-1"


def test_a_variant_has_no_weights_and_says_of_which_versions_it_was_made(steps: tuple[Path, Path], tmp_path: Path) -> None:
    model, evaluation = steps
    store = str(tmp_path / "store")
    (model / files.WEIGHTS).unlink()
    with pytest.raises(DataError, match=r"cannot publish without .*model/model\.safetensors"):
        publish(model, evaluation, store=store, name="digits")
    parent = Parent(version="20260101-000000-0123456789ab", sha256="0123456789ab" + "0" * 52)
    variant = Variant(kind="int8", parents=[parent], how="by hand")
    config = BundleConfig.load(model)
    config.model_copy(update={"parameters": {**config.parameters, "variant": variant.model_dump()}}).save(model)
    version = publish(model, evaluation, store=store, name="digits")
    registry = Registry(open_store(store), "digits")
    manifest = registry.get(version).manifest
    assert files.WEIGHTS not in manifest.files
    card = (registry.fetch(version, tmp_path / "fetched", [files.CARD]) / files.CARD).read_text()
    assert "| Made as | int8: by hand |" in card
    assert "| Made of | 20260101-000000-0123456789ab |" in card
    assert "variant" not in card
    for command, expected in (("show", "int8 of 20260101-000000-0123456789ab: by hand"), ("lineage", f"sha256:{parent.sha256}")):
        shown = CliRunner().invoke(app, ["models", command, version, "--store", store], env={"COLUMNS": "300"})
        assert expected in " ".join(shown.output.split()), shown.output
    lineage = CliRunner().invoke(app, ["models", "lineage", version, "--store", store, "--json"])
    assert json.loads(lineage.stdout)["made"] == variant.model_dump()


def test_another_evaluation_of_the_same_model_is_another_version(steps: tuple[Path, Path], tmp_path: Path) -> None:
    model, evaluation = steps
    first = publish(model, evaluation, store=str(tmp_path / "store"), name="digits")
    (evaluation / files.REPORT).write_text("<p>again")
    second = publish(model, evaluation, store=str(tmp_path / "store"), name="digits")
    assert first != second
    assert first[:15] == second[:15]


def test_a_missing_file_is_named_and_nothing_is_written(steps: tuple[Path, Path], tmp_path: Path) -> None:
    model, evaluation = steps
    (evaluation / files.GOLDEN).unlink()
    (model / files.ONNX).unlink()
    with pytest.raises(DataError, match=r"model/model\.onnx, .*evaluation/golden\.npz; run the step that writes them again"):
        publish(model, evaluation, store=str(tmp_path / "store"), name="digits")
    assert not (tmp_path / "store").exists()


def test_the_component_takes_and_gives_what_the_pipeline_wires() -> None:
    spec = publish_model.component_spec
    assert set(spec.inputs) == {"model", "evaluation", "store", "name", "run"}
    assert spec.inputs["run"].default == ""
    assert spec.outputs["Output"].type == "String"
    assert spec.outputs["summary"].type == "system.Markdown@0.0.1"


def test_the_page_of_the_step_says_where_the_version_lies_and_has_its_card(steps: tuple[Path, Path], tmp_path: Path) -> None:
    class Given:
        def __init__(self, path: Path) -> None:
            self.path = str(path)

    store, page = str(tmp_path / "store"), tmp_path / "summary"
    arguments = {"model": Given(steps[0]), "evaluation": Given(steps[1]), "summary": Given(page)}
    version = publish_model.python_func(**arguments, store=store, name="digits")
    registry = Registry(open_store(store), "digits")
    text = page.read_text()
    assert text.endswith((registry.fetch(version, tmp_path / "fetched") / files.CARD).read_text())
    assert f"{escape(registry.uri(version))}report.html, or penstock report {version}" in text
