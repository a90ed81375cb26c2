from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from components.review import Reason
from components.review.accuracy import Counted, LiveAccuracy, Sampled, live_accuracy, proportion, stratified
from components.review.labels import UNUSABLE
from tests.review import queue_of

NEW = "20990101-000000-cccccccccccc"
"""A version that is trained after every label of these tests."""


def test_wilsons_interval_is_the_published_one() -> None:
    # Newcombe 1998, table I: 81 of 263 and 0 of 20, method 3
    large, none = proportion(81, 263), proportion(0, 20)
    assert (large.estimate, large.low, large.high) == (
        pytest.approx(81 / 263),
        pytest.approx(0.2553, abs=5e-5),
        pytest.approx(0.3662, abs=5e-5),
    )
    assert (none.low, none.high) == (0, pytest.approx(0.1611, abs=5e-5))
    assert proportion(0, 0).estimate is None


def test_only_audited_pictures_make_the_estimate(tmp_path: Path) -> None:
    queue = queue_of.at(tmp_path)
    for number in range(10):
        queue.put(queue_of.entry(number, "3", 0.9, reason="audit"))
    for number in range(10, 16):
        queue.put(queue_of.entry(number, "3", 0.3))
    for number, entry in enumerate(sorted(queue.entries(), key=lambda e: e.id)):
        audited = "audit" in entry.reasons
        queue.label(entry.id, "3" if audited and number % 5 else "8", "ann")
    result = live_accuracy(queue_of.FIRST, queue.entries())
    assert (result.audited, result.audit.labelled, result.low_confidence.labelled) == (10, 10, 6)
    assert result.low_confidence.estimate == 0
    assert result.audit.estimate is not None
    assert result.audit.estimate >= 0.6


def test_an_uncertain_picture_that_was_drawn_counts_for_the_audit_and_not_twice(tmp_path: Path) -> None:
    queue = queue_of.at(tmp_path)
    queue.put(queue_of.entry(1))
    queue.put(queue_of.entry(1, reason="audit"))
    queue.label(queue.entries()[0].id, "3", "ann")
    result = live_accuracy(queue_of.FIRST, queue.entries())
    assert (result.audit.labelled, result.low_confidence.labelled) == (1, 0)


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    queue = queue_of.at(tmp_path)
    for number in range(4):
        queue.put(queue_of.entry(number, "3", reason="audit"))
    one, two, three, _ = sorted(entry.id for entry in queue.entries())
    queue.label(one, "3", "ann")
    queue.label(two, UNUSABLE, "ann")
    queue.label(three, "3", "ann")
    queue.label(three, "5", "bob")
    result = live_accuracy(queue_of.FIRST, queue.entries())
    assert (result.audited, result.unlabelled, result.conflicting, result.unusable) == (4, 1, 1, 1)
    assert (result.audit.correct, result.audit.labelled, result.audit.doubtful) == (1, 1, 2)


def test_doubtful_labels_widen_the_interval_to_both_sides_instead_of_being_left_out(tmp_path: Path) -> None:
    agreed, all_wrong, all_right = proportion(40, 50), proportion(40, 60), proportion(50, 60)
    doubtful = proportion(40, 50, 10)
    assert (doubtful.estimate, doubtful.low, doubtful.high) == (agreed.estimate, all_wrong.low, all_right.high)


@pytest.mark.parametrize(("version", "counted"), [(queue_of.FIRST, 1), (NEW, 0), ("my-version", 1)])
def test_pictures_labelled_before_a_version_was_trained_do_not_judge_it(tmp_path: Path, version: str, counted: int) -> None:
    queue = queue_of.at(tmp_path)
    queue.put(queue_of.entry(1, "3", version=version, reason="audit"))
    queue.label(queue.entries()[0].id, "3", "ann")
    result = live_accuracy(version, queue.entries())
    assert (result.audit.labelled, result.possibly_trained_on) == (counted, 1 - counted)


def test_a_picture_labelled_in_the_second_in_which_a_version_was_trained_may_be_in_its_training(tmp_path: Path) -> None:
    queue = queue_of.at(tmp_path)
    queue.put(queue_of.entry(1))
    (entry,) = queue.entries()
    queue.label(entry.id, "3", "ann")
    (said,) = queue.labels(entry.id)
    version = f"{datetime.fromisoformat(said.time):%Y%m%d-%H%M%S}-dddddddddddd"
    queue.put(queue_of.entry(1, "3", version=version, reason="audit"))
    result = live_accuracy(version, queue.entries())
    assert (result.audit.labelled, result.possibly_trained_on) == (0, 1)


def _made(tmp_path: Path, *, unlabelled: int = 0, threshold: float | None = 0.8, rate: float | None = 0.1) -> LiveAccuracy:
    """20 pictures that need review, of which half are right and two were drawn for audit; 10 others, audited, of which 9 are right."""
    queue = queue_of.at(tmp_path)
    for number in range(20):
        reason: Reason = "audit" if number < 2 else "low_confidence"
        queue.put(queue_of.entry(queue_of.noise(number), "3", 0.5, reason=reason, threshold=threshold, rate=rate))
    for number in range(20, 30):
        queue.put(queue_of.entry(queue_of.noise(number), "3", 0.95, reason="audit", threshold=threshold, rate=rate))
    unsure, sure = (
        [e for e in queue.entries() if e.prediction.confidence < 0.8],
        [e for e in queue.entries() if e.prediction.confidence > 0.8],
    )
    for number, entry in enumerate(unsure[unlabelled:]):
        queue.label(entry.id, "3" if number % 2 else "8", "ann")
    for number, entry in enumerate(sure):
        queue.label(entry.id, "3" if number else "8", "ann")
    return live_accuracy(queue_of.FIRST, queue.entries())


def test_pictures_that_need_review_are_counted_and_the_others_are_estimated_by_the_audit_sample(tmp_path: Path) -> None:
    result = _made(tmp_path)
    assert (result.method, result.why) == ("stratified", "")
    assert (result.needing_review, result.others) == (Counted(10, 0, 20), 100)
    assert result.accuracy is not None
    assert result.accuracy.low_estimate == result.accuracy.high_estimate == pytest.approx((10 + 0.9 * 100) / 120)
    assert result.accuracy.low < result.accuracy.low_estimate < result.accuracy.high


def test_a_few_unlabelled_pictures_are_counted_both_ways_and_many_leave_the_audit_sample_alone(tmp_path: Path) -> None:
    few, many = _made(tmp_path / "few", unlabelled=2), _made(tmp_path / "many", unlabelled=3)
    assert (few.method, few.needing_review.doubtful) == ("stratified", 2)
    assert few.accuracy is not None
    assert few.accuracy.high_estimate - few.accuracy.low_estimate == pytest.approx(2 / 120)
    assert many.method == "audit"
    assert "3 of 20" in many.why
    assert many.accuracy is not None
    assert many.accuracy.low == many.audit.low


def test_entries_of_an_older_release_are_judged_by_the_audit_sample(tmp_path: Path) -> None:
    result = _made(tmp_path, threshold=None, rate=None)
    assert result.method == "audit"
    assert "older release" in result.why


def test_a_queue_that_lost_pictures_is_noticed_by_how_many_of_it_were_drawn_for_audit(tmp_path: Path) -> None:
    queue = queue_of.at(tmp_path)
    for number in range(8):
        reason: Reason = "audit" if number < 6 else "low_confidence"
        queue.put(queue_of.entry(number, "3", 0.5, reason=reason, threshold=0.8, rate=0.01))
    queue.put(queue_of.entry(8, "3", 0.9, reason="audit", threshold=0.8, rate=0.01))
    for entry in queue.entries():
        queue.label(entry.id, "3", "ann")
    result = live_accuracy(queue_of.FIRST, queue.entries())
    assert result.method == "audit"
    assert "lacks pictures" in result.why


def _coverage(n: int, wrong: float, wrong_above: float, doubtful: float, runs: int) -> tuple[float, float]:
    """How often the interval holds the true accuracy, and its mean width beside that of the audit sample alone.

    A tenth of the pictures needs review; 200 are drawn. People cannot tell a share, of which the model has as many right as of the others.
    """
    generator = np.random.default_rng([n, round(1000 * wrong_above)])
    rate, held, widths = 200 / n, 0, [0.0, 0.0]
    for _ in range(runs):
        unsure = generator.random(n) < 0.1
        right = generator.random(n) >= np.where(unsure, wrong, wrong_above)
        unclear, drawn = generator.random(n) < doubtful, generator.random(n) < rate
        chosen = drawn & ~unsure
        answers = [None if u else bool(r) for r, u in zip(right[chosen], unclear[chosen], strict=True)]
        rates = [rate] * len(answers)
        counted = Counted(int((right & unsure & ~unclear).sum()), int((unsure & unclear).sum()), int(unsure.sum()))
        found = stratified(counted, Sampled(answers, rates, rates))
        held += found.low <= right.mean() <= found.high
        alone = proportion(int((right & drawn & ~unclear).sum()), int((drawn & ~unclear).sum()), int((drawn & unclear).sum()))
        widths[0] += found.high - found.low
        widths[1] += (alone.high or 0) - (alone.low or 0)
    return held / runs, widths[0] / widths[1]


@pytest.mark.parametrize(("wrong_above", "doubtful"), [(0.02, 0.0), (0.02, 0.05)])
def test_the_interval_holds_the_accuracy_in_simulated_traffic_and_is_narrower_than_the_audits(wrong_above: float, doubtful: float) -> None:
    coverage, width = _coverage(2_000, 0.4, wrong_above, doubtful, runs=300)
    assert coverage >= 0.93
    assert width < 0.85


@pytest.mark.integration
@pytest.mark.parametrize("n", [2_000, pytest.param(20_000, marks=pytest.mark.release)])
@pytest.mark.parametrize(("wrong", "wrong_above", "doubtful"), [(0.3, 0.01, 0), (0.3, 0.05, 0), (0.4, 0.03, 0.05), (0.6, 0.2, 0)])
def test_the_interval_holds_the_accuracy_in_95_of_100_simulations(n: int, wrong: float, wrong_above: float, doubtful: float) -> None:
    assert _coverage(n, wrong, wrong_above, doubtful, runs=1_000)[0] >= 0.94
