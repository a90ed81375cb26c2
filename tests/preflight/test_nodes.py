"""A run on several nodes that cannot work is refused before anything starts."""

import importlib.util
from typing import Any

import pytest

from components.classifier.errors import UsageError
from components.preflight.checks import check_search, check_training

GIVEN: dict[str, Any] = {
    "name": "digits",
    "source": "digits",
    "store": "s3://penstock",
    "architecture": "small_cnn",
    "ingest": {"keep_dataset": True},
    "training": {},
    "resources": {"nodes": 2.0},
}


def refused(here: bool = False, **changed: Any) -> str:
    checks = check_training({**GIVEN, **changed}, here)
    with pytest.raises(UsageError) as told:
        list(checks)
    return str(told.value)


def test_what_is_missing_for_several_nodes_is_said_with_its_remedy() -> None:
    assert "leave nodes out" in refused(here=True)
    assert "set store to one such as s3://" in refused(store="/data/store")
    assert "set keep_dataset=true" in refused(ingest={})
    assert "set batch_size=4 or more" in refused(training={"batch_size": 3})


def test_an_image_without_the_sdk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "kubeflow" else found(name, *more))
    assert "make image EXTRAS=trainer" in refused()


def test_what_works_is_told() -> None:
    lines = check_training(GIVEN)
    assert "nodes: 2, by Kubeflow Trainer" in [next(lines) for _ in range(4)]


def test_a_search_trains_on_one_node_each() -> None:
    with pytest.raises(UsageError, match="pods of one node each"):
        list(check_search({**GIVEN, "search": {}}))
