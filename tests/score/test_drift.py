"""Drift against the version's reference: told when it is there, and not made up from few pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.bundle.model import Classifier
from components.bundle.reference import Reference
from components.evaluate.slices import measure_appearance
from components.score.drift import compare
from tests import tiny
from tests.score import cases
from tests.score.conftest import Model, Score, publish


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A version with the reference.json that evaluation writes."""
    folder = tmp_path_factory.mktemp("watched")
    bundle = tiny.write_bundle(folder / "bundle")
    pictures = cases.digits(900)
    seen = measure_appearance(pictures)
    Reference.of(tiny.CLASSES, Classifier(bundle).probabilities(pictures), seen.brightness, seen.contrast).save(bundle)
    return publish(bundle, str(folder / "store"))


def saved(path: Path, pictures: np.ndarray) -> Path:
    np.save(path, pictures)
    return path


def test_pictures_like_those_of_the_evaluation_have_not_drifted(score: Score, watched: Model, tmp_path: Path) -> None:
    done = score(saved(tmp_path / "same.npy", tiny.digits()[0][900:1700]), using=watched)
    assert {drift.feature for drift in done.summary.drift} == {"predicted class", "confidence", "brightness", "contrast"}
    assert [drift.feature for drift in done.summary.drift if drift.drifted] == []
    assert done.summary.warnings == []


def test_darker_pictures_have_and_it_is_said(score: Score, watched: Model, tmp_path: Path) -> None:
    done = score(saved(tmp_path / "dark.npy", cases.digits(800) // 3), using=watched, shards=4)
    assert "brightness" in {drift.feature for drift in done.summary.drift if drift.drifted}
    assert any(warning.startswith("brightness has drifted") for warning in done.summary.warnings)
    assert json.loads((done.output / "summary.json").read_text())["drift"]


def test_a_handful_of_pictures_never_counts_as_drift(score: Score, watched: Model, tmp_path: Path) -> None:
    assert score(saved(tmp_path / "few.npy", cases.digits(3) // 3), using=watched).summary.warnings == []


def test_without_a_reference_there_is_no_drift(score: Score, tmp_path: Path) -> None:
    assert score(cases.folder(tmp_path / "in", 3)).summary.drift == []


COUNTS = st.lists(st.integers(0, 10_000), min_size=1, max_size=40)


@given(COUNTS)
def test_the_same_counts_never_drift(counts: list[int]) -> None:
    found = compare("x", counts, counts)
    assert found is None or (found.psi == 0 and not found.drifted)


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 10**9), min_size=n, max_size=n)] * 2)))
def test_figures_are_always_finite(pair: tuple[list[int], list[int]]) -> None:
    found = compare("x", *pair)
    assert found is None or (np.isfinite(found.psi) and found.psi >= 0 and 0 <= found.p_value <= 1)
