"""The publish step: two directories in, one version out, as often as it is run."""

import logging
import shutil
from pathlib import Path

import pytest

from components.bundle import files
from components.classifier.errors import DataError
from components.publish.component import publish_model
from components.publish.publishing import publish
from components.registry import Registry, verify_directory
from components.storage import open_store
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
