"""Labelling on the page: the order, the keys, the label that is written, and undo."""

import re
from dataclasses import replace
from io import BytesIO
from urllib.parse import urljoin

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from components.review.labels import summarize
from components.review.queue import Prediction, QueuedPicture
from pipelines.ui import reviewing
from pipelines.ui.app import create_app
from tests import tiny
from tests.review import queue_of
from tests.ui.conftest import Site

ORIGIN = {"origin": "http://127.0.0.1:8008"}


class Person:
    """Somebody at the page; `see` is the picture that it shows."""

    def __init__(self, site: Site, name: str = "ann") -> None:
        self.queue = site.stored.queue("digits")
        self.client = TestClient(create_app(site.stored, name), base_url="http://127.0.0.1:8008", headers=ORIGIN)
        self.page = self.client.get("/review/digits/label.html").text

    @property
    def see(self) -> str:
        found = re.findall(r'name="picture" value="(\w+)"', self.page)
        return found[0] if found else ""

    def send(self, action: str, **data: str) -> None:
        answer = self.client.post(f"/review/digits/{action}", data=data)
        assert answer.status_code == 200, answer.text
        self.page = answer.text

    def label(self, label: str, **more: str) -> str:
        picture = self.see
        self.send("label", picture=picture, label=label, **more)
        return picture

    def labels(self) -> dict[str, str | None]:
        return {entry.id: entry.labels.label for entry in self.queue.entries() if entry.labels.label}


def test_pictures_are_labelled_one_after_the_other_least_confident_first(own: Site) -> None:
    ann, order = Person(own), [entry.id for entry in own.stored.queue("digits").entries()]
    seen = [ann.label(label) for label in ("3", "4", "-", "9")]
    assert seen == order
    assert ann.labels() == dict(zip(order, ("3", "4", "-", "9"), strict=True))
    assert "No more pictures after the last one" in ann.page


def test_undo_brings_back_the_picture_without_the_label_and_again_the_one_before(own: Site) -> None:
    ann = Person(own)
    first, second = ann.label("3"), ann.label("4")
    ann.send("undo")
    assert (ann.see, ann.labels()) == (second, {first: "3"})
    ann.send("undo")
    assert (ann.see, ann.labels()) == (first, {})
    ann.label("5")
    assert (ann.see, ann.labels()) == (second, {first: "5"})
    assert [record.label for record in ann.queue.labels(first)] == ["3", "3", "5"]  # nothing is erased
    assert ann.client.post("/review/digits/undo").status_code == 200
    assert "no label was given here" in ann.client.post("/review/digits/undo").text


def test_a_label_that_was_there_before_is_not_taken_back_by_undo(own: Site) -> None:
    first = own.stored.queue("digits").entries()[0].id
    own.stored.queue("digits").label(first, "3", "ann")
    ann = Person(own)
    ann.send("label", picture=first, label="3")
    assert "no label was given here" in ann.client.post("/review/digits/undo").text
    assert ann.labels() == {first: "3"}


def test_conflicting_labels_are_resolved_by_the_next_one_and_conflict_again_after_undo(own: Site) -> None:
    ann = Person(own)
    first = ann.label("3")
    ann.queue.label(first, "4", "bob")
    ann.page = ann.client.get("/review/digits/label.html?state=conflicting").text
    assert "Your label ends the disagreement" in ann.page
    ann.label("4", state="conflicting")
    assert ann.labels() == {first: "4"}
    ann.send("undo", state="conflicting")
    assert ann.queue.get(first)[0].labels.state == "conflicting"


def test_a_skipped_picture_does_not_come_back_until_the_end(own: Site) -> None:
    ann = Person(own)
    order = [entry.id for entry in ann.queue.entries()]
    (skip,) = re.findall(r'id="skip" href="([^"]*)"', ann.page)
    ann.page = ann.client.get(f"/review/digits/{skip.replace('&amp;', '&')}").text
    assert ann.see == order[1]
    ann.label("1")
    assert ann.see == order[2]
    ann.page = ann.client.get("/review/digits/label.html?reason=audit").text
    assert ann.see in order[2:]


@pytest.mark.parametrize(("label", "status"), [("cat", 400), ("", 400), ("10", 400), ("-", 200), ("0", 200)])
def test_only_classes_of_the_model_and_none_of_them_are_labels(own: Site, label: str, status: int) -> None:
    ann = Person(own)
    assert ann.client.post("/review/digits/label", data={"picture": ann.see, "label": label}).status_code == status
    assert ann.client.post("/review/digits/label", data={"picture": "0" * 24, "label": "1"}).status_code == 400


def entry_of(classes: list[str]) -> QueuedPicture:
    probabilities = {name: 1 / len(classes) + (name == classes[-1]) * 0.1 for name in classes}
    stored = Prediction(
        picture="pictures/x.png", label=classes[0], confidence=0.5, probabilities=probabilities, version=queue_of.FIRST,
        request_id="r", reason="audit", time="2026-01-02T03:04:05+00:00",
    )  # fmt: skip
    return QueuedPicture("x", stored, frozenset({"audit"}), summarize([]))


@pytest.mark.parametrize(
    ("classes", "keys"),
    [
        (["cat", "dog"], ["1", "2"]),
        ([f"c{k}" for k in range(10)], [*"1234567890"]),
        ([f"c{k:02d}" for k in range(11)], [f"{k:02d}" for k in range(1, 12)]),
        (tiny.CLASSES, tiny.CLASSES),
        (["0", "1"], ["0", "1"]),
        ([f"c{k:03d}" for k in range(100)], [f"{k:03d}" for k in range(1, 101)]),
    ],
)
def test_every_class_has_a_key_of_its_own_and_none_is_the_beginning_of_another(classes: list[str], keys: list[str]) -> None:
    entry = entry_of(classes)
    found = reviewing.choices("x", [entry])
    assert [choice.label for choice in found] == sorted(classes)
    assert [choice.key for choice in found] == keys
    assert (len(set(keys)), len({len(key) for key in keys})) == (len(keys), 1)
    shown = reviewing.likely(entry, found)
    assert len(shown) == (len(classes) if len(classes) <= reviewing.MAX_BUTTONS else 3)
    assert classes[-1] in {choice.label for choice in shown}


def test_pictures_of_any_size_are_shown_within_their_square() -> None:
    small = queue_of.png(queue_of.digit(3))
    enlarged = np.asarray(Image.open(BytesIO(reviewing.shown(small, 112))))
    assert enlarged.shape == (112, 112)
    assert (enlarged[::14, ::14] == queue_of.digit(3)[:, :, 0]).all()  # pixels as they are
    buffer = BytesIO()
    Image.new("RGB", (900, 300), "red").save(buffer, "JPEG")
    assert Image.open(BytesIO(reviewing.shown(buffer.getvalue(), 112))).size == (112, 37)


def test_pictures_of_12_bits_are_shown_as_the_model_saw_them(own: Site) -> None:
    ann = Person(own)
    sent = queue_of.deep_png(queue_of.digit(7), 12)
    ann.queue.put(replace(queue_of.entry(sent, "3", 0.01), levels=12))
    pages = {"pictures": "/review/digits.html", "large": "/review/digits/label.html"}
    for folder, page in pages.items():
        (address,) = re.findall(rf'src="([\w/]*{folder}/[^"]*levels=12)"', ann.client.get(page).text)
        shown = Image.open(BytesIO(ann.client.get(urljoin(page, address)).content))
        times = shown.width // 8
        assert (np.asarray(shown)[::times, ::times] == queue_of.digit(7)[:, :, 0]).all()
    assert ann.client.get(f"/review/digits/large/{ann.queue.entries()[0].file_name}.png?levels=3").status_code == 400


def test_a_picture_that_was_removed_is_not_found_and_its_page_is_there(own: Site) -> None:
    ann = Person(own)
    entry = ann.queue.entries()[0]
    address = f"/review/digits/pictures/{entry.file_name}.png"
    assert ann.client.get(address).headers["content-type"] == "image/png"
    own.stored.store.delete(f"reviews/digits/{entry.prediction.picture}")
    assert ann.client.get(f"/review/digits/large/{entry.file_name}.png").status_code == 404
    assert ann.client.get("/review/digits.html").status_code == 200
