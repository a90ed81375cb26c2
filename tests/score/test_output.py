"""What lies in the output, after runs that went well and runs that did not."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.bundle.model import Answers, Classifier
from components.classifier.errors import DataError, IntegrityError, UsageError, VersionNotFound
from components.score.merge import merge
from components.score.model import resolve_version
from components.score.plan import Plan
from components.score.shard import score_shard
from components.settings.scoring import ScoringSettings
from tests import tiny
from tests.score import cases
from tests.score.conftest import Model, Score, plan_of


def test_rows_are_the_models_own_answers(score: Score, tiny_bundle: Path, model: Model, tmp_path: Path) -> None:
    done = score(cases.folder(tmp_path / "in", 12), probabilities=True, review_threshold=0.9)
    order = sorted(range(12), key=lambda number: f"{number}.png")
    expected = Classifier(tiny_bundle).probabilities(cases.digits(12)[order])
    np.testing.assert_array_equal([row["probabilities"] for row in done.rows], expected)
    assert done.labels == [tiny.CLASSES[k] for k in expected.argmax(axis=1)]
    assert [row["needs_review"] for row in done.rows] == (expected.max(axis=1) < np.float32(0.9)).tolist()
    assert {row["model_version"] for row in done.rows} == {model.version}
    assert json.loads(pq.read_schema(done.output / "predictions.parquet").metadata[b"penstock.classes"]) == tiny.CLASSES


def test_dead_letters_have_no_guess(score: Score, tmp_path: Path) -> None:
    cases.put(cases.folder(tmp_path / "in", 2) / "0a.png", b"")
    row = score(tmp_path / "in", probabilities=True).rows[1]
    assert row.pop("error") == "the file is empty (0 bytes)"
    assert {name for name, value in row.items() if value is None} == {"label", "confidence", "needs_review", "probabilities"}


def test_the_summary_counts_what_is_there(score: Score, tmp_path: Path) -> None:
    folder = cases.folder(tmp_path / "in", 20)
    cases.put(folder / "bad.png", b"x")
    cases.put(folder / "notes.txt", b"x")
    done = score(folder, shards=2, review_threshold=0.95)
    summary = done.summary
    assert (summary.rows, summary.scored, summary.errors, summary.passed_over, summary.shards) == (21, 20, 1, 1, 2)
    assert summary.classes == {name: done.labels.count(name) for name in tiny.CLASSES}
    assert summary.needs_review == sum(bool(row["needs_review"]) for row in done.rows)
    assert summary.mean_confidence == pytest.approx(np.mean([row["confidence"] for row in done.rows if row["confidence"]]), abs=1e-5)
    assert summary.warnings == ["1 of 21 inputs could not be scored; their rows say why"]
    assert summary.images_per_second is not None
    assert json.loads((done.output / "summary.json").read_text())["error_examples"][0]["input"] == "bad.png"


def test_the_manifest_vouches_for_the_files(score: Score, tmp_path: Path) -> None:
    folder = cases.folder(tmp_path / "in", 3)
    done = score(folder, output=tmp_path / "output")
    assert set(json.loads((done.output / "manifest.json").read_text())["files"]) == {
        "predictions.parquet",
        "_passed_over/passed_over.parquet",
    }
    with (done.output / "predictions.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(IntegrityError, match=r"predictions\.parquet.*was changed"):
        score(folder, output=tmp_path / "output")


def mixed(root: Path) -> Path:
    """Three files of which the middle one cannot be scored."""
    for name in ("a.npy", "c.npy"):
        np.save(cases.put(root / name, b""), cases.digits(3))
    whole = (root / "a.npy").read_bytes()
    cases.put(root / "b.npy", whole[:-9])
    return root


def test_a_container_that_cannot_be_used_is_named_and_the_others_are_kept(score: Score, tmp_path: Path) -> None:
    folder, output = mixed(tmp_path / "in"), tmp_path / "output"
    with pytest.raises(DataError, match=r"not everything was scored: b\.npy is cut") as failure:
        score(folder, output=output, shards=3)
    assert str(output / "_incomplete") in str(failure.value)
    assert pq.read_table(output / "_incomplete")["input"].to_pylist() == ["a.npy"] * 3 + ["c.npy"] * 3
    assert not (output / "predictions.parquet").exists()
    assert not (output / "manifest.json").exists()
    (folder / "b.npy").unlink()
    assert len(score(folder, output=output, shards=3).rows) == 6
    assert sorted(path.name for path in output.iterdir() if path.name != ".tmp") == [
        "_passed_over", "manifest.json", "predictions.parquet", "summary.json",
    ]  # fmt: skip


def test_a_shard_that_fails_is_named_and_what_was_there_before_stays(score: Score, tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "output"
    for name in ("a", "b", "c"):
        cases.tar(folder / f"{name}.tar", [("1.png", cases.png(1))])
    before = score(folder, output=output).data
    whole = (folder / "b.tar").read_bytes()
    cases.put(folder / "b.tar", whole + whole)
    with pytest.raises(DataError, match=r"shard 1: b\.tar is damaged, or several archives"):
        score(folder, output=output, shards=3)
    assert (output / "predictions.parquet").read_bytes() == before
    assert (output / "manifest.json").exists()
    assert pq.read_table(output / "_incomplete")["input"].to_pylist() == ["a.tar/1.png", "c.tar/1.png"]
    cases.put(folder / "b.tar", whole)
    assert score(folder, output=output, shards=3).names == ["a.tar/1.png", "b.tar/1.png", "c.tar/1.png"]


def test_a_shard_that_never_ran_is_named(model: Model, tmp_path: Path) -> None:
    plan = plan_of(model, tmp_path / "plan", cases.folder(tmp_path / "in", 9), tmp_path / "output", shards=3)
    results = [score_shard(Plan.load(plan.folder), shard).to_json() for shard in ("0", "2")]
    with pytest.raises(DataError, match="shard 1 ended before it scored piece 1"):
        merge(plan, results, tmp_path / "predictions")


def test_when_nothing_can_be_scored_the_run_is_not_green(score: Score, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        cases.put(tmp_path / "in" / name, b"text")
    with pytest.raises(DataError, match=r"none of the 2 inputs.*a\.png: the content is not a picture"):
        score(tmp_path / "in", output=tmp_path / "output")
    assert pq.read_table(tmp_path / "output" / "predictions.parquet").num_rows == 2
    with pytest.raises(DataError, match="none of the 2 inputs"):
        score(tmp_path / "in", output=tmp_path / "output")


def test_an_answer_that_is_no_number_is_a_dead_letter(score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Classifier.answer

    def broken(self: Classifier, images: np.ndarray, batch_size: int = 256) -> Answers:
        answers = real(self, images, batch_size)
        answers.probabilities[1] = np.nan
        return answers

    monkeypatch.setattr(Classifier, "answer", broken)
    done = score(cases.folder(tmp_path / "in", 3))
    assert done.errors == {("1.png", 0): "the model's answer is not a number"}
    assert "NaN" not in (done.output / "summary.json").read_text()


def test_versions_are_resolved_once_and_by_name(model: Model) -> None:
    assert resolve_version(model.store, "digits", "champion") == resolve_version(model.store, "digits", model.version) == model.version
    with pytest.raises(VersionNotFound, match=model.version):
        resolve_version(model.store, "digits", "20200101-000000-abcdefabcdef")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"review_threshold": 1.5}, "between 0 and 1"),
        ({"batch_size": 0}, "at least 1"),
        ({"workers": -1}, "workers"),
        ({"device": "tpu"}, "tpu"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ScoringSettings(**wrong)  # type: ignore[arg-type]


def test_a_gpu_that_was_asked_for_is_not_replaced_in_silence(model: Model, tmp_path: Path) -> None:
    plan = plan_of(model, tmp_path / "plan", cases.folder(tmp_path / "in", 1), tmp_path / "output")
    with pytest.raises(UsageError, match=r"cuda|GPU"):
        score_shard(plan, "0", gpus="1")


def test_negative_shards_are_refused(score: Score, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="shards"):
        score(cases.folder(tmp_path / "in", 1), shards=-1)


def test_without_an_output_results_go_below_the_model_store(model: Model, tmp_path: Path) -> None:
    plan = plan_of(model, tmp_path / "plan", cases.folder(tmp_path / "in", 1), "")
    assert plan.output.startswith(f"{model.store}/scores/digits/{model.version}-")
