"""The predictor's image for GPUs, tried without one: it says by name that there is none, and on the CPU it is the same server."""

import json
from pathlib import Path

import pytest

from components.bundle.golden import load_golden
from tests.images import engine
from tests.images.test_predictor_image import MEGABYTE, ask

pytestmark = [pytest.mark.release, pytest.mark.timeout(1800), pytest.mark.xdist_group("images")]

# Everything that onnxruntime's CUDA part asks for but the driver, which the node brings.
MISSING = """
import ctypes, contextlib, io, pathlib, onnxruntime
with contextlib.redirect_stdout(io.StringIO()):
    onnxruntime.preload_dlls(directory="")
try:
    ctypes.CDLL(str(pathlib.Path(onnxruntime.__file__).parent / "capi/libonnxruntime_providers_cuda.so"))
except OSError as error:
    print(error)
print("CUDAExecutionProvider" in onnxruntime.get_available_providers())
"""


@pytest.fixture(scope="module")
def gpu_image(predictor_image: str) -> str:
    return engine.build("predictor-gpu", "--build-arg", "REVISION=abc1234", "--build-arg", "CREATED=2026-01-02T03:04:05Z")


def test_only_the_driver_is_missing_in_it(gpu_image: str) -> None:
    printed = engine.python(gpu_image, MISSING, *engine.LOCKED_DOWN).splitlines()
    assert printed[-1] == "True"
    assert [line.split(":")[0] for line in printed[:-1]] in ([], ["libcuda.so.1"])


def test_it_is_the_predictor_with_cuda_above(gpu_image: str, predictor_image: str) -> None:
    below, layers = engine.inspect(predictor_image)["RootFS"]["Layers"], engine.inspect(gpu_image)["RootFS"]["Layers"]
    assert layers[: len(below)] == below
    assert len(layers) == len(below) + 1
    assert engine.inspect(gpu_image)["Size"] < 3600 * MEGABYTE
    config = engine.inspect(gpu_image)["Config"]
    assert config["User"] == "65532:65532"
    assert config["Labels"]["org.opencontainers.image.title"] == "Penstock predictor for GPUs"
    assert config["Labels"]["org.opencontainers.image.revision"] == "abc1234"


def test_without_a_gpu_it_ends_and_names_what_is_missing(gpu_image: str, version_folder: Path) -> None:
    options = (*engine.LOCKED_DOWN, "--volume", f"{version_folder}:/mnt/models:ro")
    with engine.container(gpu_image, "--model_name", "digits", options=options) as it:
        assert engine.docker("wait", it, timeout=60).strip() == "2"
        last = json.loads(engine.logs(it).strip().splitlines()[-1])
        assert "no NVIDIA driver" in last["error"]
        assert "Traceback" not in engine.logs(it)


def test_on_the_cpu_it_batches_and_answers_as_evaluated(gpu_image: str, version_folder: Path) -> None:
    options = (*engine.LOCKED_DOWN, "--volume", f"{version_folder}:/mnt/models:ro")
    images, expected = load_golden(version_folder)
    with engine.container(gpu_image, "--model_name", "digits", "--device", "cpu", "--batch_window_ms", "2", options=options) as it:
        body = {"instances": images.tolist(), "return_probabilities": True}
        ((status, answer),) = ask(it, ("POST", "/v1/models/digits:predict", body))
    assert status == 200
    rows = [list(entry["probabilities"].values()) for entry in answer["predictions"]]
    assert rows == [pytest.approx(row, abs=1e-4) for row in expected.tolist()]
