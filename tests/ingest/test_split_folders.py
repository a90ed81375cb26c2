"""Folders that look like splits are splits or are refused, and never classes."""

import shutil
from pathlib import Path

import pytest

from components.classifier.errors import DataError
from tests.ingest.cases import files, folder, put
from tests.ingest.conftest import Run

LIKE_SPLITS = [
    ("training_set", "test_set", ""),
    ("seg_train", "seg_test", ""),
    ("seg_train/seg_train", "seg_test/seg_test", ""),
    ("train_images", "test_images", ""),
    ("TrainImages", "TestImages", ""),
    ("train2017", "test2017", "images/"),
    ("my trainset", "my testset", ""),
    ("train", "dataset-test", ""),
]


@pytest.mark.parametrize(("train", "test", "inner"), LIKE_SPLITS)
def test_folders_that_are_splits_by_likeness_are_splits_and_never_classes(
    tmp_path: Path, run: Run, train: str, test: str, inner: str
) -> None:
    folder(tmp_path / "data" / train / inner, {"cat": 8, "dog": 8})
    folder(tmp_path / "data" / test / inner, {"cat": 3, "dog": 3}, seed=500)
    found = run(tmp_path / "data")
    assert found.counts() == {"cat": 11, "dog": 11}
    assert {name.partition("/")[0] for name in found.files("test")} == {test.partition("/")[0]}
    assert "the same class folders lie in them (cat, dog)" in found.said


@pytest.mark.parametrize(
    "names", [["train_images", "test_images"], ["train_images", "test_images", "thumbnails"], ["train", "test", "masks"]]
)
def test_folders_like_splits_without_class_folders_are_refused(tmp_path: Path, run: Run, names: list[str]) -> None:
    folder(tmp_path / "data", names)
    put(tmp_path / "data" / "train.csv", "id_code,diagnosis\ntrain_images_000,cat\n")
    like = r"test(_images)? and train(_images)? look like splits, and no class folders"
    with pytest.raises(
        DataError, match=rf"{like} .*there is also train\.csv: a table of labels has a column for the picture \(file, .*label"
    ):
        run(tmp_path / "data")


def test_a_table_that_lies_in_a_split_and_is_not_one_of_labels_is_told_what_it_needs(tmp_path: Path, run: Run) -> None:
    for split, seed in (("train", 0), ("test", 100)):
        folder(tmp_path, [split], seed=seed)
        put(tmp_path / split / "labels.csv", "id_code,diagnosis\n1,cat\n")
    with pytest.raises(
        DataError, match=r"no class folders; .* where test/labels\.csv, train/labels\.csv may give labels: a table of labels has"
    ):
        run(tmp_path)


def test_names_with_the_word_of_a_split_are_classes_beside_others(tmp_path: Path, run: Run) -> None:
    names = ["bus", "test tube", "train station", "valley"]
    assert run(folder(tmp_path / "data", names)).info.classes == names
    assert run(folder(tmp_path / "more", ["contest", "training shoes", "detrain"])).info.classes == ["contest", "detrain", "training shoes"]


def test_a_folder_that_is_not_a_split_beside_folders_like_splits_is_refused(tmp_path: Path, run: Run) -> None:
    for name in ("seg_train/seg_train", "seg_test/seg_test"):
        folder(tmp_path / "data" / name, ["cat", "dog"], seed=len(name))
    folder(tmp_path / "data" / "seg_pred", ["seg_pred"])
    with pytest.raises(DataError, match=r"there are folders that are not splits: seg_pred"):
        run(tmp_path / "data")


@pytest.mark.parametrize("inside", [("train", "test"), ("cat", "dog")])
def test_the_same_folders_in_every_class_are_refused(tmp_path: Path, run: Run, inside: tuple[str, str]) -> None:
    for k, name in enumerate(("first", "second", "third")):
        folder(tmp_path / "data" / name, inside, seed=100 * k)
    with pytest.raises(DataError, match=rf"the same folders \({', '.join(sorted(inside))}\) lie in first, second, third: which are"):
        run(tmp_path / "data")


@pytest.mark.parametrize("wrapper", ["", "images/"])
def test_folders_that_share_some_of_their_folders_are_refused_as_nothing_tells_which_are_the_classes(
    tmp_path: Path, run: Run, wrapper: str
) -> None:
    folder(tmp_path / "data" / "amazon" / wrapper, ["bike", "mug"])
    folder(tmp_path / "data" / "webcam" / wrapper, ["bike", "mug", "pen"], seed=100)
    with pytest.raises(DataError, match=r"the same folders \(bike, mug\) lie in amazon, webcam: which are"):
        run(tmp_path / "data")


def test_one_shared_folder_is_told_and_so_are_several_beside_pictures_of_the_class_itself(tmp_path: Path, run: Run) -> None:
    told = "lie in cat, dog: a picture's class is the folder at the top"
    folder(tmp_path / "one" / "cat", ["2024"])
    folder(tmp_path / "one" / "dog", ["2024", "2025"], seed=100)
    assert f"note: folders of the same names (2024) {told}" in run(tmp_path / "one").lines
    folder(tmp_path / "several", ["cat", "dog"])
    folder(tmp_path / "several" / "cat", ["2024", "2025"], seed=200)
    folder(tmp_path / "several" / "dog", ["2024", "2025", "2026"], seed=300)
    found = run(tmp_path / "several")
    assert f"note: folders of the same names (2024, 2025) {told}" in found.lines
    assert found.counts() == {"cat": 18, "dog": 24}


def test_splits_of_which_one_has_class_folders_and_the_other_pictures_alone_are_refused(tmp_path: Path, run: Run) -> None:
    """As GTSRB is published."""
    folder(tmp_path / "Final_Training" / "Images", {"00000": 12, "00001": 12})
    for name, data in files(folder(tmp_path / "more", {"00000": 2, "00001": 2}, seed=300)).items():
        put(tmp_path / "Final_Test" / "Images" / name.replace("/", "_"), data)
    put(tmp_path / "Final_Test" / "Images" / "GT-final_test.csv", "Filename;ClassId\n00000_0.png;0\n")
    shutil.rmtree(tmp_path / "more")
    told = r"Final_Training/Images holds class folders, and Final_Test/Images pictures alone; .* \(by Final_Test/Images/GT-final_test.csv\)"
    with pytest.raises(DataError, match=f"{told}, or give Final_Training/Images as the source"):
        run(tmp_path)
    assert run(tmp_path / "Final_Training" / "Images").info.classes == ["00000", "00001"]


def test_folders_that_differ_only_in_the_word_of_a_split_are_no_classes_whatever_lies_beside_them(tmp_path: Path, run: Run) -> None:
    """As of Market-1501, whose labels are in the names."""
    folder(tmp_path, ["bounding_box_test", "bounding_box_train", "query"])
    with pytest.raises(DataError, match=r"^bounding_box_test and bounding_box_train look like splits, and no class folders are in all"):
        run(tmp_path)


def test_pictures_and_their_masks_in_each_class_are_called_that(tmp_path: Path, run: Run) -> None:
    """As of the COVID-19 radiographs."""
    folder(tmp_path / "covid", ["images", "masks"])
    folder(tmp_path / "normal", ["images", "masks"], seed=100)
    with pytest.raises(DataError, match=r"of pictures and of their masks \(images, masks\) lie in covid, normal, .* move the masks out"):
        run(tmp_path)
