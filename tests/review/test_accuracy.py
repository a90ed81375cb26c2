from datetime import datetime
from pathlib import Path

import pytest

from components.review.accuracy import live_accuracy, proportion
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
    assert (result.audit.correct, result.audit.labelled) == (1, 1)


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
