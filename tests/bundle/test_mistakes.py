"""Every wrong picture: what is kept of it, from the evaluation to the table."""

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.bundle import files, mistakes
from components.bundle.evaluation import Evaluation
from components.bundle.mistakes import WrongPicture, thumbnails_of, write_table, wrong_pictures
from components.bundle.predictions import Predictions
from components.classifier.errors import EvaluationError, StoreError, UsageError
from components.evaluate.evaluation import evaluate
from tests.evaluate import made

CLASSES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures with files, of which 40 are wrong: more than the report shows large."""
    root = tmp_path_factory.mktemp("evaluated")
    labels = np.arange(60) % 3
    probabilities = np.full((60, 3), 0.1, np.float32)
    probabilities[np.arange(60), np.where(np.arange(60) < 20, labels, (labels + 1) % 3)] = 0.8
    made.write_dataset(root / "data", labels, CLASSES, groups=[f"patient {k}" for k in range(60)])
    made.write_model(root / "model", probabilities, CLASSES)
    evaluate(root / "data", root / "model", root / "out")
    return root


def test_all_wrong_pictures_have_their_files_labels_and_thumbnails(evaluated: Path) -> None:
    evaluation, predictions = Evaluation.load(evaluated / "out"), Predictions.load(evaluated / "out")
    wrong = wrong_pictures(evaluation, predictions)
    assert len(wrong) == 40 > len(evaluation.mistakes)
    assert {picture.row for picture in wrong} == set(range(20, 60))
    assert all(picture.file == f"{picture.row}.png" for picture in wrong)
    assert all(picture.label == CLASSES[picture.row % 3] != picture.predicted for picture in wrong)
    assert wrong[0].confidence == pytest.approx(0.8)
    assert wrong[0].label_probability == pytest.approx(0.1)
    assert wrong[0].familiarity is None
    assert predictions.thumbnails is not None
    assert predictions.thumbnail_rows is not None
    np.testing.assert_array_equal(predictions.thumbnails, made.pictures(60)[predictions.thumbnail_rows])


def test_a_version_that_kept_less_still_lists_all_of_them(evaluated: Path) -> None:
    evaluation, new = Evaluation.load(evaluated / "out"), Predictions.load(evaluated / "out")
    old = Predictions(new.labels, new.probabilities, None, new.mistake_images)
    named = {picture.row: picture.file for picture in wrong_pictures(evaluation, old)}
    assert len(named) == 40
    assert {row for row, file in named.items() if file} == {mistake.index for mistake in evaluation.mistakes}


def test_large_pictures_are_kept_small_and_as_many_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 300, 150, 3), dtype=np.uint8)
    monkeypatch.setattr(mistakes, "MAX_THUMBNAIL_BYTES", 2 * 112 * 56 * 3)
    thumbnails, rows = thumbnails_of(images, np.array([4, 2, 0]))
    assert thumbnails.shape == (2, 112, 56, 3)
    assert rows.tolist() == [4, 2]
    np.testing.assert_array_equal(thumbnails[1], Image.fromarray(images[2]).resize((56, 112), Image.Resampling.LANCZOS))


def test_tables_read_back_as_they_were(tmp_path: Path) -> None:
    pictures = [WrongPicture(3, 'a "b", c.png', "cat", "dog", 0.75, 0.125, None), WrongPicture(4, "", "cat", "owl", 0.5, 0.25, 0.5)]
    write_table(tmp_path / "out.csv", pictures)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["label"], float(row["confidence"])) for row in rows] == [('a "b", c.png', "cat", 0.75), ("", "cat", 0.5)]
    write_table(tmp_path / "out.parquet", pictures)
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [vars(picture) for picture in pictures]
    write_table(tmp_path / "none.parquet", [])
    assert pq.read_table(tmp_path / "none.parquet").column_names == list(vars(pictures[0]))
    with pytest.raises(UsageError, match="neither"):
        write_table(tmp_path / "out.xlsx", pictures)
    with pytest.raises(StoreError, match=r"cannot write .*nowhere/out.csv.* No such file or directory"):
        write_table(tmp_path / "nowhere" / "out.csv", pictures)


def test_damaged_file_names_are_refused_by_the_file_that_holds_them(evaluated: Path, tmp_path: Path) -> None:
    with np.load(evaluated / "out" / files.PREDICTIONS) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for wrong in (b"[1]", b"{"):
        np.savez(tmp_path / files.PREDICTIONS, **{**arrays, "files": np.frombuffer(wrong, np.uint8)})
        with pytest.raises(EvaluationError, match="file names are damaged"):
            Predictions.load(tmp_path)
