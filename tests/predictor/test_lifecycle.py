"""Starting, failing to start, being overloaded and going away."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import product
from pathlib import Path

import httpx
import numpy as np
import pytest

from components.classifier.errors import IntegrityError, ServingError
from components.predictor.loaded_model import load
from components.validate_serving.predictor_process import PredictorProcess, predictor
from tests.predictor.test_limits import bomb
from tests.predictor.versions import INFER, NAME, PREDICT, b64, error_of, tensor

SLOW = """
import sys, time
from pathlib import Path
from components.classifier.errors import IntegrityError
from components.predictor.loaded_model import load
from components.predictor.server import PredictorServer
from components.predictor.settings import PredictorSettings

def loader(server):
    while not Path(sys.argv[2]).exists():
        time.sleep(0.02)
    if Path(sys.argv[2]).read_text() == "fail":
        raise IntegrityError("the storage has no such version; publish it again")
    server.serve(load("digits", Path(sys.argv[1])))

settings = PredictorSettings(model_name="digits", host="127.0.0.1", http_port=0, stop_with_parent=True, drain_seconds=0)
sys.exit(PredictorServer(settings).run(loader))
"""
"""The real server with a loader that waits for a file, as for storage that is slow."""


def log_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


class Slow:
    """A predictor that loads when told to."""

    def __init__(self, served_dir: Path, folder: Path) -> None:
        self.go, self.log = folder / "go", folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen([sys.executable, "-c", SLOW, str(served_dir), str(self.go)], stderr=log, stdout=log)
        deadline = time.monotonic() + 60
        while not (lines := [line for line in log_lines(self.log.read_text()) if line["event"] == "listening"]):
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{lines[0]['port']}", timeout=60)


@pytest.fixture
def slow(served_dir: Path, tmp_path: Path) -> Iterator[Slow]:
    server = Slow(served_dir, tmp_path)
    yield server
    server.client.close()
    server.process.kill()
    server.process.wait()


def test_until_the_model_is_loaded_the_server_lives_but_is_not_ready(slow: Slow, pictures: np.ndarray) -> None:
    client, body = slow.client, {"instances": [pictures[0].tolist()]}
    for path in ("/", "/v2/health/live"):
        assert client.get(path).status_code == 200
    for path in ("/v2/health/ready", "/v1/models/digits", "/v2/models/digits/ready", "/v2/models/digits", "/openapi.json"):
        assert "loading" in error_of(client.get(path), 503)
    for path in (PREDICT, INFER):
        response = client.post(path, json=body)
        assert "loading" in error_of(response, 503)
        assert int(response.headers["retry-after"]) > 0
    assert client.get("/metrics").status_code == 200
    error_of(client.get("/v1/models/other"), 404)
    slow.go.write_text("")
    deadline = time.monotonic() + 60
    while client.get("/v2/health/ready").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert client.post(PREDICT, json=body).status_code == 200


def test_a_model_that_cannot_be_loaded_ends_the_server_with_one_clear_line(slow: Slow) -> None:
    assert slow.client.get("/v2/health/live").status_code == 200
    slow.go.write_text("fail")
    assert slow.process.wait(60) == 1
    lines = slow.log.read_text().strip().splitlines()
    assert json.loads(lines[-1])["error"] == "the storage has no such version; publish it again"
    assert sum("no such version" in line for line in lines) == 1
    assert "Traceback" not in slow.log.read_text()


def damaged(served_dir: Path, tmp_path: Path, name: str, data: bytes | None) -> Path:
    folder = tmp_path / "models"
    shutil.copytree(served_dir, folder)
    if data is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize(("name", "data"), [("model.onnx", b"other"), ("config.json", None), ("manifest.json", None), ("golden.npz", b"")])
def test_files_that_differ_from_the_manifest_are_named(served_dir: Path, tmp_path: Path, name: str, data: bytes | None) -> None:
    with pytest.raises(IntegrityError, match=name):
        load(NAME, damaged(served_dir, tmp_path, name, data))


def test_an_unverified_model_never_becomes_ready(served_dir: Path, tmp_path: Path) -> None:
    folder, name = damaged(served_dir, tmp_path, "model.onnx", b"other"), "model.onnx"
    with PredictorProcess(NAME, folder) as process:
        with pytest.raises(ServingError, match=name):
            process.wait(60)
        assert process.process.returncode == 1
        assert [event["event"] for event in process.events()][-1] == "cannot serve"
        assert "serving" not in [event["event"] for event in process.events()]


@pytest.mark.parametrize(("host", "reached"), [("::", {"127.0.0.1", "[::1]"}), ("0.0.0.0", {"127.0.0.1"}), ("::1", {"[::1]"})])
def test_the_server_listens_on_the_families_that_its_host_names(served_dir: Path, host: str, reached: set[str]) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        grpc_port = found.getsockname()[1]
    with PredictorProcess(NAME, served_dir, "--host", host, "--enable_grpc", "true", "--grpc_port", str(grpc_port)) as process:
        process.wait(60)
        port = next(event["port"] for event in process.events() if event["event"] == "listening")
        for address, number in product(("127.0.0.1", "[::1]"), (port, grpc_port)):
            with closing(socket.socket(socket.AF_INET6 if "[" in address else socket.AF_INET)) as connection:
                listens = connection.connect_ex((address.strip("[]"), number)) == 0
            if number == port or host != "0.0.0.0":  # which gRPC takes for all addresses of both families
                assert listens == (address in reached), (address, number)


def test_wrong_options_are_exit_code_2_and_one_line() -> None:
    options = ["--workers", "2"], ["--max_images", "0"], ["--model_name", "../x"], ["--http_port", "many"]
    tries = "import sys\nfrom components.predictor.__main__ import main\nfor options in %r:\n"
    program = tries % (options,) + "    try:\n        print(main(options))\n    except SystemExit as end:\n        print(end.code)\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2"] * 4
    assert done.stderr.count("error: ") == 4
    assert "Traceback" not in done.stderr


def test_overload_is_503_with_retry_after_and_health_does_not_wait(served_dir: Path, pictures: np.ndarray) -> None:
    heavy = json.dumps({"instances": [{"b64": b64(bomb(4900))}]})
    options = ("--queue_size", "2", "--drain_seconds", "0")
    with predictor(NAME, served_dir, 60, *options) as (_, started), httpx.Client(base_url=started.url, timeout=60) as client:
        times: list[float] = []
        stop = threading.Event()

        def probe() -> None:
            with httpx.Client(base_url=started.url, timeout=60) as own:
                while not stop.wait(0.02):
                    began = time.monotonic()
                    assert own.get("/v2/health/ready").status_code == 200
                    times.append(time.monotonic() - began)

        prober = threading.Thread(target=probe)
        prober.start()
        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(lambda _: httpx.post(started.url + PREDICT, content=heavy, timeout=60), range(24)))
        stop.set()
        prober.join()
        statuses = {answer.status_code for answer in answers}
        assert statuses == {200, 503}
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers if answer.status_code == 503)
        assert client.post(PREDICT, json={"instances": [pictures[0].tolist()]}).status_code == 200
        assert np.median(times) < 0.05, times


def test_sigterm_drains(served_dir: Path, pictures: np.ndarray) -> None:
    heavy = json.dumps({"instances": [{"b64": b64(bomb(4900))}] * 2})
    light = {"inputs": [tensor([1, 8, 8, 1], data=pictures[0].ravel().tolist())]}
    with predictor(NAME, served_dir, 60, "--drain_seconds", "60") as (process, started):
        with ThreadPoolExecutor(4) as pool, httpx.Client(base_url=started.url, timeout=30) as client:
            in_flight = [pool.submit(httpx.post, started.url + PREDICT, content=heavy, timeout=30) for _ in range(4)]
            while "penstock_requests_in_flight 4.0" not in client.get("/metrics").text:
                time.sleep(0.01)
            process.process.send_signal(signal.SIGTERM)
            while not any(event["event"] == "draining" for event in process.events()):
                time.sleep(0.01)
            error_of(httpx.get(started.url + "/v2/health/ready", timeout=60), 503)
            assert httpx.get(started.url + "/v2/health/live", timeout=60).status_code == 200
            late = client.post(INFER, json=light)
            assert late.status_code == 200
            assert late.headers["connection"] == "close"
            assert [future.result().status_code for future in in_flight] == [200] * 4
        process.process.send_signal(signal.SIGTERM)  # the second one ends it at once
        assert process.process.wait(50) == 0
