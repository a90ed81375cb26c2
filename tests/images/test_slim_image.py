"""The image without torch: small, nothing in it that should not be, and all that its steps and the watcher import."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.images import engine
from tests.test_import_rules import steps_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800), pytest.mark.xdist_group("images")]


@pytest.fixture(scope="module")
def image(docker_engine: None) -> str:
    return engine.build("pipeline-slim")


@pytest.fixture(scope="module")
def contents(image: str) -> dict[str, Any]:
    looks = (Path(__file__).parent / "contents.py").read_text("utf-8")
    found: dict[str, Any] = json.loads(engine.python(image, looks, "--user", "0"))
    return found


@pytest.mark.parametrize("kind", ["compilers", "caches", "secrets", "keys", "tests", "writable"])
def test_it_holds_none_of(kind: str, contents: dict[str, Any]) -> None:
    assert contents[kind] == []


def test_neither_torch_nor_cuda_nor_a_server_is_in_it(contents: dict[str, Any], image: str) -> None:
    names = {entry.split("-")[0].lower() for entry in contents["packages"]}
    assert names >= {"kfp", "kfp_server_api", "onnxruntime", "kubernetes", "pyarrow"}
    assert names & {"torch", "torchvision", "triton", "nvidia", "kserve", "fastapi", "uvicorn"} == set()
    assert engine.inspect(image)["Size"] < 1_200_000_000


def test_its_steps_find_all_that_they_import(image: str) -> None:
    imports = "".join(f"import {name}\n" for name in sorted(set().union(*steps_of("slim_component").values())))
    start = "import os\nos.environ['_KFP_RUNTIME'] = 'true'  # as the step's command sets it\nimport kfp.dsl.executor_main\n"
    engine.python(image, start + imports, *engine.LOCKED_DOWN, "--user", "123456")


def test_the_watcher_compiles_and_asks_kubeflow_in_it(image: str) -> None:
    code = "from pipelines.submit import Server, submit\nsubmit('retraining', {}, Server('http://127.0.0.1:9'), experiment='penstock')"
    safe = (*engine.LOCKED_DOWN, "--tmpfs", "/tmp", "--env", "PENSTOCK_IMAGE=registry.example/penstock-pipeline:1")
    ran = engine.attempt("run", "--rm", "--interactive", *safe, "--entrypoint", "python3", image, "-", stdin=code)
    assert "http://127.0.0.1:9 cannot be reached" in ran.stderr
    helped = engine.docker("run", "--rm", *safe, "--entrypoint", "python3", image, "-m", "pipelines.cli", "watch", "--help")
    assert "--min-accuracy" in helped
