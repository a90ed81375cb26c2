"""A scoring in pods of a Ray cluster that cannot work is refused before anything starts."""

import importlib.util
from typing import Any

import pytest

from components.classifier.errors import UsageError
from components.preflight.checks import check_scoring

GIVEN: dict[str, Any] = {
    "store": "s3://penstock",
    "input": "s3://data/pets",
    "output": "",
    "environment": "dev",
    "shards": 0,
    "gpus": "0",
    "gpu_resource": "nvidia.com/gpu",
    "node_selector": {},
    "scoring": {"engine": "ray", "ray_nodes": 2.0},
}


def refused(here: bool = False, **changed: Any) -> str:
    with pytest.raises(UsageError) as told:
        list(check_scoring({**GIVEN, **changed}, here))
    return str(told.value)


def test_what_works_is_told() -> None:
    assert list(check_scoring(GIVEN)) == ["scoring: review below 0.8"]


def test_what_cannot_work_is_said_with_its_remedy() -> None:
    assert "leave ray_nodes out" in refused(here=True)
    assert "cannot reach input=pictures; set input to one such as s3://" in refused(input="pictures")
    assert "set ray_gpus instead" in refused(gpus="1")
    assert "shards must be 0 (as many as are useful) or more, got -1" in refused(shards=-1)


def test_a_machine_without_ray_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else found(name, *more))
    assert "pip install 'penstock[ray]', in images make image EXTRAS=ray" in refused(here=True, scoring={"engine": "ray"})
