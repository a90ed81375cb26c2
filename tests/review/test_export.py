import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.classifier.decode import decode
from components.classifier.errors import DataError, UsageError
from components.review import ReviewQueue
from components.review.export import import_labels, read_labels, write_for_review, write_labelled
from components.review.labels import UNUSABLE
from tests.review import queue_of


@pytest.fixture
def queue(tmp_path: Path) -> ReviewQueue:
    """Three pictures, two of them seen by two versions."""
    queue = queue_of.at(tmp_path / "store")
    for number, confidence in enumerate((0.5, 0.3, 0.4)):
        queue.put(queue_of.entry(number, "3", confidence))
    queue.put(queue_of.entry(0, "5", 0.45, version=queue_of.SECOND))
    queue.put(queue_of.entry(1, "5", 0.35, version=queue_of.SECOND))
    return queue


def fill_in(folder: Path, labels: dict[str, str]) -> None:
    with (folder / "labels.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["label"] = labels.get(Path(row["picture"]).stem, "")
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_the_folder_for_review_has_each_picture_once_with_the_newest_versions_answer(queue: ReviewQueue, tmp_path: Path) -> None:
    assert write_for_review(queue, queue.entries(), tmp_path / "out").pictures == 3
    with (tmp_path / "out" / "labels.csv").open(encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [row["confidence"] for row in rows] == ["0.3500", "0.4000", "0.4500"]
    assert {row["label"] for row in rows} == {""}
    for row in rows:
        assert decode((tmp_path / "out" / "pictures" / row["picture"]).read_bytes()).shape == (8, 8, 1)


def test_the_page_does_not_say_what_the_model_answered(queue: ReviewQueue, tmp_path: Path) -> None:
    write_for_review(queue, queue.entries(), tmp_path / "out")
    (data,) = re.findall(r'id="data">(.*?)</script>', (tmp_path / "out" / "index.html").read_text())
    cards = json.loads(data)["pictures"]
    assert {card["columns"]["predicted"] for card in cards} == {"3", "5"}
    assert [card["likely"] for card in cards] == [sorted(card["likely"]) for card in cards]
    assert all(len(card["likely"]) == 3 and card["columns"]["predicted"] in card["likely"] for card in cards)


def test_the_page_knows_every_picture_and_no_class_name_breaks_out_of_it(tmp_path: Path) -> None:
    queue = queue_of.at(tmp_path / "store")
    bad = queue_of.entry(1)
    evil = "</script><script>alert(1)"
    queue.put(type(bad)(bad.picture, evil, 0.5, {evil: 0.5, "b": 0.5}, "v", "r", "audit"))
    write_for_review(queue, queue.entries(), tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    assert evil not in page
    (data,) = re.findall(r'id="data">(.*?)</script>', page)
    (card,) = json.loads(data)["pictures"]
    assert (card["picture"], card["classes"]) == (queue.entries()[0].file_name, [evil, "b"])


def test_labels_come_back_and_a_second_import_changes_nothing(queue: ReviewQueue, tmp_path: Path) -> None:
    one, two, _ = sorted({entry.id for entry in queue.entries()})
    write_for_review(queue, queue.entries(), tmp_path / "out")
    fill_in(tmp_path / "out", {one: "1", two: "2"})
    first = import_labels(queue, read_labels(tmp_path / "out"), "ann")
    before = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()}
    second = import_labels(queue, read_labels(tmp_path / "out" / "labels.csv"), "ann")
    assert (first.recorded, first.unchanged, first.empty) == (2, 0, 1)
    assert (second.recorded, second.unchanged, second.empty) == (0, 2, 1)
    assert before == {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()}


def test_conflicting_labels_are_reported_and_left_out_until_resolved(queue: ReviewQueue, tmp_path: Path) -> None:
    one, two, _ = sorted({entry.id for entry in queue.entries()})
    import_labels(queue, [(one, "1"), (two, "2")], "ann")
    report = import_labels(queue, [(one, "7"), (two, "2")], "bob")
    assert report.conflicting == [one]
    assert write_labelled(queue, queue.entries(), tmp_path / "before").classes == {"2": 1}
    queue.label(one, "7", "chief", resolves=True)
    assert write_labelled(queue, queue.entries(), tmp_path / "after").classes == {"2": 1, "7": 1}


def test_an_old_import_does_not_bring_back_what_was_corrected_or_resolved(queue: ReviewQueue) -> None:
    one, two, three = sorted({entry.id for entry in queue.entries()})
    rows = [(one, "1"), (two, "1")]
    import_labels(queue, rows, "ann")
    queue.label(one, "7", "ann")
    queue.label(two, "8", "chief", resolves=True)
    report = import_labels(queue, rows, "ann")
    assert (report.recorded, report.superseded) == (0, [one, two])
    assert {entry.id: entry.labels.label for entry in queue.entries()} == {one: "7", two: "8", three: None}


def test_labelled_pictures_are_for_training_only_and_unusable_ones_are_not_in(queue: ReviewQueue, tmp_path: Path) -> None:
    one, two, three = sorted({entry.id for entry in queue.entries()})
    import_labels(queue, [(one, "1"), (two, UNUSABLE), (three, "3")], "ann")
    assert write_labelled(queue, queue.entries(), tmp_path / "out").classes == {"1": 1, "3": 1}
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert files == [f"train/1/{one}.png", f"train/3/{three}.png"]


@pytest.mark.parametrize("name", ["cat/dog", "..", ".hidden", "../../outside", "cat\\dog"])
def test_a_class_whose_name_leads_out_of_its_folder_is_refused(queue: ReviewQueue, tmp_path: Path, name: str) -> None:
    queue.label(queue.entries()[0].id, name, "ann")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=rf"class {re.escape(repr(name))} cannot be the name of a folder; rename the class"):
        write_labelled(queue, queue.entries(), tmp_path / "out" / "pictures")
    assert [path for path in sorted(tmp_path.rglob("*")) if path.is_file() and path not in before] == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("f" * 24, "1")], "not in the review queue: ffff"),
        ([("ONE", "12")], "12"),
        ([("ONE", "1"), ("ONE", "2")], "labelled twice"),
    ],
)
def test_an_import_with_a_wrong_row_records_nothing(queue: ReviewQueue, rows: list[tuple[str, str]], message: str) -> None:
    one, two, _ = sorted({entry.id for entry in queue.entries()})
    with pytest.raises(DataError, match=message):
        import_labels(queue, [(two, "1"), *((one if identity == "ONE" else identity, label) for identity, label in rows)], "ann")
    assert {entry.labels.state for entry in queue.entries()} == {"unlabelled"}


@pytest.mark.parametrize(
    "text",
    ["picture,label\na1.png,7\n", "﻿picture;label;x\r\na1.png;7;\r\n", "label\tpicture\n7\ta1.png\n", 'picture,label\n"a1.png", 7 \n,\n'],
)
def test_what_spreadsheets_make_of_the_table_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.csv").write_text(text, "utf-8")
    assert read_labels(tmp_path) == [("a1", "7")]


def test_a_table_in_utf_16_is_read(tmp_path: Path) -> None:
    """As spreadsheets save "Unicode text"."""
    (tmp_path / "labels.csv").write_text("picture\tlabel\r\na1.png\tgrün\r\n", "utf-16")
    assert read_labels(tmp_path) == [("a1", "grün")]


def test_a_table_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv"):
        read_labels(tmp_path)
    (tmp_path / "labels.csv").write_text("file,class\na,b\n")
    with pytest.raises(DataError, match="'picture' and 'label' are needed"):
        read_labels(tmp_path)
    (tmp_path / "labels.csv").write_bytes("picture,label\na,größe\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        read_labels(tmp_path)


def test_a_folder_with_labels_in_it_is_never_overwritten(queue: ReviewQueue, tmp_path: Path) -> None:
    write_for_review(queue, queue.entries(), tmp_path / "out")
    fill_in(tmp_path / "out", {queue.entries()[0].id: "1"})
    before = (tmp_path / "out" / "labels.csv").read_bytes()
    with pytest.raises(UsageError, match="already"):
        write_for_review(queue, queue.entries(), tmp_path / "out")
    assert (tmp_path / "out" / "labels.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "store"]


def test_a_picture_that_was_removed_from_the_store_is_left_out_and_named(queue: ReviewQueue, tmp_path: Path) -> None:
    gone = queue.entries()[0].id
    (tmp_path / "store" / "reviews" / "digits" / "pictures" / f"{gone}.png").unlink()
    report = write_for_review(queue, queue.entries(), tmp_path / "out")
    assert (report.pictures, report.missing) == (2, [gone])
    assert gone not in (tmp_path / "out" / "labels.csv").read_text() + (tmp_path / "out" / "index.html").read_text()


def test_a_tiff_is_shown_as_png_and_trained_on_as_it_was_sent(tmp_path: Path) -> None:
    queue = queue_of.at(tmp_path / "store")
    buffer = io.BytesIO()
    Image.fromarray(queue_of.digit(1)[:, :, 0]).save(buffer, "TIFF")
    queue.put(queue_of.entry(buffer.getvalue()))
    identity = queue.entries()[0].id
    write_for_review(queue, queue.entries(), tmp_path / "out")
    shown = tmp_path / "out" / "pictures" / f"{identity}.png"
    assert np.array_equal(decode(shown.read_bytes()), queue_of.digit(1))
    fill_in(tmp_path / "out", {identity: "1"})
    assert import_labels(queue, read_labels(tmp_path / "out"), "ann").recorded == 1
    write_labelled(queue, queue.entries(), tmp_path / "train")
    assert (tmp_path / "train" / "train" / "1" / f"{identity}.tif").read_bytes() == buffer.getvalue()


def test_pictures_of_12_bits_are_shown_as_the_model_saw_them_and_trained_on_as_they_were_sent(tmp_path: Path) -> None:
    queue, sent = queue_of.at(tmp_path / "store"), queue_of.deep_png(queue_of.digit(1), 12)
    for picture in (sent, queue_of.digit(1)):
        queue.put(replace(queue_of.entry(picture), levels=12))  # as a file and as an array: one picture
    (entry,) = queue.entries()
    write_for_review(queue, queue.entries(), tmp_path / "out")
    assert np.array_equal(decode((tmp_path / "out" / "pictures" / f"{entry.id}.png").read_bytes()), queue_of.digit(1))
    queue.label(entry.id, "1", "ann")
    write_labelled(queue, queue.entries(), tmp_path / "train")
    assert (tmp_path / "train" / "train" / "1" / f"{entry.id}.png").read_bytes() == sent


def test_12_bits_are_kept_apart_where_16_would_make_them_alike(tmp_path: Path) -> None:
    queue = queue_of.at(tmp_path / "store")
    pictures = [queue_of.deep_png(np.full((4, 4, 1), value, np.uint8), 12) for value in (1, 2)]
    assert [queue.put(replace(queue_of.entry(picture), levels=12)) for picture in pictures] == [True, True]


@pytest.mark.parametrize(("kind", "suffix", "shown"), [("AVIF", "avif", "avif"), ("JPEG2000", "jp2", "png"), ("WEBP", "webp", "webp")])
def test_newer_formats_are_queued_and_shown(tmp_path: Path, kind: str, suffix: str, shown: str) -> None:
    queue, buffer = queue_of.at(tmp_path / "store"), io.BytesIO()
    Image.fromarray(queue_of.digit(1)[:, :, 0]).save(buffer, kind)
    queue.put(queue_of.entry(buffer.getvalue()))
    (entry,) = queue.entries()
    write_for_review(queue, queue.entries(), tmp_path / "out")
    assert entry.file_name == f"{entry.id}.{suffix}"
    written = (tmp_path / "out" / "pictures" / f"{entry.id}.{shown}").read_bytes()
    assert np.array_equal(decode(written), decode(buffer.getvalue()))
