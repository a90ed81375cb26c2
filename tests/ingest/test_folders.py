"""Image folders as users have them: what is a class, what is a split, what is passed over, what is named."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.classifier.errors import DataError
from tests.ingest.cases import encode, folder, pixels, png_bomb, put
from tests.ingest.conftest import Run


def test_sixteen_bit_classes_stay_apart(tmp_path: Path, run: Run) -> None:
    for name, low, high in (("dark", 300, 9000), ("bright", 40000, 65535)):
        for k in range(8):
            deep = np.random.default_rng(k).integers(low, high, (16, 16)).astype(np.uint16)
            put(tmp_path / "data" / name / f"{k}.png", encode(deep))
    for name, pixels_of in run(tmp_path / "data").files().values():
        assert pixels_of.shape == (16, 16, 1)
        assert pixels_of.max() <= 36 if name == "dark" else pixels_of.min() >= 155


def test_hidden_and_system_files_are_passed_over_in_one_line(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", {"cat": 10, "dog": 10})
    picture = encode(pixels(0))
    for place in (".ipynb_checkpoints/a.png", "cat/.ipynb_checkpoints/a.png", "@eaDir/a.png@SynoEAStream", "__MACOSX/cat/._a.png"):
        put(data / place, picture)
    for place in (".DS_Store", "cat/.DS_Store", "dog/Thumbs.db", "dog/desktop.ini", "cat/._cat_000.png", "dog/Icon\r"):
        put(data / place, b"\0\0\0\1Bud1")
    found = run(data)
    assert found.counts() == {"cat": 10, "dog": 10}
    assert found.info.set_aside == []
    (line,) = [line for line in found.lines if "hidden or system" in line]
    assert all(name in line for name in (".DS_Store (2)", ".ipynb_checkpoints (2)", "@eaDir", "Thumbs.db", "desktop.ini", "__MACOSX"))


def test_numbers_as_names_are_in_the_order_of_numbers(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", [str(k) for k in range(12)])
    found = run(data)
    assert found.info.classes == [str(k) for k in range(12)]
    assert all(file.startswith(f"{name}/") for file, (name, _) in found.files().items())
    mixed = folder(tmp_path / "mixed", ["b", "10", "9"])
    assert run(mixed).info.classes == ["10", "9", "b"]


def test_damaged_files_are_named_and_set_aside(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", {"cat": 10, "dog": 10})
    png, jpeg = encode(pixels(0, 99)), encode(pixels(0, size=(64, 64)), "JPEG")
    put(data / "cat" / "cut.jpg", jpeg[: len(jpeg) // 2])
    put(data / "cat" / "cut.png", png[: len(png) // 2])
    put(data / "dog" / "bad_crc.png", png[:60] + bytes([png[60] ^ 255]) + png[61:])
    put(data / "dog" / "empty.jpg")
    found = run(data)
    assert found.counts() == {"cat": 10, "dog": 10}
    assert {entry["file"] for entry in found.info.set_aside} == {"cat/cut.jpg", "cat/cut.png", "dog/bad_crc.png", "dog/empty.jpg"}
    assert all(f"warning: set aside {entry['file']}: {entry['reason']}" in found.lines for entry in found.info.set_aside)
    with pytest.raises(DataError, match=r"4 files cannot be used.*cat/cut\.jpg: .*truncated.*dog/empty\.jpg: the file is empty"):
        run(data, on_unreadable="fail")


def test_many_damaged_files_refuse_the_source(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", {"cat": 10, "dog": 10})
    for k in range(8):
        put(data / "cat" / f"broken_{k}.png", b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"8 of 28 pictures cannot be used, more than 25%.*cat/broken_0\.png"):
        run(data)


def test_content_decides_and_not_the_name(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", {"cat": 10, "dog": 10})
    names = {
        "bmp.jpg": "BMP",
        "webp.png": "WEBP",
        "D.JPG": "JPEG",
        "F.PNG": "PNG",
        "noext": "PNG",
        "t.TIF": "TIFF",
        "gif.jpg": "GIF",
        "p.txt": "PNG",
    }
    for k, (name, kind) in enumerate(names.items()):
        put(data / "cat" / name, encode(pixels(0, 50 + k), kind))
    put(data / "dog" / "text.jpg", "this is not an image\n")
    put(data / "dog" / "notes.txt", "neither")
    found = run(data)
    assert found.counts() == {"cat": 18, "dog": 10}
    assert [entry["file"] for entry in found.info.set_aside] == ["dog/text.jpg"]
    assert "1 file without a picture, such as dog/notes.txt" in found.said


def test_a_flat_folder_is_refused_saying_what_is_wanted(tmp_path: Path, run: Run) -> None:
    for k in range(6):
        put(tmp_path / "flat" / f"{k}.png", encode(pixels(0, k)))
    with pytest.raises(DataError, match=r"no class folders: found 6 pictures \(such as 0\.png\); wanted is one folder per class"):
        run(tmp_path / "flat")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no files"):
        run(tmp_path / "none")
    put(tmp_path / "texts" / "a" / "notes.txt", "x")
    with pytest.raises(DataError, match="holds no pictures"):
        run(tmp_path / "texts")


@pytest.mark.parametrize("wrapper", ["", "mydata/", "a/b c/"])
@pytest.mark.parametrize("names", [("train", "test"), ("Train", "TEST"), ("training", "testing")])
def test_wrappers_are_unwrapped_and_splits_seen(tmp_path: Path, run: Run, wrapper: str, names: tuple[str, str]) -> None:
    for split, seed in zip(names, (0, 400), strict=True):
        folder(tmp_path / "data" / wrapper / split, ["cat", "dog"], seed)
    put(tmp_path / "data" / wrapper / "README.md", "hello")
    put(tmp_path / "data" / wrapper / "LICENSE", "MIT")
    found = run(tmp_path / "data")
    assert found.info.classes == ["cat", "dog"]
    assert found.info.counts["test"] == {"cat": 6, "dog": 6}
    assert all(f"/{names[1]}/" in f"/{file}" for file in found.files("test"))
    assert found.total("train") + found.total("validation") == 12


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev"])
def test_a_given_validation_split_is_kept(tmp_path: Path, run: Run, name: str) -> None:
    for split, seed in (("train", 0), (name, 100), ("test", 400)):
        folder(tmp_path / "data" / split, ["cat", "dog"], seed)
    found = run(tmp_path / "data")
    assert [found.total(split) for split in ("train", "validation", "test")] == [12, 12, 12]
    assert all(file.startswith(f"{name}/") for file in found.files("validation"))


def test_a_wrapper_in_every_split_is_unwrapped(tmp_path: Path, run: Run) -> None:
    for split, seed in (("train", 0), ("test", 400)):
        folder(tmp_path / "data" / split / "images", ["cat", "dog"], seed)
    assert run(tmp_path / "data").info.classes == ["cat", "dog"]


def test_nested_pictures_belong_to_the_class_at_the_top(tmp_path: Path, run: Run) -> None:
    folder(tmp_path / "data", ["cat", "dog"])
    (tmp_path / "data" / "cat" / "2024" / "may").mkdir(parents=True)
    for k in range(3):
        (tmp_path / "data" / "cat" / f"cat_00{k}.png").rename(tmp_path / "data" / "cat" / "2024" / "may" / f"{k}.png")
    assert run(tmp_path / "data").counts() == {"cat": 6, "dog": 6}


def test_train_may_be_a_class(tmp_path: Path, run: Run) -> None:
    assert run(folder(tmp_path / "data", ["bus", "train"])).info.classes == ["bus", "train"]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (["only/a.png", "only/b.png"], r"one class only \(only, 2 pictures\)"),
        (["test/cat/a.png", "test/dog/b.png"], "only test and no train folder"),
        (["train/cat/a.png", "train/dog/b.png", "test/c.png"], "test holds 1 pictures .* no class folders.*move them out"),
        (
            ["train/a.png", "train/metadata.csv", "test/b.png"],
            r"train/metadata\.csv cannot be read as a table in UTF-8",
        ),
        (["train/cat/a.png", "train/dog/b.png", "extra/c.png"], r"beside train/ there are folders that are not splits: extra"),
        (["train/cat/a.png", "Train/cat/b.png"], "both the train split"),
        (["val/cat/a.png", "valid/cat/b.png", "train/cat/c.png"], "both the validation split"),
        (
            ["w/scab/a.png", "w/rust/b.png", "w/plants/scab/c.png", "w/plants/rust/d.png"],
            r"folder w/plants lies among the classes and holds folders named like them \(rust, scab\)",
        ),
        (
            ["train/a/1.png", "train/b/2.png", "train/train/a/3.png", "train/train/b/4.png", "test/a/5.png", "test/b/6.png"],
            r"folder train/train lies among the classes and holds folders named like them \(a, b\)",
        ),
    ],
)
def test_folders_that_are_no_classes_are_refused(tmp_path: Path, run: Run, tree: list[str], message: str) -> None:
    for k, name in enumerate(tree):
        put(tmp_path / "data" / name, encode(pixels(k)))
    with pytest.raises(DataError, match=message):
        run(tmp_path / "data")


def test_a_folder_in_a_class_may_have_the_name_of_one_other_class(tmp_path: Path, run: Run) -> None:
    put(folder(tmp_path / "data", ["cat", "dog", "other"]) / "other" / "cat" / "1.png", encode(pixels(7)))
    assert run(tmp_path / "data").counts() == {"cat": 6, "dog": 6, "other": 7}


@pytest.mark.parametrize("name", ["labels.csv", "train.csv", "class_labels.txt", "annotations.json"])
def test_pictures_in_one_folder_beside_a_file_that_is_not_read_as_their_labels_are_told_so(tmp_path: Path, run: Run, name: str) -> None:
    put(folder(tmp_path / "data", ["images"]) / name, "image_id,dx\nimages_000,nv\n")
    give = f"give {tmp_path}/data/{name} .* as the source" if name.endswith(".csv") else "give a CSV or JSONL as the source"
    with pytest.raises(DataError, match=rf"all pictures lie in one folder \(images\), and {name} may hold their labels: {give}"):
        run(tmp_path / "data")


def test_small_and_empty_classes_are_all_named_with_counts_and_the_minimum(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", {"cat": 20, "dog": 20, "fox": 1, "owl": 0})
    put(data / "bat" / "notes.txt", "none yet")
    with pytest.raises(
        DataError, match=r"3 of 5 classes .*bat \(0 pictures, 1 other file\), fox \(1 picture\), owl \(0 pictures\); .*at least 3"
    ):
        run(data)


def test_a_class_of_one_split_only_is_named(tmp_path: Path, run: Run) -> None:
    folder(tmp_path / "a" / "train", ["cat", "dog"])
    folder(tmp_path / "a" / "test", ["cat", "dog", "owl"], 400)
    with pytest.raises(DataError, match=r"owl \(0 pictures, 6 in test\)"):
        run(tmp_path / "a")
    folder(tmp_path / "b" / "train", ["cat", "dog", "owl"])
    folder(tmp_path / "b" / "test", ["cat", "dog"], 400)
    with pytest.raises(DataError, match=r"no picture in the test split: owl \(6 in training\)"):
        run(tmp_path / "b")


def test_a_class_whose_pictures_are_all_damaged_is_named(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", {"cat": 20, "dog": 20})
    put(data / "owl" / "a.png", b"broken")
    with pytest.raises(DataError, match=r"owl \(0 pictures, 1 set aside\)"):
        run(data)


def test_links_are_followed_loops_end_and_nothing_is_shown(tmp_path: Path, run: Run) -> None:
    secret = put(tmp_path / "secret.txt", "the secret of the machine")
    folder(tmp_path / "store", ["dog"], 300)
    data = folder(tmp_path / "root", {"cat": 6})
    (data / "dog").symlink_to("../store/dog")
    (data / "cat" / "loop").symlink_to("..")
    (data / "alias").mkdir()
    for k in range(3):
        put(tmp_path / "far" / f"{k}.png", encode(pixels(5, k)))
        (data / "alias" / f"a{k}.png").symlink_to(tmp_path / "far" / f"{k}.png")
    (data / "cat" / "gone.png").symlink_to("nowhere.png")
    (data / "cat" / "out.png").symlink_to(secret)
    found = run(data)
    assert found.counts() == {"alias": 3, "cat": 6, "dog": 6}
    assert {entry["file"]: entry["reason"] for entry in found.info.set_aside}["cat/gone.png"] == "a link that leads nowhere"
    assert "set aside cat/out.png: the content is not a picture" in found.said
    assert "passed over cat/loop: a link back into the folders above it" in found.said
    assert "secret of" not in found.said


def test_a_pipe_is_named_and_not_waited_for(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", ["cat", "dog"])
    os.mkfifo(data / "cat" / "pipe.png")
    assert "set aside cat/pipe.png: neither a file nor a folder" in run(data).said


def test_names_of_every_kind_come_through(tmp_path: Path, run: Run) -> None:
    names = ["with space", "a+b", "50%", "%2B", "#1", "q?x", "a&b=c", "tilde~", "ümläut", "new\nline", "quote'\"", "日本"]
    for kind, name in enumerate(("left side", "right+side")):
        for k, file in enumerate(names):
            put(tmp_path / "data" / name / f"{file}.png", encode(pixels(kind, k)))
    (tmp_path / "data" / "left side" / "cut\udcff.png").write_bytes(encode(pixels(0, 99)))
    found = run(tmp_path / "data")
    assert found.counts() == {"left side": 13, "right+side": 12}
    assert {"left side/%2B.png", "right+side/q?x.png", "left side/new\\nline.png", "left side/cut\\xff.png"} <= set(found.files())


def test_one_class_spelled_in_two_normal_forms_is_one(tmp_path: Path, run: Run) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    folder(tmp_path / "data" / "train", [composed, "tea"])
    folder(tmp_path / "data" / "test", [decomposed, "tea"], 400)
    assert run(tmp_path / "data").info.classes == [composed, "tea"]


def test_names_that_differ_in_case_only_are_reported(tmp_path: Path, run: Run) -> None:
    found = run(folder(tmp_path / "data", ["Cat", "cat", "dog"]))
    assert "warning: class names: classes differ only in case, spaces or punctuation, or as numbers: 'Cat' and 'cat'" in found.said
    folder(tmp_path / "split" / "train", ["Cat", "dog"])
    folder(tmp_path / "split" / "test", ["cat", "dog"], 400)
    with pytest.raises(DataError, match=r"cat \(0 pictures, 6 in test\)"):
        run(tmp_path / "split")


def test_pictures_beside_the_class_folders_are_set_aside(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", ["cat", "dog"])
    put(data / "lost.png", encode(pixels(9)))
    assert "set aside lost.png: lies outside the class folders" in run(data).said


def test_sizes_must_agree_unless_one_is_asked_for(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", {"cat": 10, "dog": 10})
    put(data / "cat" / "wide.png", encode(pixels(0, 77, size=(16, 20))))
    with pytest.raises(
        DataError, match=r"2 sizes .*: 16x16 \(20, such as cat/cat_000\.png\), 16x20 \(1, such as cat/wide\.png\); .*image_size=16x16"
    ):
        run(data)
    assert run(data, image_size=(8, 12)).info.shape == (8, 12, 3)


def test_one_picture_in_colour_makes_the_dataset_rgb(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", ["cat", "dog"], channels=1)
    assert run(data).info.shape == (16, 16, 1)
    put(data / "dog" / "colour.png", encode(pixels(1, 77)))
    mixed = run(data)
    assert mixed.info.shape == (16, 16, 3)
    grey = mixed.files()["cat/cat_001.png"][1]
    np.testing.assert_array_equal(grey, np.repeat(pixels(0, 1, channels=1)[..., None], 3, axis=2))
    np.testing.assert_array_equal(mixed.files()["dog/colour.png"][1], pixels(1, 77))
    assert run(data, channels=1).info.shape == (16, 16, 1)


def test_bombs_among_the_pictures_are_set_aside(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", ["cat", "dog"])
    put(data / "cat" / "bomb.png", png_bomb(9000))
    assert "set aside cat/bomb.png: the picture has 9000x9000 pixels, more than the limit" in run(data).said


def test_turned_photos_are_upright(tmp_path: Path, run: Run) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    data = folder(tmp_path / "data", ["cat", "dog"], size=(16, 24))
    upright = Image.fromarray(pixels(0, 88, size=(16, 24)))
    put(data / "cat" / "turned.png", encode(upright.transpose(Image.Transpose.ROTATE_90), exif=turned))
    np.testing.assert_array_equal(run(data).files()["cat/turned.png"][1], np.asarray(upright))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", ["cat", "dog"])
    (data / "dog").chmod(0)
    try:
        with pytest.raises(DataError, match="dog cannot be opened"):
            run(data)
    finally:
        (data / "dog").chmod(0o755)


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (["1", "1.0"], "or as numbers: '1' and '1.0'"),
        (["hot-dog", "hot dog"], "punctuation, or as numbers: 'hot dog' and 'hot-dog'"),
        (["cat", "dog", "cat;dog"], "classes look like lists of labels: 'cat;dog'"),
        (["cat,animal", "dog,animal", "car"], "classes look like lists of labels: 'cat,animal', 'dog,animal'; a classifier"),
        (["images_001", "images_002"], "images_001, images_002 are named like parts of one set; if they are, give a table of labels"),
        (["class1", "class2"], ""),
        (["\u2764", "\u2764\ufe0f"], "punctuation, or as numbers"),
        (["cat", "nan"], "nan is a class like the others; if its pictures have no label, move them out"),
        (["None", "null", "some"], "None, null are classes like the others; if their pictures have no label, move them out"),
        (["10-Dec", "13-20"], "10-Dec may be a range, such as 1-10, that a spreadsheet has made a date of: save that column as text"),
        (["10-Dec", "11-Dec"], ""),
        (["['cat']", "['dog']"], "classes look like lists of labels: \"['cat']\", \"['dog']\""),
        (["cat", "ca\u200bt"], "punctuation, or as numbers"),
        (["cat", "\uff43\uff41\uff54"], "punctuation, or as numbers"),
        (["-1", "1"], ""),
        (["a", "b", "c;d"], ""),
    ],
)
def test_class_names_that_may_be_one_or_several_are_told(tmp_path: Path, run: Run, classes: list[str], told: str) -> None:
    found = run(folder(tmp_path / "data", classes)).check("class names")
    assert found["passed"] == (not told)
    assert told in str(found["detail"])


def test_a_name_that_ends_in_a_space_is_quoted(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", ["cat ", "dog"])
    put(data / "dog" / "note ", b"")
    put(data / "cat " / "x.png", b"")
    found = run(data)
    assert "in 2 classes: 'cat ' 6, dog 6" in found.said
    assert "warning: set aside 'cat /x.png': the file is empty (0 bytes)" in found.lines
    assert "passed over 1 file without a picture, such as 'dog/note '" in found.said


def test_a_yolo_folder_of_classes_is_read_with_its_splits_whatever_lies_beside_them(tmp_path: Path, run: Run) -> None:
    for seed, split in enumerate(("train", "val", "test")):
        folder(tmp_path / "data" / split, {"cat": 6, "dog": 6}, seed=100 * seed)
        put(tmp_path / "data" / f"{split}.cache", b"\x93NUMPY")
    put(tmp_path / "data" / "data.yaml", "names: {0: cat, 1: dog}")
    ran = run(tmp_path / "data")
    assert [ran.total(split) for split in ("train", "validation", "test")] == [12, 12, 12]
    assert "passed over 4 files without a picture" in ran.said


@pytest.mark.parametrize("parts", [["HAM10000_images_part_1", "HAM10000_images_part_2"], ["images_001/images", "images_002/images"]])
def test_parts_of_one_set_are_no_classes_where_a_table_lies_beside_them(tmp_path: Path, run: Run, parts: list[str]) -> None:
    """As of HAM10000, and the chest X-rays of the NIH."""
    data, rows = tmp_path / "data", ""
    for k in range(12):
        put(data / parts[k % 2] / f"ISIC_{k}.png", encode(pixels(k // 6, k)))
        rows += f"L{k},ISIC_{k},{'mel' if k < 6 else 'nv'}\n"
    put(data / "HAM10000_metadata.csv", f"lesion_id,image_id,dx\n{rows}")
    with pytest.raises(DataError, match=r"are named like parts of one set, and HAM10000_metadata\.csv may hold its labels: a table of"):
        run(data)
    source = put(data / "HAM10000_metadata.csv", f"lesion_id,image_id,label\n{rows}")
    assert run(source).counts() == {"mel": 6, "nv": 6}


def test_further_pages_of_a_tiff_are_told(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", ["cat", "dog"])
    more = [Image.fromarray(pixels(1, 900 + k)) for k in range(2)]
    put(data / "cat" / "stack.tif", encode(Image.fromarray(pixels(0, 99)), "TIFF", save_all=True, append_images=more))
    assert "note: 1 picture with more pages than one, of which the first is used: cat/stack.tif" in run(data).lines


def test_rows_of_parquet_beside_a_picture_are_told(tmp_path: Path, run: Run) -> None:
    """As of a repository of Hugging Face with a logo."""
    put(tmp_path / "assets" / "logo.png", encode(pixels(0)))
    put(tmp_path / "data" / "train-00000-of-00001.parquet", b"PAR1")
    with pytest.raises(DataError, match=r"folder data/ holds no pictures as files, but data/train-.*parquet, .* give data/ as the source"):
        run(tmp_path)
