"""The guard: whatever a system of others does, a step goes on."""

import re
import threading

import pytest

from components.integrations import observe
from components.integrations.observe import Report, observed, safely


def test_what_a_library_raises_is_one_line_and_the_integration_is_left_alone_after_it(capfd: pytest.CaptureFixture[str]) -> None:
    calls = []

    def work() -> None:
        calls.append(1)
        raise RuntimeError("no route\nto host")

    assert not safely("MLflow", work)
    assert not safely("MLflow", work)
    assert len(calls) == 1
    assert capfd.readouterr().err == "warning: MLflow is told nothing more in this step: RuntimeError: no route\n"


def test_a_server_that_never_answers_costs_one_deadline(capfd: pytest.CaptureFixture[str]) -> None:
    never = threading.Event()
    assert not safely("MLflow", never.wait, 0.05)
    assert not safely("MLflow", never.wait, 3600)
    never.set()
    assert "no answer within 0.05 s" in capfd.readouterr().err


def test_a_step_returns_and_raises_what_its_work_does_though_nothing_can_be_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "unknown://server")

    @observed(lambda result, number: Report("test", "digits"))
    def double(number: int) -> int:
        if number < 0:
            raise ValueError("below zero")
        return 2 * number

    assert double(4) == 8
    with pytest.raises(ValueError, match="below zero"):
        double(-1)
    assert capfd.readouterr().err.count("MLflow is told nothing more") == 1


def test_what_is_asked_for_and_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert observe.configured() == []
    monkeypatch.setenv("PENSTOCK_MODEL_REGISTRY", "http://registry")
    monkeypatch.setenv("OPENLINEAGE_URL", "http://marquez")
    assert observe.active() == ["OpenLineage", "Model Registry"]
    assert list(observe.missing()) == []
    monkeypatch.setattr(observe, "find_spec", lambda name: None)
    assert observe.active() == []
    extras = [re.findall(r"penstock\[(.+)\]", line) for line in observe.missing()]
    assert extras == [["lineage"], ["model-registry"]]
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    assert observe.configured() == ["Model Registry"]
