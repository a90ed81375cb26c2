"""A GPU that is asked for and not there is refused; `auto` says what it takes."""

import pytest
import torch

from components.classifier.device import choose_device, describe, fast_type
from components.classifier.errors import TrainingError

without_gpu = pytest.mark.skipif(
    torch.cuda.is_available() or torch.backends.mps.is_available(), reason="tells what happens on a machine without a GPU"
)


@without_gpu
@pytest.mark.parametrize(("device", "gpus"), [("cuda", "0"), ("gpu", "0"), ("mps", ""), ("cuda:0", "0"), ("auto", "1")])
def test_a_gpu_that_is_not_there_is_refused(device: str, gpus: str) -> None:
    with pytest.raises(TrainingError, match="was requested, but there is no GPU here"):
        choose_device(device, gpus)


@without_gpu
def test_auto_takes_the_cpu_and_says_so() -> None:
    device = choose_device("auto")
    assert device.type == "cpu"
    assert describe(device).startswith("cpu, ")


def test_cpu_is_cpu_everywhere() -> None:
    assert choose_device("cpu").type == "cpu"


def test_a_gpu_and_the_cpu_at_once_is_a_contradiction() -> None:
    with pytest.raises(TrainingError, match="contradict each other"):
        choose_device("cpu", "1")


@pytest.mark.parametrize(
    ("able", "precision", "expected"),
    [(True, "bfloat16", torch.bfloat16), (True, "auto", None), (True, "float32", None), (False, "bfloat16", None)],
)
def test_a_cpu_computes_in_16_bits_where_it_is_faster_so_and_may(
    monkeypatch: pytest.MonkeyPatch, able: bool, precision: str, expected: torch.dtype | None
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": able})
    assert fast_type(torch.device("cpu"), precision) == expected
