"""Drift against the version's reference: told when it is there, and not made up from few pictures."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from components.bundle.dataset import Labels
from components.bundle.model import Classifier
from components.bundle.reference import Reference
from components.classifier.images import Pixels
from components.evaluate.slices import measure_appearance
from components.score.drift import RATE, ExpectedAccuracy, Feature, _rank_sum, accuracy_line, compare, expected_accuracy
from tests import tiny
from tests.score import cases
from tests.score.conftest import Model, Score, publish


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A version with the reference.json that evaluation writes."""
    folder = tmp_path_factory.mktemp("watched")
    bundle = tiny.write_bundle(folder / "bundle")
    pictures = cases.digits(900)
    seen, probabilities = measure_appearance(pictures), Classifier(bundle).probabilities(pictures)
    Reference.of(tiny.CLASSES, probabilities, seen.brightness, seen.contrast, labels=tiny.digits()[1][:900]).save(bundle)
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
    (warning,) = done.summary.warnings
    assert warning.startswith("drifted from what the version was evaluated on: ")
    assert "brightness (PSI" in warning
    assert json.loads((done.output / "summary.json").read_text())["drift"]


def test_a_handful_of_pictures_never_counts_as_drift(score: Score, watched: Model, tmp_path: Path) -> None:
    assert score(saved(tmp_path / "few.npy", cases.digits(3) // 3), using=watched).summary.warnings == []


def test_without_a_reference_there_is_no_drift(score: Score, tmp_path: Path) -> None:
    assert score(cases.folder(tmp_path / "in", 3)).summary.drift == []


COUNTS = st.lists(st.integers(0, 10_000), min_size=1, max_size=40)


@given(COUNTS)
def test_the_same_counts_never_drift(counts: list[int]) -> None:
    assert all(found.psi == 0 and not found.drifted for found in compare([Feature("x", counts, counts, ordered=True)]))


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 10**9), min_size=n, max_size=n)] * 2)))
def test_figures_are_always_finite(pair: tuple[list[int], list[int]]) -> None:
    for found in compare([Feature("x", *pair, ordered=True)]):
        assert np.isfinite(found.psi)
        assert found.psi >= 0
        assert 0 <= found.p_value <= 1
        assert found.moved is not None
        assert -0.5 <= found.moved <= 0.5


@given(st.lists(st.integers(0, 30), min_size=40, max_size=40))
def test_the_continuous_test_is_scipys_mann_whitney_test(counts: list[int]) -> None:
    before, now = np.array(counts[:20], float), np.array(counts[20:], float)
    values = [np.repeat(np.arange(20), side.astype(int)) for side in (before, now)]
    if min(map(len, values)) == 0 or len(np.unique(np.concatenate(values))) == 1:
        return
    moved, deviations = _rank_sum(before, now)
    expected = stats.mannwhitneyu(values[1], values[0], use_continuity=False, method="asymptotic")
    assert moved == pytest.approx(expected.statistic / (before.sum() * now.sum()) - 0.5)
    assert 2 * stats.norm.sf(abs(deviations)) == pytest.approx(expected.pvalue)


@pytest.mark.parametrize(("evaluated", "scored"), [(300, 100), (300, 5_000), (3_000, 500)])
def test_pictures_of_the_same_kind_raise_the_alarm_in_at_most_the_stated_share_of_runs(evaluated: int, scored: int) -> None:
    generator = np.random.default_rng(evaluated)
    bins = {"predicted class": 10, "confidence": 25, "familiarity": 20, "brightness": 32, "contrast": 32}
    shares = {name: generator.dirichlet(np.full(count, 0.3)) for name, count in bins.items()}
    runs, alarms, significant = 300, 0, 0
    for _ in range(runs):
        features = [
            Feature(
                name, generator.multinomial(evaluated, p), generator.multinomial(scored, p), ordered=name in ("confidence", "familiarity")
            )
            for name, p in shares.items()
        ]
        drifts = compare(features)
        alarms += any(drift.drifted for drift in drifts)
        significant += any((drift.adjusted or 0) < 0.1 for drift in drifts)
    assert alarms <= stats.binom.ppf(0.999, runs, RATE)
    assert significant <= stats.binom.ppf(0.999, runs, 0.1), "the adjusted p-values hold at another level too"


@dataclass(frozen=True)
class Judged:
    """A model with its reference from 300 pictures that it was not trained on, and another 297 of those."""

    classifier: Classifier
    reference: Reference
    pictures: Pixels
    labels: Labels

    def estimate(self, pictures: Pixels) -> tuple[float, ExpectedAccuracy]:
        """The true change of accuracy, and what is expected without labels."""
        probabilities, before = self.classifier.probabilities(pictures), self.reference.sureness
        assert before is not None
        expected = expected_accuracy(self.reference, before.count(probabilities), len(pictures))
        assert expected is not None
        return float((probabilities.argmax(axis=1) == self.labels).mean()) - before.correct / self.reference.n, expected


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    classifier = Classifier(tiny.write_bundle(tmp_path_factory.mktemp("judged") / "bundle", samples=1200))
    images, labels = tiny.digits()
    order = 1200 + np.random.default_rng(0).permutation(len(images) - 1200)
    seen, rows = measure_appearance(images[order[:300]]), order[300:]
    probabilities = classifier.probabilities(images[order[:300]])
    reference = Reference.of(tiny.CLASSES, probabilities, seen.brightness, seen.contrast, labels=labels[order[:300]])
    return Judged(classifier, reference, images[rows], labels[rows])


def test_noise_that_costs_accuracy_is_called_harmful_and_a_little_more_light_is_not(judged: Judged) -> None:
    noise = np.random.default_rng(1).normal(0, 90, judged.pictures.shape)
    lost, noisy = judged.estimate(np.clip(judged.pictures + noise, 0, 255).astype(np.uint8))
    assert lost < -0.06
    assert noisy.harmful
    assert noisy.low - 0.05 <= lost + noisy.evaluated <= noisy.high + 0.05
    lost, lighter = judged.estimate(np.clip(judged.pictures + 10.0, 0, 255).astype(np.uint8))
    assert lost > -0.03
    assert not lighter.harmful
    assert accuracy_line(lighter).startswith("no sign of harm")
    assert accuracy_line(noisy).startswith("HARMFUL")


def test_the_expected_accuracys_interval_holds_it_for_pictures_of_the_same_kind() -> None:
    generator, runs, held, harmful = np.random.default_rng(3), 400, 0, 0
    for _ in range(runs):
        certainty = 1 - generator.beta(0.3, 4, 900)  # a calibrated model that is 93% right
        correct = generator.random(900) < certainty
        probabilities = np.stack([certainty, 1 - certainty], axis=1).astype(np.float32)
        labels = np.where(correct, probabilities.argmax(axis=1), probabilities.argmin(axis=1))
        looks = np.zeros(400)
        reference = Reference.of(["a", "b"], probabilities[:400], looks, looks, labels=labels[:400])
        assert reference.sureness is not None
        expected = expected_accuracy(reference, reference.sureness.count(probabilities[400:]), 500)
        assert expected is not None
        held += expected.low <= (labels == probabilities.argmax(axis=1))[400:].mean() <= expected.high
        harmful += expected.harmful
    assert held >= 0.93 * runs
    assert harmful <= 0.05 * runs
