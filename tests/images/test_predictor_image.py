"""The predictor's image: what is in it, and that it serves locked down, from a read-only folder of another user."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.bundle import files
from components.bundle.golden import load_golden
from tests.images import engine, step

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800), pytest.mark.xdist_group("images")]

MEGABYTE = 10**6
HERE = Path(__file__).parent
# Not kfp: without what it asks for it is 4 MB, and starts the step validate_serving.
HEAVY = (
    "torch",
    "torchvision",
    "triton",
    "nvidia",
    "pandas",
    "scipy",
    "sklearn",
    "pyarrow",
    "matplotlib",
    "kubernetes",
    "pip",
    "setuptools",
)

ASK = """
import http.client, json, sys, time
def ask(method, path, document=None):
    for _ in range(300):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=20)
            connection.request(method, path, document and json.dumps(document), {"content-type": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 503:
                return answer.status, json.loads(body)
        except OSError:
            pass
        time.sleep(0.1)
print(json.dumps([ask(*it) for it in json.loads(sys.argv[1])]))
"""


def ask(container: str, *requests: tuple[Any, ...]) -> list[tuple[int, Any]]:
    """Send requests from inside: the container has no network."""
    answers = json.loads(engine.docker("exec", "--interactive", container, "python3", "-c", ASK, json.dumps(requests)))
    return [(status, document) for status, document in answers]


@pytest.fixture(scope="module")
def contents(predictor_image: str) -> dict[str, Any]:
    code = (HERE / "contents.py").read_text("utf-8")
    found: dict[str, Any] = json.loads(engine.python(predictor_image, code, "--user", "0"))
    return found


@pytest.fixture(scope="module", params=["65532:65532", "123456:0"])
def locked_down(request: pytest.FixtureRequest, predictor_image: str, version_folder: Path) -> Iterator[str]:
    options = (*engine.LOCKED_DOWN, "--user", request.param, "--shm-size", "1m", "--volume", f"{version_folder}:/mnt/models:ro")
    with engine.container(predictor_image, "--model_name", "digits", options=options) as it:
        yield it


def test_it_is_small(predictor_image: str) -> None:
    assert engine.inspect(predictor_image)["Size"] < 450 * MEGABYTE


def test_nothing_heavy_is_in_it(contents: dict[str, Any]) -> None:
    names = {entry.split("-")[0].lower() for entry in contents["packages"]}
    assert names & set(HEAVY) == set()


@pytest.mark.parametrize("kind", ["compilers", "caches", "secrets", "keys", "tests", "writable", "uncompiled"])
def test_it_holds_none_of(kind: str, contents: dict[str, Any]) -> None:
    assert contents[kind] == []


def test_every_distribution_in_it_is_used_and_the_server_loads_nothing_of_the_step(
    predictor_image: str, version_folder: Path, sound_version: tuple[Path, str]
) -> None:
    store, version = sound_version
    given = ("--env", f"STEP={json.dumps(step.command(version)[3:])}")
    options = (*engine.LOCKED_DOWN, "--tmpfs", "/tmp", "--volume", f"{version_folder}:/mnt/models:ro", *step.mount(store), *given)
    printed = engine.python(predictor_image, (HERE / "used.py").read_text("utf-8"), *options)
    assert json.loads(printed.splitlines()[-1]) == {"code": 0, "only_validating": ["kfp"], "unused": []}


def test_it_says_what_it_is(predictor_image: str) -> None:
    config = engine.inspect(predictor_image)["Config"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert labels["revision"] == "abc1234"
    assert labels["created"] == "2026-01-02T03:04:05Z"
    assert labels["version"]
    assert labels["licenses"] == "Apache-2.0"
    assert f"PENSTOCK_CODE_VERSION={labels['version']}+gabc1234" in config["Env"]
    assert config["User"] == "65532:65532"
    assert config["Healthcheck"]["Test"][0] == "CMD"  # no shell
    assert config["Entrypoint"][0] == "python3"


def test_it_answers_both_protocols(locked_down: str, version_folder: Path) -> None:
    images, expected = load_golden(version_folder)
    manifest = json.loads((version_folder / files.MANIFEST).read_text())
    tensor = {"name": "image", "shape": list(images.shape), "datatype": "UINT8", "data": images.ravel().tolist()}
    wanted = [{"name": "label"}, {"name": "probabilities"}]
    (first, v1), (second, v2) = ask(
        locked_down,
        ("POST", "/v1/models/digits:predict", {"instances": images.tolist(), "return_probabilities": True}),
        ("POST", "/v2/models/digits/infer", {"inputs": [tensor], "outputs": wanted}),
    )
    assert (first, second) == (200, 200), (v1, v2)
    assert v1["model_version"] == v2["model_version"] == manifest["version"]
    rows = [list(entry["probabilities"].values()) for entry in v1["predictions"]]
    assert np.sort(rows) == pytest.approx(np.sort(expected), abs=1e-4)
    outputs = {output["name"]: output["data"] for output in v2["outputs"]}
    assert np.reshape(outputs["probabilities"], expected.shape) == pytest.approx(expected, abs=1e-4)
    assert [entry["label"] for entry in v1["predictions"]] == outputs["label"]


def test_it_becomes_healthy(locked_down: str) -> None:
    deadline = time.monotonic() + 60
    while (health := engine.docker("inspect", "--format", "{{.State.Health.Status}}", locked_down).strip()) == "starting":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert health == "healthy"


def test_it_writes_nothing(locked_down: str) -> None:
    assert set(engine.docker("diff", locked_down).splitlines()) <= {"C /mnt", "A /mnt/models"}  # the mount itself


def test_a_damaged_version_ends_it_with_the_file_that_is_wrong(predictor_image: str, version_folder: Path, tmp_path: Path) -> None:
    for path in version_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / files.ONNX).write_bytes(b"cut")
    tmp_path.chmod(0o755)  # the image's user is another
    with engine.container(predictor_image, options=(*engine.LOCKED_DOWN, "--volume", f"{tmp_path}:/mnt/models:ro")) as it:
        assert engine.docker("wait", it, timeout=60).strip() != "0"
        assert files.ONNX in engine.logs(it)
        assert "Traceback" not in engine.logs(it)


def test_stopping_answers_what_is_in_flight(predictor_image: str, version_folder: Path) -> None:
    body = json.dumps({"instances": load_golden(version_folder)[0].tolist()}).encode()
    options = ("--publish", "127.0.0.1::8080", "--volume", f"{version_folder}:/mnt/models:ro")
    with engine.container(predictor_image, "--model_name", "digits", options=options) as it:
        ask(it, ("GET", "/v2/health/ready"))
        port = int(engine.docker("port", it, "8080").rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            head = "POST /v1/models/digits:predict HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n"
            head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            connection.sendall(head.encode() + body[:100])
            engine.docker("kill", "--signal", "TERM", it)  # what `docker stop` sends, without waiting
            time.sleep(4)  # past the two seconds in which new requests are still taken
            connection.sendall(body[100:])
            answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"predictions"' in answer
        assert engine.docker("wait", it, timeout=60).strip() == "0"
        assert "draining" in engine.logs(it)


@pytest.mark.parametrize("after", [0.3, 1, 3, 8])  # seconds: while it imports, while it loads, while it serves
def test_docker_stop_ends_it_in_time(after: float, predictor_image: str, version_folder: Path) -> None:
    with engine.container(predictor_image, options=("--network", "none", "--volume", f"{version_folder}:/mnt/models:ro")) as it:
        time.sleep(after)
        began = time.monotonic()
        engine.docker("stop", "--time", "30", it)
        assert time.monotonic() - began < 15
        assert engine.docker("inspect", "--format", "{{.State.ExitCode}}", it).strip() in {"0", "143"}
