"""The training pipeline for real, through kfp's own local runner: a gate that passes, then one that holds."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.registry import Registry, verify_directory
from components.storage import open_store
from pipelines.local_runs import list_runs
from tests.pipelines.runs import Done, command, environment, penstock
from tests.predictor.test_inference_client import Recorder, recording

pytestmark = [pytest.mark.xdist_group("training_run"), pytest.mark.timeout(900)]
CODE = "0.1.0+gtest"
"""A version of the code that does not end in `.dirty`, which is never the same code."""
IMPOSSIBLE = ("--set", "policy.minimum_accuracy=1.0", "--set", "policy.maximum_latency_ms=0.000001", "--set", "seed=1")
QUICK = ("--set", "epochs=2", "--set", "augmentation=none", "--json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def registry(folder: Path) -> Registry:
    return Registry(open_store(str(folder / "store")), "digits")


@pytest.fixture(autouse=True)
def code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CODE_VERSION", CODE)


@pytest.fixture(scope="module")
def proxy() -> Iterator[Recorder]:
    """A company's proxy, which forbids everything."""
    with recording(Recorder(403, b"blocked by policy")) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def promoted(folder: Path, proxy: Recorder) -> Done:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_CODE_VERSION", CODE)
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
            patch.setenv(name, proxy.url)
        patch.delenv("NO_PROXY", raising=False)
        patch.delenv("no_proxy", raising=False)
        return penstock("run", "training", "--store", "store", "--name", "digits", *QUICK, cwd=folder)


@pytest.fixture(scope="module")
def held(folder: Path, promoted: Done) -> Done:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_CODE_VERSION", CODE)
        return penstock("run", "training", "--store", "store", "--name", "digits", *IMPOSSIBLE, *QUICK, cwd=folder)


def test_a_good_model_is_validated_and_deployed(promoted: Done, registry: Registry) -> None:
    assert promoted.code == 0, promoted.err
    assert promoted.steps[-3:] == ["validate-serving", "deploy-model", "conclude-run"]
    assert promoted.json["outputs"]["decision"] == "deploy"
    first = registry.ledger.records()[0]
    assert (first.action, first.version, first.champion) == ("deployed", promoted.json["outputs"]["version"], first.version)


def test_behind_a_proxy_no_step_asks_it_for_anything(promoted: Done, proxy: Recorder) -> None:
    """Validation starts a predictor on this machine and asks it: pictures must not go to the proxy."""
    assert promoted.code == 0
    assert proxy.seen == []


def test_every_step_tells_its_figures(promoted: Done) -> None:
    assert promoted.step("ingest-dataset")["figures"]["classes"] == 10
    assert promoted.step("evaluate-model")["figures"]["accuracy"] > 0.9
    assert all(step["seconds"] > 0 for step in promoted.json["steps"])


def test_the_gates_report_begins_with_its_verdict(promoted: Done, held: Done) -> None:
    for run, verdict in ((promoted, "Promote"), (held, "Hold")):
        (report,) = Path(run.json["directory"]).glob("artifacts/*/gate-model/report")
        assert f">{verdict}<" in report.read_text("utf-8")


def test_the_version_is_complete(promoted: Done, registry: Registry, tmp_path: Path) -> None:
    version = promoted.json["outputs"]["version"]
    assert registry.verify(version) == []
    assert verify_directory(registry.fetch(version, tmp_path / "version")).version == version


def test_a_model_below_the_floor_is_held_and_the_champion_stays(held: Done, promoted: Done, registry: Registry) -> None:
    assert held.code == 0, held.err
    assert held.json["outputs"]["decision"] == "hold"
    assert held.steps[-2:] == ["record-hold", "conclude-run"]
    assert "deploy-model" not in held.steps
    last = registry.ledger.records()[-1]
    assert (last.action, last.version) == ("held", held.json["outputs"]["version"])
    assert last.champion == promoted.json["outputs"]["version"]


def test_the_branch_that_was_not_taken_is_said(held: Done, promoted: Done) -> None:
    assert promoted.json["not_taken"] == ["hold"]
    assert held.json["not_taken"] == ["deploy"]


def test_a_run_has_one_id_in_its_folder_the_version_the_ledger_and_the_list(
    held: Done, promoted: Done, registry: Registry, folder: Path
) -> None:
    records = registry.ledger.records()
    for run, record in ((promoted, records[0]), (held, records[-1])):
        assert Path(run.json["directory"]).name == run.json["run"] == record.run
        assert registry.get(record.version).manifest.run == record.run
    listed = json.loads(penstock("runs", "list", "--json", cwd=folder).out)
    assert [(it["id"], it["status"], it["outcome"]["decision"]) for it in listed] == [
        (held.json["run"], "succeeded", "hold"),
        (promoted.json["run"], "succeeded", "deploy"),
    ]
    shown = penstock("runs", "show", promoted.json["run"], cwd=folder).out
    assert "train-model" in shown
    assert "epochs" in shown
    assert "epoch 1:" in penstock("runs", "log", "last", cwd=folder).out


def test_the_second_challenger_was_compared_with_the_champion(held: Done, promoted: Done, registry: Registry) -> None:
    (last,) = [record for record in registry.ledger.records() if record.version == held.json["outputs"]["version"]]
    assert last.decision["compared_with"] == promoted.json["outputs"]["version"]


@pytest.mark.integration
def test_a_retraining_that_finds_nothing_changed_ends_after_ingest_and_says_so(
    held: Done, promoted: Done, registry: Registry, folder: Path
) -> None:
    before = len(registry.ledger.records())
    run = ("run", "retraining", "--store", "store", "--name", "digits", *IMPOSSIBLE)
    again = penstock(*run, *QUICK, cwd=folder)
    assert (again.code, again.steps) == (0, ["check-parameters", "ingest-dataset", "conclude-run"]), again.err
    assert (again.json["outputs"], again.json["not_taken"]) == ({"outcome": "skipped"}, ["changed"])
    told = penstock(*run, *QUICK[:-1], cwd=folder)
    serves = promoted.json["outputs"]["version"]
    assert told.out.endswith(f"Nothing was trained: data, settings and code are those of the last run. {serves} serves.\n")
    assert len(registry.ledger.records()) == before
    other = penstock(*run, *QUICK, "--set", "seed=2", cwd=folder)
    assert (other.code, other.steps[-1], other.json["outputs"]) == (0, "conclude-run", {"outcome": "held"}), other.err
    assert "train-model" in other.steps


@pytest.mark.integration
def test_an_interrupted_training_leaves_its_checkpoint_from_which_the_same_command_goes_on(tmp_path: Path) -> None:
    errors = _interrupt(tmp_path, "epoch 1:", signal.SIGINT)
    assert f"the same command goes on from the checkpoint in {tmp_path / '.penstock/checkpoints'}" in errors
    _interrupt(tmp_path, "note: resumed from the checkpoint of", signal.SIGTERM)
    assert [run.status for run in list_runs(tmp_path / ".penstock/runs")] == ["interrupted", "interrupted"]
    assert not any((tmp_path / "store").rglob("models"))
    assert not any(path.name == "model" and any(path.iterdir()) for path in (tmp_path / ".penstock").rglob("model") if path.is_dir())
    assert _still_running(str(tmp_path)) == []


@pytest.mark.integration
def test_a_run_that_cannot_publish_keeps_the_model_and_says_how_to_go_on(tmp_path: Path) -> None:
    run = [*command("run", "training", "--store", "store", "--name", "digits", "--set", "epochs=2", "--set", "augmentation=none", "-v")]
    process = subprocess.Popen(run, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any("epoch 1:" in line for line in process.stdout)
    (tmp_path / "store" / "models").write_text("in the way")
    _, errors = process.communicate(timeout=800)
    assert process.returncode == 1
    said = re.search(r"publish-model: .* the trained model is in (\S+), and `penstock (.*)` goes on from there", errors)
    assert said, errors
    assert (Path(said[1]) / "model.onnx").is_file()
    (tmp_path / "store" / "models").unlink()
    done = penstock(*said[2].split(), "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    registry = Registry(open_store(str(tmp_path / "store")), "digits")
    assert [done.json["version"]] == list(registry.newest())
    assert registry.get(done.json["version"]).manifest.run == Path(said[2].split()[2]).name


def _interrupt(folder: Path, line_before: str, number: signal.Signals) -> str:
    """Start a long training, end it after a line that it prints, and return what it says then."""
    run = [*command("run", "training", "--store", "store", "--set", "epochs=500", "-v"), "--set", "augmentation=none"]
    process = subprocess.Popen(run, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    seen = next((line for line in process.stdout if line_before in line), "")
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert seen, errors
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    return errors


def _still_running(marker: str) -> list[str]:
    """Command lines of processes that work below a folder."""
    time.sleep(0.2)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if marker in line:
                found.append(line[:200])
    return found


@pytest.mark.integration
def test_two_runs_at_once_both_end_in_an_order(tmp_path: Path) -> None:
    runs = [
        subprocess.Popen(
            command("run", "training", "--store", "store", *QUICK, "--set", f"seed={seed}"),
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in (1, 2)
    ]
    ended = [(*run.communicate(timeout=800), run.returncode) for run in runs]
    registry = Registry(open_store(str(tmp_path / "store")), "digits")
    assert len(list(registry.newest())) == 2
    assert all(registry.verify(version) == [] for version in registry.newest())
    records = registry.ledger.records()
    assert [record.sequence for record in records] == list(range(1, len(records) + 1))
    for out, err, code in ended:
        assert code == 0, (out, err)  # the one that was overtaken is held, which is a result
    assert sorted(record.action for record in records) in (["deployed", "deployed"], ["deployed", "held"])
