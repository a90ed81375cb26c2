"""Unfamiliar pictures in batch scoring: their rows say so, need review, and are counted."""

from pathlib import Path

import numpy as np
import pytest

from components.bundle.model import Classifier
from components.bundle.reference import Reference
from components.evaluate.slices import measure_appearance
from tests import tiny
from tests.score import cases
from tests.score.conftest import Model, Score, publish


@pytest.fixture(scope="module")
def familiar(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("familiar")
    bundle = tiny.write_bundle(folder / "bundle", familiarity=True)
    pictures = cases.digits(900)
    seen, answers = measure_appearance(pictures), Classifier(bundle).answer(pictures)
    Reference.of(tiny.CLASSES, answers.probabilities, seen.brightness, seen.contrast, answers.familiarity).save(bundle)
    return publish(bundle, str(folder / "store"))


def test_rows_say_it_and_need_review_however_sure_the_answer_is(score: Score, familiar: Model, tmp_path: Path) -> None:
    pictures = np.concatenate([cases.digits(300), np.full((30, 8, 8, 1), 255, np.uint8)])
    np.save(tmp_path / "in.npy", pictures)
    done = score(tmp_path / "in.npy", using=familiar, review_threshold=0.0)
    assert [row["unfamiliar"] for row in done.rows[-30:]] == [True] * 30
    assert [row["needs_review"] for row in done.rows] == [row["unfamiliar"] for row in done.rows]
    assert done.summary.unfamiliar == done.summary.needs_review == sum(row["unfamiliar"] for row in done.rows)
    assert any(warning.endswith("of 330 pictures look like nothing that the version was trained on") for warning in done.summary.warnings)
    assert "familiarity" in {drift.feature for drift in done.summary.drift}


def test_own_pictures_raise_no_warning(score: Score, familiar: Model, tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", tiny.digits()[0][900:1700])
    assert score(tmp_path / "in.npy", using=familiar).summary.warnings == []
