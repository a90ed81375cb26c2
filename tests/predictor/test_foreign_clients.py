"""Clients of other languages, each as its users write it first: none needs a setting to reach this server."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.validate_serving.predictor_process import predictor
from tests.predictor.versions import NAME, PREDICT, b64, png

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent / "clients"
LARGE = 2_000_000
"""Bytes: more than a client sends without asking first (Expect: 100-continue), or in one piece."""


def runtime(name: str) -> str:
    """The path of a language's runtime; the test is skipped where it is missing."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(*command: str | Path, **environment: str) -> str:
    ran = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=800, env={**os.environ, **environment})
    assert ran.returncode == 0, ran.stderr + ran.stdout
    return ran.stdout


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory, pictures: np.ndarray) -> list[Path]:
    """A small request and a large one."""
    folder = tmp_path_factory.mktemp("bodies")
    small = json.dumps({"instances": [{"b64": b64(png(pictures[0]))}, pictures[1].tolist()], "return_probabilities": True}).encode()
    paths = []
    for name, body in (("small.json", small), ("large.json", small + b" " * LARGE)):
        (folder / name).write_bytes(body)
        paths.append(folder / name)
    return paths


def check(printed: list[str], expected: np.ndarray) -> None:
    """Each line is a status and a body."""
    assert len(printed) == 2
    for line in printed:
        status, _, body = line.partition(" ")
        assert status == "200", line
        rows: Any = [list(entry["probabilities"].values()) for entry in json.loads(body)["predictions"]]
        np.testing.assert_allclose(rows, expected[:2], atol=1e-5)


@pytest.mark.parametrize("options", [("--http2",), ("--http1.1",), ("--http1.1", "--header", "Transfer-Encoding: chunked")])
def test_curl(url: str, bodies: list[Path], expected: np.ndarray, options: tuple[str, ...]) -> None:
    curl = runtime("curl")
    if "--http2" in options and "HTTP2" not in run(curl, "--version"):
        pytest.skip("this curl is built without HTTP/2")
    given = (*options, "--silent", "--show-error", "--header", "Content-Type: application/json", "--write-out", "\n%{http_code}")
    printed = []
    for body in bodies:
        answer, _, status = run(curl, *given, "--data-binary", f"@{body}", url + PREDICT).rpartition("\n")
        printed.append(f"{status} {answer}")
    check(printed, expected)


def test_javas_client_which_offers_http_2(url: str, bodies: list[Path], expected: np.ndarray) -> None:
    runtime("javac")  # a JDK: `java` runs a source file with its compiler
    check(run(runtime("java"), HERE / "Ask.java", url + PREDICT, *bodies).splitlines(), expected)


def test_gos_client_which_sends_chunks(url: str, bodies: list[Path], expected: np.ndarray, tmp_path: Path) -> None:
    ask = tmp_path / "ask"
    run(runtime("go"), "build", "-o", ask, HERE / "ask.go", GOCACHE=str(tmp_path / "cache"), GOFLAGS="-mod=mod", GOTOOLCHAIN="local")
    check(run(ask, url + PREDICT, *bodies).splitlines(), expected)


def test_nodes_fetch(url: str, bodies: list[Path], expected: np.ndarray) -> None:
    check(run(runtime("node"), HERE / "ask.mjs", url + PREDICT, *bodies).splitlines(), expected)


def test_tritons_grpc_client(served_dir: Path, pictures: np.ndarray, expected: np.ndarray, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    np.save(tmp_path / "pictures.npy", pictures)
    with predictor(NAME, served_dir, 60, "--enable_grpc", "true", "--grpc_port", str(port)):
        run(sys.executable, HERE / "triton_grpc.py", f"127.0.0.1:{port}", NAME, tmp_path / "pictures.npy", tmp_path / "answers.npy")
    np.testing.assert_allclose(np.load(tmp_path / "answers.npy"), expected, atol=1e-6)
