"""The script of docs/search.md by which Optuna searches: run as it stands there, with fewer trials."""

import re
from pathlib import Path

import pytest
import torch

from tests.test_documentation import ROOT

LESS = ("range(1, 9)", "range(1, 5)")


@pytest.mark.integration
def test_optuna_asks_for_trials_and_drops_some_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from optuna.trial import TrialState

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("components.train.loop.MIN_STEPS_PER_EPOCH", 5)
    (script,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/search.md").read_text("utf-8"), re.DOTALL)
    assert script.count(LESS[0]) == 1
    names: dict[str, object] = {}
    before = torch.get_num_threads()
    try:
        exec(compile(script.replace(*LESS), "search.md", "exec"), names)
    finally:
        torch.set_num_threads(before)
    study = names["study"]
    states = [trial.state for trial in study.trials]  # type: ignore[attr-defined]
    assert len(states) == 4
    assert TrialState.PRUNED in states
    assert TrialState.COMPLETE in states
    for trial in study.trials:  # type: ignore[attr-defined]
        assert list(trial.intermediate_values) == [3, 6, 12][: len(trial.intermediate_values)]
        assert len(trial.intermediate_values) == 3 or trial.state == TrialState.PRUNED
    assert study.best_value == max(it.value for it in study.trials if it.state == TrialState.COMPLETE)  # type: ignore[attr-defined]
    assert study.best_value > 0.5  # type: ignore[attr-defined]
    assert "resumed from the checkpoint of epoch 3" in capsys.readouterr().out
