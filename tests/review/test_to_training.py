"""From the review queue into training, and never into the sealed test split."""

from pathlib import Path

import numpy as np
import pytest

from components.bundle.dataset import Dataset
from components.classifier.errors import DataError
from components.ingest.ingest import ingest
from components.review.export import import_labels, write_labelled
from components.settings.ingest import IngestSettings
from tests.review import queue_of


def quiet(line: str) -> None:
    """Take a line of progress and say nothing."""


@pytest.fixture
def reviewed(tmp_path: Path) -> Path:
    """An export of three labelled noise pictures, and of the first ten digits, which are in the source already."""
    queue = queue_of.at(tmp_path / "store")
    for seed in range(3):
        queue.put(queue_of.entry(queue_of.noise(seed)))
    new = {entry.id for entry in queue.entries()}
    for number in range(10):
        queue.put(queue_of.entry(number))
    import_labels(queue, [(entry.id, "7" if entry.id in new else "3") for entry in queue.entries()], "ann")
    write_labelled(queue, queue.entries(), tmp_path / "reviewed")
    return tmp_path / "reviewed"


def test_labelled_pictures_are_trained_on_and_the_sealed_test_split_stays_as_it_was(reviewed: Path, tmp_path: Path) -> None:
    ingest("digits", tmp_path / "before", IngestSettings(), quiet)
    info = ingest("digits", tmp_path / "after", IngestSettings(extra_training_source=str(reviewed)), quiet)
    before, after = Dataset.load(tmp_path / "before"), Dataset.load(tmp_path / "after")
    for name in ("test", "validation"):
        assert np.array_equal(before.split(name).images, after.split(name).images)
        assert np.array_equal(before.split(name).labels, after.split(name).labels)
    added = after.split("train").images[len(before.split("train")) :]
    assert {picture.tobytes() for picture in added} == {queue_of.noise(seed).tobytes() for seed in range(3)}
    assert after.split("train").labels[-3:].tolist() == [7, 7, 7]
    assert np.array_equal(after.split("train").images[:-3], before.split("train").images)
    assert info.counts["train"]["7"] == before.info.counts["train"]["7"] + 3
    assert info.digest != before.info.digest
    assert len([entry for entry in info.set_aside if "of the first source" in entry["reason"]]) == 10


def test_extra_pictures_of_any_size_are_brought_to_the_sources(reviewed: Path, tmp_path: Path) -> None:
    options = IngestSettings(image_size=(16, 12), channels=3, extra_training_source=str(reviewed))
    info = ingest("digits", tmp_path / "out", options, quiet)
    assert info.shape == (16, 12, 3)
    assert next(check["detail"] for check in info.checks if check["name"] == "extra training pictures").startswith("3 of 13")


@pytest.mark.parametrize(("folder", "message"), [("train/cat", "classes that the source does not have: cat"), ("test/7", "test split")])
def test_an_extra_source_may_not_bring_classes_or_a_test_split(reviewed: Path, tmp_path: Path, folder: str, message: str) -> None:
    (reviewed / folder).mkdir(parents=True)
    (reviewed / folder / "a.png").write_bytes(queue_of.png(queue_of.noise(9)))
    with pytest.raises(DataError, match=message):
        ingest("digits", tmp_path / "out", IngestSettings(extra_training_source=str(reviewed)), quiet)
    assert not (tmp_path / "out" / "dataset.json").exists()
