"""Sets as they are published whose own files of labels are not read: each is called by its name, and the command that is told works."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from components.bundle.dataset import SPLITS
from components.classifier.errors import DataError
from tests.ingest.cases import encode, folder, pixels, put
from tests.ingest.conftest import Run


def cub(root: Path) -> Path:
    lines = []
    for kind, name in enumerate(("001.Auk", "002.Wren")):
        for k in range(6):
            put(root / "images" / name / f"{name[4:]}_{k}.jpg", encode(pixels(kind, k), "JPEG"))
            lines.append(f"{len(lines) + 1} {name}/{name[4:]}_{k}.jpg")
    put(root / "images.txt", "\n".join(lines) + "\n")
    put(root / "train_test_split.txt", "".join(f"{k + 1} {int(k % 6 < 4)}\n" for k in range(12)))
    put(root / "image_class_labels.txt", "".join(f"{k + 1} {1 + k // 6}\n" for k in range(12)))
    put(root / "attributes" / "attributes.txt", "1 1 0\n")
    return root


def pets(root: Path) -> Path:
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    for kind, name in enumerate(("Abyssinian", "great_pyrenees")):
        for k in range(6):
            put(root / "images" / f"{name}_{k}.jpg", encode(pixels(kind, k), "JPEG"))
            put(root / "annotations" / "trimaps" / f"{name}_{k}.png", encode(pixels(kind, k)[..., 0]))
            lists["trainval" if k < 4 else "test"].append(f"{name}_{k} {kind + 1} 1 1\n")
    for split, lines in lists.items():
        put(root / "annotations" / f"{split}.txt", "".join(lines))
    put(root / "annotations" / "list.txt", "#Image CLASS-ID SPECIES BREED ID\n" + "".join(lists["trainval"] + lists["test"]))
    return root


def tiny_imagenet(root: Path) -> Path:
    names = ("n01443537", "n01629819")
    for kind, name in enumerate(names):
        for k in range(4):
            put(root / "train" / name / "images" / f"{name}_{k}.JPEG", encode(pixels(kind, k), "JPEG"))
        put(root / "train" / name / f"{name}_boxes.txt", f"{name}_0.JPEG\t0\t10\t63\t58\n")
    lines = []
    for k in range(4):
        put(root / "val" / "images" / f"val_{k}.JPEG", encode(pixels(k % 2, 100 + k), "JPEG"))
        put(root / "test" / "images" / f"test_{k}.JPEG", encode(pixels(k % 2, 200 + k), "JPEG"))
        lines.append(f"val_{k}.JPEG\t{names[k % 2]}\t0\t32\t44\t62\n")
    put(root / "val" / "val_annotations.txt", "".join(lines))
    put(root / "wnids.txt", "\n".join(names))
    return root


@pytest.mark.parametrize(
    ("make", "source", "classes", "totals"),
    [
        (cub, "images", ["001.Auk", "002.Wren"], (6, 2, 4)),
        (pets, "labels.csv", ["Abyssinian", "great_pyrenees"], (6, 2, 4)),
        (tiny_imagenet, "labels.csv", ["n01443537", "n01629819"], (4, 4, 4)),
    ],
)
def test_a_published_set_is_read_after_the_command_that_its_refusal_tells(
    tmp_path: Path, run: Run, make: Callable[[Path], Path], source: str, classes: list[str], totals: tuple[int, int, int]
) -> None:
    root = make(tmp_path / "data" / "it's wrapped")
    with pytest.raises(DataError, match="as it is published, whose own files are not read") as refused:
        run(tmp_path / "data")
    told = re.search(r"on this machine\) run (.+) and give its (\S+) as the source", str(refused.value))
    assert told is not None
    assert told[2] == source
    subprocess.run(["sh", "-ec", told[1]], cwd=root, check=True)
    found = run(root / source)
    assert found.info.classes == classes
    if make is tiny_imagenet:
        assert set(found.files("validation")) == {f"val/images/val_{k}.JPEG" for k in range(4)}
        assert "has no line for 4 pictures, which are not used: test/images/test_0.JPEG" in found.said
        assert sum(found.total(split) for split in SPLITS) == 12
    else:
        assert tuple(found.total(split) for split in SPLITS) == totals


@pytest.mark.parametrize("below", ["", "train/"])
def test_labels_in_the_names_of_pictures_are_told_with_the_command_that_writes_a_table(tmp_path: Path, run: Run, below: str) -> None:
    """As of Kaggle's cats and dogs."""
    for k in range(6):
        for kind, name in enumerate(("cat", "dog")):
            put(tmp_path / "data" / below / f"{name}.{k}.jpg", encode(pixels(kind, k), "JPEG"))
        put(tmp_path / "data" / "test1" / f"{k + 1}.jpg", encode(pixels(k % 2, 100 + k), "JPEG")) if below else None
    with pytest.raises(DataError, match=r"beginnings of their names \(cat, dog\) are the classes, run ") as refused:
        run(tmp_path / "data")
    told = re.search(r"are the classes, run (.+) in the source's folder$", str(refused.value))
    assert told is not None
    subprocess.run(["sh", "-ec", told[1]], cwd=tmp_path / "data", check=True)
    assert run(tmp_path / "data").counts() == {"cat": 6, "dog": 6}


@pytest.mark.parametrize("names", [["IMG_{}.jpg"], ["{}.jpg"], ["cat.{}.jpg", "dog.{}.jpg", "a,b.{}.jpg"]])
def test_names_that_tell_no_labels_give_no_command(tmp_path: Path, run: Run, names: list[str]) -> None:
    for k in range(6):
        for kind, name in enumerate(names):
            put(tmp_path / "data" / name.format(k), encode(pixels(kind, k), "JPEG"))
    with pytest.raises(DataError, match=r"has no class folders: .*with such folders in them$"):
        run(tmp_path / "data")


@pytest.mark.parametrize(
    ("picture", "boxes"),
    [
        ("images/{split}/{k}.jpg", "labels/{split}/{k}.txt"),
        ("{split}/images/{k}.jpg", "{split}/labels/{k}.txt"),
        ("JPEGImages/{split}{k}.jpg", "Annotations/{split}{k}.xml"),
        ("images/{split}{k}.jpg", "annotations/{split}{k}.xml"),
        ("{split}2017/{k}.jpg", "annotations/instances_{split}2017.json"),
        ("{split}/{k}.jpg", "{split}/_annotations.coco.json"),
    ],
)
def test_a_set_of_boxes_is_refused_as_what_it_is(tmp_path: Path, run: Run, picture: str, boxes: str) -> None:
    for split in ("train", "val"):
        for k in range(4):
            put(tmp_path / "data" / picture.format(split=split, k=k), encode(pixels(k % 2, k), "JPEG"))
            put(tmp_path / "data" / boxes.format(split=split, k=k), "0 0.5 0.5 0.2 0.2")
    folder_of_boxes = boxes.partition("{")[0].split("/")[0]
    with pytest.raises(DataError, match=rf"boxes of objects \({folder_of_boxes}.*\), and a classifier takes one label per picture"):
        run(tmp_path / "data")


@pytest.mark.parametrize("ending", ["txt", "xml"])
def test_boxes_beside_pictures_without_a_class_are_told(tmp_path: Path, run: Run, ending: str) -> None:
    for k in range(4):
        for split in ("train", "valid"):
            put(tmp_path / split / f"{k}.jpg", encode(pixels(k % 2, k), "JPEG"))
            put(tmp_path / split / f"{k}.{ending}", "0 0.5 0.5 0.2 0.2")
    with pytest.raises(DataError, match=rf"train/0\.{ending} may hold its label .* or boxes of objects, and a classifier takes one"):
        run(tmp_path)


def test_class_folders_in_a_folder_that_is_not_alone_are_refused_before_they_are_decoded(tmp_path: Path, run: Run) -> None:
    """As of Food-101, whose `meta` holds lists."""
    folder(tmp_path / "images", ["cat", "dog"])
    put(tmp_path / "meta" / "train.txt", "cat/cat_000\n")
    with pytest.raises(DataError, match=r"all pictures lie in folder images, .* its folders \(cat, dog\) are the classes, give images as"):
        run(tmp_path)


def test_lists_of_splits_that_are_not_read_are_told(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", ["cat", "dog"])
    put(data / "test.txt", "cat/cat_000\n")
    assert "no split is taken from test.txt; columns.csv with the columns file and split gives them" in run(data).said


@pytest.mark.parametrize("name", ["train.h5", "train_32x32.mat", "a.tfrecord-00000-of-00001", "data.mdb", "x.rec", "cifar/data_batch_1"])
def test_files_of_whole_sets_that_are_not_read_are_called_so_with_what_to_do(tmp_path: Path, run: Run, name: str) -> None:
    put(tmp_path / "data" / name, bytes(600))
    with pytest.raises(DataError, match=rf"not read \({name}\); save its pictures in a folder per class, or as arrays by np\.save"):
        run(tmp_path / "data")


@pytest.mark.parametrize("name", ["list_attr.txt", "dataset.json", "train.lst"])
def test_one_folder_of_pictures_beside_a_file_that_may_have_their_labels_is_refused_at_once(tmp_path: Path, run: Run, name: str) -> None:
    put(folder(tmp_path / "data", ["all"]) / name, "x")
    with pytest.raises(DataError, match=rf"all pictures lie in one folder \(all\), and {name} may hold their labels: give a CSV or JSONL"):
        run(tmp_path / "data")


def test_a_damaged_table_in_parquet_is_called_that(tmp_path: Path, run: Run) -> None:
    put(folder(tmp_path / "data", ["all"]) / "metadata.parquet", "x")
    with pytest.raises(DataError, match=r"^metadata\.parquet is a cut or damaged Parquet file \("):
        run(tmp_path / "data")
