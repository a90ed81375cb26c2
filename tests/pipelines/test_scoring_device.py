"""A scoring run whose GPU is not there is refused before its first step."""

from typing import Any

import pytest

from components.bundle.model import why_no_cuda
from components.classifier.errors import UsageError
from components.preflight.checks import check_scoring

GIVEN: dict[str, Any] = {
    "store": "store", "input": "pictures", "output": "", "scoring": {}, "environment": "dev",
    "shards": 0, "gpus": "0", "gpu_resource": "nvidia.com/gpu", "node_selector": {},
}  # fmt: skip


@pytest.mark.skipif(not why_no_cuda(), reason="there is a GPU here")
@pytest.mark.parametrize("asked", [{"scoring": {"device": "cuda"}}, {"gpus": "1"}])
def test_on_this_machine_a_gpu_that_is_not_there_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="'cuda' was requested, but"):
        list(check_scoring(GIVEN | asked, here=True))


def test_on_a_cluster_the_step_must_be_given_a_gpu() -> None:
    with pytest.raises(UsageError, match="gpus=1"):
        list(check_scoring(GIVEN | {"scoring": {"device": "cuda"}}))
    assert list(check_scoring(GIVEN | {"scoring": {"device": "cuda"}, "gpus": "1"}))


@pytest.mark.parametrize("here", [False, True])
def test_a_run_on_the_cpu_needs_none(here: bool) -> None:
    assert list(check_scoring(GIVEN | {"scoring": {"device": "cpu"}}, here))
    assert list(check_scoring(GIVEN, here))
