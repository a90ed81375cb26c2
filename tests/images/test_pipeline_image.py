"""The steps' image: what is in it, and the pipelines run in it, and in the predictor's, by kfp's DockerRunner."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import docker
import pytest

from components.registry import Registry
from components.storage import open_store
from pipelines.docker import LABEL, run_container
from pipelines.local import run_local
from tests.images import engine
from tests.predictor.versions import NAME, publish

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800), pytest.mark.xdist_group("images")]

HERE = Path(__file__).parent
NAMELESS = 123456
"""A user without an account, as some clusters give to each namespace."""

LIGHT = """
import os, sys
os.environ["_KFP_RUNTIME"] = "true"  # as the step's command sets it
import kfp.dsl.executor_main
import components.deploy.step, components.gate.step, components.publish.publishing, components.registry
import components.bundle.environment
print(sorted({"torch", "torchvision", "onnxruntime", "kserve", "sklearn", "scipy", "pandas", "matplotlib"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def contents(pipeline_image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine.python(pipeline_image, (HERE / "contents.py").read_text("utf-8"), "--user", "0"))
    return found


@pytest.fixture(autouse=True)
def use_images(pipeline_image: str, predictor_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The predictor's has the same tag, so that its name follows."""
    monkeypatch.setenv("PENSTOCK_IMAGE", pipeline_image)
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", ["compilers", "caches", "secrets", "keys", "tests", "writable"])
def test_it_holds_none_of(kind: str, contents: dict[str, Any]) -> None:
    assert contents[kind] == []


def test_no_server_is_in_it(contents: dict[str, Any]) -> None:
    names = {entry.split("-")[0].lower() for entry in contents["packages"]}
    assert names >= {"kfp", "torch", "kubernetes", "pyarrow"}
    assert names & {"kserve", "fastapi", "uvicorn", "grpc"} == set()


def test_its_torch_can_use_a_gpu(pipeline_image: str) -> None:
    assert engine.python(pipeline_image, "import torch; print(torch.version.cuda)", *engine.LOCKED_DOWN).strip() != "None"


def test_steps_that_need_no_torch_load_none(pipeline_image: str) -> None:
    assert engine.python(pipeline_image, LIGHT, *engine.LOCKED_DOWN).strip() == "[]"


def penstock(folder: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).with_name("penstock")), *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def left_over() -> list[str]:
    return engine.docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}").split()


@pytest.mark.release  # the tests of a user without an account and of the deployment pipeline have its parts
def test_the_training_pipeline_deploys_what_the_predictors_image_serves(tmp_path: Path, pipeline_image: str, predictor_image: str) -> None:
    began = time.time()
    process = penstock(tmp_path, "run", "training", "--docker", "--json", "--set", "epochs=2", "--set", "policy.minimum_accuracy=0.1")
    printed, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors + printed
    run = json.loads(printed)
    assert {step["name"] for step in run["steps"]} >= {"train-model", "validate-serving", "deploy-model"}
    registry = Registry(open_store(str(tmp_path / ".penstock/store")), "digits")
    assert registry.ledger.champion() == run["outputs"]["version"]
    owners = {path.stat().st_uid for path in (tmp_path / ".penstock").rglob("*")}
    assert owners == {os.getuid()}
    assert left_over() == []
    assert engine.started(f"{LABEL}={Path(run['directory']).name}", began) == {pipeline_image: len(run["steps"]) - 1, predictor_image: 1}


@pytest.fixture
def chosen(tmp_path: Path) -> tuple[list[str], Registry, str]:
    """A command that deploys a version, its registry, and the version."""
    registry, version = publish(tmp_path)
    command = ["run", "deployment", "--docker", "--store", str(tmp_path / "store"), "--name", NAME, "--json"]
    return [*command, "--set", f"version={version}", "--set", "actor=anna", "--set", "reason=release"], registry, version


def test_the_deployment_pipeline_validates_in_the_predictors_image(
    tmp_path: Path, chosen: tuple[list[str], Registry, str], pipeline_image: str, predictor_image: str
) -> None:
    command, registry, version = chosen
    began = time.time()
    process = penstock(tmp_path, *command)
    printed, errors = process.communicate(timeout=800)
    assert process.returncode == 0, errors + printed
    steps = [step["name"] for step in json.loads(printed)["steps"]]
    assert steps == ["choose-version", "validate-serving", "deploy-version", "conclude-run"]
    assert registry.ledger.champion() == version
    run = f"{LABEL}={Path(json.loads(printed)['directory']).name}"
    assert engine.started(run, began) == {pipeline_image: 3, predictor_image: 1}


def test_an_image_that_cannot_validate_deploys_nothing(
    tmp_path: Path, chosen: tuple[list[str], Registry, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a predictor's image of a release in which that step ran elsewhere."""
    monkeypatch.setenv("PENSTOCK_PREDICTOR_IMAGE", engine.BASE)
    command, registry, _ = chosen
    process = penstock(tmp_path, *command)
    printed, errors = process.communicate(timeout=800)
    assert process.returncode == 1, printed
    assert "validate-serving: kfp is not in the step's image" in errors
    assert "make image" in errors
    assert registry.ledger.champion() is None
    assert left_over() == []


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give folders to another user")
def test_a_user_without_an_account_trains_with_a_megabyte_of_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("store", "run/tmp", "run/artifacts", "cache", "checkpoints"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setattr("pipelines.docker.os.getuid", lambda: NAMELESS)
    monkeypatch.setattr("pipelines.docker._SHARED_MEMORY", "1m")
    monkeypatch.chdir(tmp_path)
    from pipelines.cli.run import prepare

    settings = ["epochs=2", "policy.minimum_accuracy=0.1"]
    arguments = prepare("training", settings, env="", store=str(tmp_path / "store"), name="digits")
    for path in tmp_path.rglob("*"):
        os.chown(path, NAMELESS, 0)
    result = run_local("training", arguments, tmp_path / "run", lambda *event: None, str(tmp_path / "checkpoints"), docker=True)
    assert result.succeeded, result.error + result.log.read_text()
    assert {step.name for step in result.steps} >= {"train-model", "validate-serving", "deploy-model"}
    assert {path.stat().st_uid for path in (tmp_path / "store/models").rglob("*")} == {NAMELESS}


def test_a_step_that_fails_fails_the_run_with_its_cause(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        (tmp_path / "pictures" / name / "one.png").write_bytes(b"no picture")
    process = penstock(tmp_path, "run", "training", "--docker", "--set", "source=pictures")
    printed, errors = process.communicate(timeout=800)
    assert process.returncode == 1, printed
    assert "ingest-dataset" in errors
    assert "pictures" in errors
    assert left_over() == []


def test_an_interrupted_run_leaves_no_container(tmp_path: Path) -> None:
    process = penstock(tmp_path, "run", "training", "--docker", start_new_session=True)
    deadline = time.monotonic() + 120
    while not left_over() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_over() != []
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    assert process.returncode == 130
    assert left_over() == []


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("image", ["pipeline_image", "predictor_image"])  # the second starts a server of its own accord
def test_a_container_that_ends_at_once_tells_its_exit_code(
    code: int, image: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    client = docker.from_env()
    try:
        for _ in range(5):
            assert run_container(client, request.getfixturevalue(image), ["sh", "-c", f"echo grüße; exit {code}"], {}) == code
    finally:
        client.close()
    assert capsys.readouterr().out == "grüße\n" * 5


@pytest.mark.parametrize(
    ("variable", "absent"),
    [("PENSTOCK_IMAGE", "penstock-pipeline:absent"), ("PENSTOCK_PREDICTOR_IMAGE", "penstock-predictor:absent")],
)
def test_an_image_that_is_not_there_is_said_before_the_run(variable: str, absent: str, tmp_path: Path) -> None:
    process = penstock(tmp_path, "run", "training", "--docker", env={**os.environ, variable: absent})
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 2
    assert f"there is no image {absent}" in errors
    assert "make image" in errors
    assert variable in errors
    assert "Traceback" not in errors


def test_scoring_does_not_ask_for_the_predictors_image(tmp_path: Path) -> None:
    environment = {**os.environ, "PENSTOCK_PREDICTOR_IMAGE": "penstock-predictor:absent"}
    for pipeline, refused in (("scoring", False), ("deployment", True)):
        code = f"from pipelines.docker import check_engine; check_engine({pipeline!r})"
        ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (ran.returncode != 0) is refused, ran.stderr
        assert ("there is no image penstock-predictor:absent" in ran.stderr) is refused
