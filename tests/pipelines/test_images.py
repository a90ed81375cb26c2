"""Which image a step runs in, and what is said when the predictor's cannot be told from the pipeline's."""

from pathlib import Path

import pytest
import yaml

from components.registry import Registry
from components.step_image import DEFAULT_IMAGE, UNNAMED, predictor_of
from components.storage import open_store
from pipelines.catalogue import load_pipeline
from pipelines.cli.output import warn_of_default_image
from pipelines.compile import images_of
from tests.pipelines.runs import penstock
from tests.predictor.versions import NAME, publish

DIGEST = "@sha256:" + "0" * 64
NEEDS_BOTH = ["compile", "submit training --host http://127.0.0.1:9", "run deployment --docker --set version=previous"]
"""Commands that end before they would reach a server or an engine."""


@pytest.mark.parametrize(
    ("pipeline", "predictor"),
    [
        ("penstock-pipeline:0.1.0", "penstock-predictor:0.1.0"),
        ("registry:5000/penstock-pipeline:0.1.0", "registry:5000/penstock-predictor:0.1.0"),
        ("registry.example/penstock-pipeline/penstock-pipeline:1", "registry.example/penstock-pipeline/penstock-predictor:1"),
        ("team/my-penstock-pipeline-gpu:penstock-pipeline", "team/my-penstock-predictor-gpu:penstock-pipeline"),
        ("registry:5000/penstock-pipeline", UNNAMED),
        ("penstock-pipeline:", UNNAMED),
        ("penstock-pipeline" + DIGEST, UNNAMED),
        ("penstock-pipeline:0.1.0" + DIGEST, UNNAMED),
        ("penstock-pipeline/steps:0.1.0", UNNAMED),
        ("steps:penstock-pipeline", UNNAMED),
        ("", UNNAMED),
    ],
)
def test_the_predictors_image_is_told_by_the_pipelines_name_and_tag(pipeline: str, predictor: str) -> None:
    assert predictor_of(pipeline) == predictor


@pytest.mark.parametrize("pipeline", ["training", "deployment"])
def test_pipelines_that_deploy_use_both_images(pipeline: str) -> None:
    assert images_of(load_pipeline(pipeline)) == {
        "PENSTOCK_IMAGE": "penstock-pipeline:0.1.0",
        "PENSTOCK_PREDICTOR_IMAGE": "penstock-predictor:0.1.0",
    }


def test_scoring_uses_the_pipelines_only() -> None:
    assert images_of(load_pipeline("scoring")) == {"PENSTOCK_IMAGE": "penstock-pipeline:0.1.0"}


def ended(arguments: str, folder: Path) -> str:
    """Run a command that is to be refused for its usage; returns its one line."""
    done = penstock(*arguments.split(), cwd=folder)
    assert done.code == 2, done.out + done.err
    (line,) = done.err.splitlines()
    return line


@pytest.mark.parametrize("arguments", NEEDS_BOTH)
def test_an_image_of_another_name_asks_for_the_predictors(arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_IMAGE", "team/steps:1")
    line = ended(arguments, tmp_path)
    assert "PENSTOCK_IMAGE=team/steps:1" in line
    assert "set PENSTOCK_PREDICTOR_IMAGE" in line


def test_an_image_by_digest_asks_for_the_predictors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_IMAGE", "penstock-pipeline" + DIGEST)
    assert "set PENSTOCK_PREDICTOR_IMAGE" in ended("compile", tmp_path)


@pytest.mark.parametrize("arguments", NEEDS_BOTH[:2])
def test_a_predictors_image_that_can_change_is_refused(arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PREDICTOR_IMAGE", "team/serving:latest")
    assert "PENSTOCK_PREDICTOR_IMAGE=team/serving:latest can change its content" in ended(arguments, tmp_path)


def test_an_image_without_a_tag_is_refused_for_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_IMAGE", "penstock-pipeline")
    assert "PENSTOCK_IMAGE=penstock-pipeline can change its content" in ended("compile", tmp_path)


def test_only_an_image_that_is_not_named_is_warned_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PENSTOCK_IMAGE", DEFAULT_IMAGE)
    warn_of_default_image()
    assert capsys.readouterr().err == ""
    monkeypatch.delenv("PENSTOCK_IMAGE")
    warn_of_default_image()
    assert "PENSTOCK_IMAGE is not set" in capsys.readouterr().err


def test_both_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_IMAGE", "team/steps" + DIGEST)
    monkeypatch.setenv("PENSTOCK_PREDICTOR_IMAGE", "team/serving" + DIGEST)
    done = penstock("compile", "--output", "compiled", cwd=tmp_path)
    assert done.code == 0, done.err
    found = {path.stem: path.read_text("utf-8").count(f"image: team/serving{DIGEST}") for path in (tmp_path / "compiled").iterdir()}
    assert found == {"training": 1, "search": 1, "retraining": 1, "deployment": 1, "scoring": 0, "approval": 0, "variant": 1}


def test_steps_that_need_no_torch_run_in_the_slim_image_where_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_SLIM_IMAGE", "team/slim:1")
    done = penstock("compile", "--output", "compiled", cwd=tmp_path)
    assert done.code == 0, done.err
    used: dict[str, set[str]] = {}
    for path in (tmp_path / "compiled").iterdir():
        spec = next(yaml.safe_load_all(path.read_text("utf-8")))
        for name, executor in spec["deploymentSpec"]["executors"].items():
            used.setdefault(executor["container"]["image"], set()).add(name.removeprefix("exec-"))
    assert {"train-model", "ingest-dataset", "check-parameters", "score-images"} <= used["penstock-pipeline:0.1.0"]
    assert {"evaluate-model", "publish-model", "gate-model", "deploy-model", "conclude-run", "plan-shards", "merge-scores"} <= used[
        "team/slim:1"
    ]
    assert used["penstock-predictor:0.1.0"] == {"validate-serving"}
    monkeypatch.setenv("PENSTOCK_SLIM_IMAGE", "team/slim")
    assert "PENSTOCK_SLIM_IMAGE=team/slim can change its content" in ended("compile", tmp_path)


@pytest.mark.integration
def test_a_run_on_this_machine_needs_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_IMAGE", "team/steps:1")
    _, version = publish(tmp_path)
    store = str(tmp_path / "store")
    given = ("--set", f"version={version}", "--set", "actor=anna", "--set", "reason=release")
    done = penstock("run", "deployment", "--store", store, "--name", NAME, "--json", *given, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "validate-serving" in done.steps
    assert Registry(open_store(store), NAME).ledger.champion() == version
