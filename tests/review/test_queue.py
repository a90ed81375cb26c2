import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.classifier.decode import decode
from components.classifier.errors import ImageError, IntegrityError, StoreError, UsageError
from components.review import ReviewQueue, drawn_for_audit
from components.review.export import import_labels
from components.review.labels import LabelRecord, summarize
from tests.review import queue_of


@pytest.fixture
def queue(tmp_path: Path) -> ReviewQueue:
    return queue_of.at(tmp_path)


def test_a_picture_sent_five_times_to_two_replicas_is_one_entry(tmp_path: Path) -> None:
    replicas = [queue_of.at(tmp_path), queue_of.at(tmp_path)]
    results = [replica.put(queue_of.entry(1)) for _ in range(5) for replica in replicas]
    assert results == [True] + [False] * 9
    assert len(replicas[0].entries()) == 1


def test_writers_at_the_same_time_make_one_entry(tmp_path: Path) -> None:
    queues = [queue_of.at(tmp_path) for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda queue: queue.put(queue_of.entry(1)), queues))
    assert sum(results) == 1
    assert len(queues[0].entries()) == 1


def test_the_same_pixels_as_array_as_png_and_as_rgb_are_one_picture(queue: ReviewQueue) -> None:
    pixels = queue_of.digit(5)
    fast, small = queue_of.png(pixels, 1), queue_of.png(pixels, 9)
    assert fast != small
    forms = (small, fast, pixels, np.repeat(pixels, 3, axis=2))
    assert [queue.put(queue_of.entry(form)) for form in forms] == [True, False, False, False]


def test_different_pictures_and_versions_are_entries_of_their_own(queue: ReviewQueue) -> None:
    for number in (1, 2):
        for version in (queue_of.FIRST, queue_of.SECOND):
            queue.put(queue_of.entry(number, version=version))
    assert len(queue.entries()) == 4
    assert len(queue.entries(queue_of.FIRST)) == 2


def test_a_flat_and_a_tall_picture_with_the_same_bytes_differ(queue: ReviewQueue) -> None:
    queue.put(queue_of.entry(np.zeros((4, 16, 1), np.uint8)))
    queue.put(queue_of.entry(np.zeros((16, 4, 1), np.uint8)))
    assert len({entry.id for entry in queue.entries()}) == 2


def test_an_uncertain_picture_that_is_drawn_for_audit_too_is_one_entry_with_both_reasons(queue: ReviewQueue) -> None:
    queue.put(queue_of.entry(1))
    queue.put(queue_of.entry(1, reason="audit"))
    (entry,) = queue.entries()
    assert entry.reasons == {"low_confidence", "audit"}


def test_the_picture_comes_back_as_it_was_sent_and_an_array_without_loss(queue: ReviewQueue) -> None:
    sent = queue_of.png(queue_of.digit(3), 1)
    queue.put(queue_of.entry(sent, confidence=0.1))
    queue.put(queue_of.entry(4, confidence=0.2))
    first, second = queue.entries()
    assert queue.picture(first) == sent
    assert np.array_equal(decode(queue.picture(second)), queue_of.digit(4))


def test_an_entry_says_nothing_that_releases_without_levels_do_not_know(tmp_path: Path) -> None:
    queue = queue_of.at(tmp_path)
    queue.put(queue_of.entry(1))
    queue.put(replace(queue_of.entry(2), levels=12))
    texts = [path.read_text() for path in tmp_path.rglob("*.low_confidence.json")]
    assert sorted('"levels":12' in text for text in texts) == sorted('"levels"' in text for text in texts) == [False, True]


def test_colour_pictures_are_kept_without_loss(queue: ReviewQueue) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    queue.put(queue_of.entry(pixels))
    assert np.array_equal(decode(queue.picture(queue.entries()[0])), pixels)


def test_the_least_confident_comes_first(queue: ReviewQueue) -> None:
    for number, confidence in enumerate((0.6, 0.2, 0.4)):
        queue.put(queue_of.entry(number, confidence=confidence))
    assert [entry.prediction.confidence for entry in queue.entries()] == [0.2, 0.4, 0.6]


def test_confidence_a_float32_rounding_above_one_is_taken(queue: ReviewQueue) -> None:
    assert queue.put(replace(queue_of.entry(1, reason="audit"), confidence=np.nextafter(np.float32(1), np.float32(2))))


def test_what_is_no_picture_is_refused(queue: ReviewQueue) -> None:
    with pytest.raises(ImageError):
        queue.put(queue_of.entry(b"text"))
    assert queue.entries() == []


def test_a_damaged_entry_is_named(queue: ReviewQueue, tmp_path: Path) -> None:
    queue.put(queue_of.entry(1))
    (path,) = tmp_path.glob("reviews/digits/entries/*/*.json")
    kept = path.read_text()
    path.write_text("{}")
    with pytest.raises(IntegrityError, match=rf"{path.name} .*; remove it from the store"):
        queue.entries()
    path.write_text(json.dumps(json.loads(kept) | {"mood": "good"}))
    with pytest.raises(IntegrityError, match=rf"{path.name} .*; use the release that wrote it: this one does not know mood"):
        queue.entries()
    path.write_bytes(b" " * (16 << 20) + kept.encode())
    with pytest.raises(StoreError, match=r"is larger than 16,777,216 bytes"):
        queue.entries()


def test_the_beginning_of_an_id_will_do_when_it_fits_one_picture(queue: ReviewQueue) -> None:
    for number in range(20):
        queue.put(queue_of.entry(number))
    entry = queue.entries()[0]
    assert queue.get(entry.id[:12]) == [entry]
    with pytest.raises(UsageError, match="no picture"):
        queue.get("zz")
    with pytest.raises(UsageError, match="no picture"):
        queue.get("")
    ambiguous = next(c for c in "0123456789abcdef" if sum(e.id.startswith(c) for e in queue.entries()) > 1)
    with pytest.raises(UsageError, match="more of the ID"):
        queue.get(ambiguous)


def test_labels_hold_for_every_version_and_saying_it_again_changes_nothing(queue: ReviewQueue) -> None:
    for version in (queue_of.FIRST, queue_of.SECOND):
        queue.put(queue_of.entry(1, version=version))
    identity = queue.entries()[0].id
    assert queue.label(identity, "1", "ann")
    assert not queue.label(identity, "1", "ann")
    assert {entry.labels.label for entry in queue.entries()} == {"1"}
    assert len(queue.labels(identity)) == 1


def test_conflicting_labels_leave_no_label_until_resolved_and_a_later_one_opens_the_matter_again(queue: ReviewQueue) -> None:
    queue.put(queue_of.entry(1))
    identity = queue.entries()[0].id

    def state() -> tuple[str, str | None]:
        found = queue.entries()[0].labels
        return found.state, found.label

    queue.label(identity, "1", "ann")
    queue.label(identity, "7", "bob")
    assert state() == ("conflicting", None)
    queue.label(identity, "1", "chief", resolves=True)
    assert state() == ("labelled", "1")
    queue.label(identity, "7", "bob")
    assert state() == ("conflicting", None)
    queue.label(identity, "1", "bob")
    assert state() == ("labelled", "1")
    assert len(queue.labels(identity)) == 5, "no label is lost"


def test_many_reviewers_at_the_same_time_lose_no_label(tmp_path: Path) -> None:
    queue = queue_of.at(tmp_path)
    queue.put(queue_of.entry(1))
    identity = queue.entries()[0].id
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda n: queue_of.at(tmp_path).label(identity, "1", f"reviewer-{n}"), range(8)))
    assert len(queue.labels(identity)) == 8


def test_a_label_needs_a_reviewer(queue: ReviewQueue) -> None:
    with pytest.raises(UsageError, match="--reviewer"):
        queue.label("0" * 24, "1", " ")


@given(st.lists(st.tuples(st.sampled_from(["ann", "bob", "cy"]), st.sampled_from(["1", "2"]), st.booleans()), max_size=8))
def test_the_labels_have_a_label_exactly_when_those_who_count_agree(said: list[tuple[str, str, bool]]) -> None:
    records = [LabelRecord(label=label, reviewer=who, resolves=resolves, time="2026-01-01T00:00:00+00:00") for who, label, resolves in said]
    summary = summarize(records)
    assert (summary.label is not None) == (len(set(summary.opinions.values())) == 1)
    assert summary.state == ("unlabelled" if not said else "labelled" if summary.label else "conflicting")
    if said and said[-1][2]:
        assert summary.label == said[-1][1], "who resolves last decides"


@given(st.lists(st.tuples(st.sampled_from(["ann", "bob"]), st.sampled_from(["1", "2"]), st.sampled_from(["", "resolves", "withdrawn"]))))
def test_a_withdrawn_label_is_as_if_it_had_never_been_given(said: list[tuple[str, str, str]]) -> None:
    time = "2026-01-01T00:00:00+00:00"
    records, standing = list[LabelRecord](), list[LabelRecord]()
    for who, label, kind in said:
        own = [record for record in standing if record.reviewer == who]
        if kind != "withdrawn":
            standing.append(LabelRecord(label=label, reviewer=who, resolves=kind == "resolves", time=time))
            records.append(standing[-1])
        elif own:
            standing = [record for record in standing if record is not own[-1]]
            records.append(LabelRecord(label=own[-1].label, reviewer=who, withdrawn=True, time=time))
    found, plain = summarize(records), summarize(standing)
    assert (found.state, found.label, found.opinions) == (plain.state, plain.label, plain.opinions)
    assert found.first_labelled == (time if said and records else None), "it may have been trained on meanwhile"


def test_withdrawing_writes_a_record_and_a_file_does_not_bring_the_label_back(queue: ReviewQueue) -> None:
    queue.put(queue_of.entry(1))
    identity = queue.entries()[0].id
    queue.label(identity, "7", "ann")
    assert queue.withdraw(identity, "ann") == "7"
    assert queue.entries()[0].labels.state == "unlabelled"
    assert [(record.label, record.withdrawn) for record in queue.labels(identity)] == [("7", False), ("7", True)]
    assert import_labels(queue, [(identity, "7")], "ann").superseded == [identity]
    assert queue.label(identity, "7", "ann")
    assert queue.entries()[0].labels.label == "7"
    with pytest.raises(UsageError, match=r"bob has given picture \w+ no label"):
        queue.withdraw(identity, "bob")


def test_each_entry_and_label_is_read_once(queue: ReviewQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        queue.put(queue_of.entry(number))
    identity = queue.entries()[0].id
    with monkeypatch.context() as patched:
        patched.setattr(type(queue._store), "chunks", lambda *_: pytest.fail("read again"))
        assert len(queue.entries()) == 3
    queue_of.at(tmp_path).label(identity, "7", "bob")  # by another process
    assert queue.entries()[0].labels.label == "7"


KEY = b"0123456789abcdef"


def test_the_audit_sample_is_drawn_by_the_picture_and_a_secret_key_alone() -> None:
    pictures = [queue_of.noise(seed) for seed in range(4000)]
    drawn = [drawn_for_audit(picture, 0.1, KEY) for picture in pictures]
    assert drawn == [drawn_for_audit(picture.copy(), 0.1, KEY) for picture in pictures]
    assert sum(drawn) > 2 * sum(
        one and drawn_for_audit(picture, 0.1, b"another key 0123") for picture, one in zip(pictures, drawn, strict=True)
    )
    assert 0.08 < np.mean(drawn) < 0.12
    assert not any(drawn_for_audit(picture, 0, KEY) for picture in pictures)
    assert all(drawn_for_audit(picture, 1, KEY) for picture in pictures)
    assert all(drawn_for_audit(picture, 0.2, KEY) for picture, small in zip(pictures, drawn, strict=True) if small)


def test_a_resolution_is_stored_under_the_name_that_older_releases_read() -> None:
    record = LabelRecord(label="1", reviewer="ann", resolves=True, time="2026-01-01T00:00:00+00:00")
    stored = record.model_dump_json(by_alias=True)
    assert '"settles":true' in stored
    assert "withdrawn" not in stored, "which older releases do not know"
    assert LabelRecord.model_validate_json(stored) == record
