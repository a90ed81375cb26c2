"""Buffers that stay on a device, tried on the CPU, and a GPU that is not there."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from components.bundle.model import Classifier, open_session, require_device, why_no_cuda
from components.classifier.errors import UsageError
from tests import tiny

NO_GPU = pytest.mark.skipif(not why_no_cuda(), reason="there is a GPU here")


@pytest.fixture(scope="module")
def bound(tiny_bundle: Path) -> Classifier:
    return Classifier(tiny_bundle, threads=1, bound=True)


def test_kept_buffers_give_what_the_plain_run_gives_for_every_number_of_pictures(tiny_bundle: Path, bound: Classifier) -> None:
    images, plain = tiny.digits()[0], Classifier(tiny_bundle, threads=1)
    for number in (1, 2, 3, 64, 5, 1, 65, 100, 4):  # large ones before small ones: what a buffer held before must not show
        np.testing.assert_allclose(bound.probabilities(images[:number]), plain.probabilities(images[:number]), atol=1e-6)


def test_an_answer_stays_as_it_is_when_the_buffers_are_used_again(bound: Classifier) -> None:
    images = tiny.digits()[0]
    first = bound.probabilities(images[:4])
    before = first.copy()
    bound.probabilities(images[4:8])
    np.testing.assert_array_equal(first, before)


def test_no_pictures_need_no_buffer(bound: Classifier) -> None:
    assert bound.probabilities(np.zeros((0, 8, 8, 1), np.uint8)).shape == (0, 10)


@NO_GPU
def test_a_gpu_that_is_not_there_is_refused_by_what_is_missing() -> None:
    with pytest.raises(UsageError, match=r"'cuda' was requested, but .*(built without CUDA|no NVIDIA driver)"):
        require_device("cuda")
    require_device("cpu")


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(UsageError, match="'tpu'"):
        require_device("tpu")


@NO_GPU
def test_without_a_gpu_auto_means_the_cpu(tiny_bundle: Path) -> None:
    session = open_session(str(tiny_bundle / "model.onnx"), onnxruntime.SessionOptions(), "auto")
    assert session.get_providers() == ["CPUExecutionProvider"]
