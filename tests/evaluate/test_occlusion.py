"""Occlusion finds the part of a picture that an answer rests on."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from components.bundle import files
from components.bundle.model import Classifier
from components.bundle.predictions import Predictions
from components.evaluate import occlusion
from components.evaluate.evaluation import evaluate
from tests import tiny


def looks_at(directory: Path, rows: slice, columns: slice, size: int = 24) -> Classifier:
    """A model that answers 1 for what is bright in these rows and columns, and looks at nothing else."""
    tiny.write_bundle(directory, size=size, samples=30, golden=False)
    model = onnx.load(directory / files.ONNX)
    weight, bias = np.zeros((size, size, 10), np.float32), np.zeros(10, np.float32)
    weight[rows, columns, 1], bias[0] = 0.0015, 5
    for stored in model.graph.initializer:
        if stored.name in ("weight", "bias"):
            stored.CopyFrom(numpy_helper.from_array(weight.reshape(-1, 10) if stored.name == "weight" else bias, stored.name))
    onnx.save(model, directory / files.ONNX)
    return Classifier(directory, threads=1)


def test_the_answer_falls_where_the_part_is_hidden_that_the_model_looks_at(tmp_path: Path) -> None:
    model = looks_at(tmp_path, slice(0, 6), slice(18, 24))
    picture = np.zeros((1, 24, 24, 1), np.uint8)
    picture[0, :6, 18:] = 255
    before = model.probabilities(picture)[0, 1]
    (hidden,) = occlusion.occlude(model, picture, [1], batch_size=7)
    assert hidden.shape == (8, 8)
    assert np.argwhere(hidden < before - 0.1).tolist() == [[0, 6], [0, 7], [1, 6], [1, 7]]
    np.testing.assert_allclose(np.delete(hidden, [0, 1, 2], axis=0), before, rtol=1e-5)


def test_one_part_is_hidden_at_a_time_by_the_pictures_mean_colour(tmp_path: Path) -> None:
    tiny.write_bundle(tmp_path, channels=3, samples=60)
    model = Classifier(tmp_path, threads=1)
    picture = tiny.digits(8, 3)[0][5:6]
    (hidden,) = occlusion.occlude(model, picture, [4], batch_size=64)
    copy = picture.copy()
    copy[0, 1:4, 4:7] = picture.mean(axis=(0, 1, 2)).round()
    assert hidden[2, 5] == pytest.approx(model.probabilities(copy)[0, 4], abs=1e-6)


@pytest.mark.parametrize("side", [1, 2, 7, 8, 9, 28, 224, 301])
def test_every_pixel_is_hidden_once_at_least_and_no_part_is_empty(side: int) -> None:
    parts = occlusion._parts(side)
    assert len(parts) == min(8, side)
    assert set().union(*(range(side)[part] for part in parts)) == set(range(side))
    assert all(part.stop - part.start <= max(3, 2 * side / 8 + 2) for part in parts)


def test_a_slow_model_is_asked_about_fewer_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.write_bundle(tmp_path)
    model, images = Classifier(tmp_path, threads=1), tiny.digits()[0][:5]
    assert occlusion.occlude(model, images, [0] * 5, 64).shape == (5, 8, 8)
    assert occlusion.occlude(model, images[:0], [], 64).shape == (0, 8, 8)
    monkeypatch.setattr(occlusion, "TIME_LIMIT_S", -1)
    assert occlusion.occlude(model, images, [0] * 5, 64).shape == (1, 8, 8)


def test_an_evaluation_keeps_what_the_model_looked_at_in_its_surest_mistakes_and_the_report_shows_it(tmp_path: Path) -> None:
    tiny.write_dataset(tmp_path / "data")
    tiny.write_bundle(tmp_path / "model", samples=60)
    found = evaluate(tmp_path / "data", tmp_path / "model", tmp_path / "out")
    occluded = Predictions.load(tmp_path / "out").occluded
    assert occluded is not None
    assert len(occluded) == len(found.mistakes) > 0
    assert any(hidden.min() < mistake.confidence - 0.1 for hidden, mistake in zip(occluded, found.mistakes, strict=True))
    assert (tmp_path / "out" / files.REPORT).read_text("utf-8").count("what the model looked at") == 1
