"""`penstock trial`: one training for Katib or a script, judged by the validation split alone."""

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from components.bundle.dataset import Dataset
from components.classifier import network
from pipelines.cli import main
from tests.train.fitting import exploding

KATIB_FILTER = re.compile(r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)")
"""What Katib's collector takes for metrics in a line, without a filter of the experiment's own (pkg/metricscollector/v1beta1/common)."""
SETTINGS = ("epochs=2", "width=0.25", "augmentation=none", "learning_rate=0.03", "device=cpu")
QUICK = ["--store", "store", "--name", "digits", *(f"--set={it}" for it in SETTINGS)]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("components.train.loop.MIN_STEPS_PER_EPOCH", 5)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(before)


@pytest.fixture
def dataset(digits_dataset: Dataset, project: Path) -> str:
    """A dataset version whose test pictures cannot be read."""
    shutil.copytree(digits_dataset.path, project / "dataset")
    shutil.rmtree(project / "dataset" / "test")
    return str(project / "dataset")


def trial(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["penstock", "trial", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def collected(out: str) -> dict[str, float]:
    """What Katib would read: the last value of each metric in lines that begin with a time as RFC 3339 writes it."""
    found = {}
    for line in out.splitlines():
        if any(name in line for name in ("validation_accuracy", "validation_loss")):
            time, _, rest = line.partition(" ")
            assert abs((datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()) < 600
            found |= {name: float(value) for name, value, *_ in KATIB_FILTER.findall(rest)}
    return found


def test_a_trial_prints_what_katib_reads_and_opens_no_test_picture(
    dataset: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trial(monkeypatch, dataset, *QUICK) == 0
    once = collected(capsys.readouterr().out)
    assert set(once) == {"validation_accuracy", "validation_loss"}
    assert 0.3 < once["validation_accuracy"] <= 1
    assert not list((project / ".penstock/checkpoints").glob("*.pt")), "what is complete leaves no checkpoint"

    assert trial(monkeypatch, dataset, *QUICK, "--until=1") == 0
    assert collected(capsys.readouterr().out) != once
    assert list((project / ".penstock/checkpoints").glob("*.pt")) != []
    assert trial(monkeypatch, dataset, *QUICK) == 0
    out = capsys.readouterr().out
    assert "resumed from the checkpoint of epoch 1" in out
    assert collected(out) == once, "a trial that was paused ends as one that never was"


def test_a_trial_that_diverges_fails_and_reports_no_metric(
    dataset: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(network.OWN, "exploding", exploding)
    assert trial(monkeypatch, dataset, "--store=store", "--set=architecture=exploding", "--set=epochs=1", "--set=device=cpu") == 1
    said = capsys.readouterr()
    assert "the training diverged; lower learning_rate" in said.err
    assert collected(said.out) == {}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--until=3"], "--until=3 is more than epochs=2; raise epochs"),
        (["--set=learning_rate=-1"], "learning_rate must be from 1e-06 to 1, not -1"),
        (["--set=image_size=32"], "dataset is a dataset version, which is taken as it is; remove image_size"),
    ],
)
def test_what_a_trial_cannot_do_is_wrong_usage(
    more: list[str], says: str, dataset: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trial(monkeypatch, dataset, *QUICK, *more) == 2
    assert says in " ".join(capsys.readouterr().err.split())


@pytest.mark.integration
def test_a_source_is_ingested_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert trial(monkeypatch, "digits", *QUICK) == 0
    assert collected(capsys.readouterr().out)["validation_accuracy"] > 0.3
