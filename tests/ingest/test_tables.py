"""Tables of labels as they really come: one for each split, paths from elsewhere, one-hot columns, Excel's habits."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.bundle.dataset import SplitName
from components.classifier.errors import DataError
from components.readers.table import LABEL_COLUMNS
from tests.ingest.cases import encode, files, folder, pixels, put, tar_of, zip_of
from tests.ingest.conftest import Ingested, Run

Write = Callable[[list[tuple[str, str]]], str]
SEEDS: dict[str, int] = {"train": 0, "val": 300, "test": 600}


def csv(rows: list[tuple[str, str]]) -> str:
    return "file,label\n" + "".join(f"{path},{label}\n" for path, label in rows)


def pictures(root: Path, split: str, count: int = 12, ending: str = ".png") -> list[tuple[str, str]]:
    """Pictures 0.png, 1.png … in one folder, cats and dogs in turn; those of each split have the same names."""
    for k in range(count):
        put(root / f"{k}{ending}", encode(pixels(k % 2, SEEDS[split] + k)))
    return [(f"{k}{ending}", "dog" if k % 2 else "cat") for k in range(count)]


def beside(folder: str, table: str, write: Write = csv) -> Callable[[Path], Path]:
    """Makes the pictures and the tables of train and test; `{}` stands for the split."""

    def make(root: Path) -> Path:
        for split, count in (("train", 12), ("test", 4)):
            rows = pictures(root / folder.format(split), split, count)
            put(root / table.format(split), write(rows))
        return root

    return make


def one_hot(rows: list[tuple[str, str]]) -> str:
    return "filename, cat, dog, none\n" + "".join(f"{path}, {int(label == 'cat')}, {int(label == 'dog')}, 0\n" for path, label in rows)


LAYOUTS = {
    "a table in each split": beside("{}", "{}/labels.csv"),
    "pictures below": beside("{}/images", "{}/metadata.csv", lambda rows: csv([(f"images/{path}", label) for path, label in rows])),
    "hugging face": beside(
        "{}", "{}/metadata.jsonl", lambda rows: "".join(json.dumps({"file_name": path, "label": label}) + "\n" for path, label in rows)
    ),
    "tables above": beside("{}_images", "{}_labels.csv"),
    "tables above with paths": beside("{}", "{}.csv", lambda rows: csv([(path, label) for path, label in rows])),
    "identifiers": beside(
        "{}_images",
        "{}.csv",
        lambda rows: "image_id;Label\n" + "".join(f"{path.removesuffix('.png')};{label}\n" for path, label in rows),
    ),
    "backslashes": beside("Images/{}", "{}-labels.csv", lambda rows: csv([(f".\\{path}"[2:], label) for path, label in rows])),
    "wrapped": beside("data/{}", "data/{}/labels.csv"),
    "roboflow": beside("{}", "{}/_classes.csv", one_hot),
}


def check(found: Ingested) -> None:
    assert found.counts() == {"cat": 8, "dog": 8}
    test = found.files("test")
    assert len(test) == 4
    assert all("test" in name for name in test)
    for name, (label, image) in found.files().items():
        k, split = int(name.rpartition("/")[2].partition(".")[0]), "test" if name in test else "train"
        assert label == ("dog" if k % 2 else "cat")
        assert image.tobytes() == pixels(k % 2, SEEDS[split] + k).tobytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_table_of_each_split_gives_its_labels_and_its_split(tmp_path: Path, run: Run, layout: str) -> None:
    data = LAYOUTS[layout](tmp_path / "data")
    found = run(data)
    check(found)
    assert "gives the labels of the train split" in found.said
    assert "gives the labels of the test split" in found.said
    assert run(zip_of(tmp_path / "data.zip", files(data))).info.digest == found.info.digest
    assert run(tar_of(tmp_path / "data.tgz", files(data), "w:gz")).info.digest == found.info.digest


@pytest.mark.parametrize("table", ["{}/metadata.parquet", "{}.parquet"])
def test_tables_of_splits_in_parquet_are_read(tmp_path: Path, run: Run, table: str) -> None:
    """As Hugging Face's image folders have them; numbers are the names that its metadata gives them."""
    features = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}}}
    for split, count in (("train", 12), ("test", 4)):
        rows = pictures(tmp_path / "data" / split, split, count)
        columns = {"file_name": [path for path, _ in rows], "label": [int(label == "dog") for _, label in rows], "note": ["x"] * count}
        found = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(features)})
        pq.write_table(found, tmp_path / "data" / table.format(split))
    ran = run(tmp_path / "data")
    check(ran)
    assert "gives the labels of the train split" in ran.said


def test_a_table_in_parquet_is_a_source(tmp_path: Path, run: Run) -> None:
    rows = pictures(tmp_path / "images", "train")
    columns = {"path": [f"images/{path}" for path, _ in rows], "label": [label for _, label in rows]}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    assert run(tmp_path / "rows.parquet").counts() == {"cat": 6, "dog": 6}
    pq.write_table(pa.table({"path": columns["path"]}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"^rows\.parquet has the columns path; it needs one for the picture"):
        run(tmp_path / "rows.parquet")


@pytest.mark.parametrize("start", ["iVBORw0KGgoAAAANSU", "/9j/4AAQSkZJRg", "data:image/png;base64,iVBO"])
def test_pictures_in_base64_are_no_paths(tmp_path: Path, run: Run, start: str) -> None:
    pq.write_table(pa.table({"image": [start], "label": ["cat"]}), tmp_path / "rows.parquet")
    put(tmp_path / "rows.csv", f'image,label\n"{start}",cat\n')
    for name, line in (("rows.parquet", 1), ("rows.csv", 2)):
        with pytest.raises(DataError, match=rf"^{name} line {line} has a picture in base64 in column 'image'; save the pictures as files"):
            run(tmp_path / name)


def test_paths_from_elsewhere_are_told_and_one_that_may_mean_two_pictures_is_refused(tmp_path: Path, run: Run) -> None:
    data = LAYOUTS["tables above"](tmp_path)
    assert "train_labels.csv does not write paths from its folder: 0.png is train_images/0.png, which is there once" in run(data).said
    pictures(tmp_path / "thumbnails", "val", 1)
    with pytest.raises(DataError, match=r"test_labels\.csv names 0\.png, which may be test_images/0\.png, thumbnails/0\.png; write paths"):
        run(data)
    for split, count in (("train", 12), ("test", 4)):
        put(data / f"{split}_labels.csv", csv([(f"{split}_images/{k}.png", "dog" if k % 2 else "cat") for k in range(count)]))
    check(run(data))


def test_of_two_endings_of_one_identifier_neither_is_taken(tmp_path: Path, run: Run) -> None:
    rows = pictures(tmp_path / "images", "train")
    source = put(tmp_path / "rows.csv", csv([(path.removesuffix(".png"), label) for path, label in rows]))
    assert set(run(source).files()) == {f"images/{path}" for path, _ in rows}
    put(tmp_path / "images" / "3.jpg", encode(pixels(1, 77), "JPEG"))
    with pytest.raises(DataError, match=r"rows\.csv names 3, which may be images/3\.jpg, images/3\.png; write paths .* with their endings"):
        run(source)


def test_pictures_in_parts_are_found_by_their_identifiers(tmp_path: Path, run: Run) -> None:
    rows = pictures(tmp_path / "images_part_1", "train")
    for path, _ in rows[6:]:
        put(tmp_path / "images_part_2" / path, (tmp_path / "images_part_1" / path).read_bytes())
        (tmp_path / "images_part_1" / path).unlink()
    text = "image_id,class\n" + "".join(f"{path.removesuffix('.png')},{label}\n" for path, label in rows)
    found = run(put(tmp_path / "metadata.csv", text).parent)
    assert {name: label for name, (label, _) in found.files().items()} == {
        f"images_part_{1 if k < 6 else 2}/{path}": label for k, (path, label) in enumerate(rows)
    }


def test_a_test_set_without_labels_is_told_and_not_used(tmp_path: Path, run: Run) -> None:
    """As of competitions: the test pictures' labels are kept back, and an example of an answer lies beside them."""
    rows = pictures(tmp_path / "train_images", "train")
    others = pictures(tmp_path / "test_images", "test", 4)
    put(tmp_path / "train.csv", csv(rows))
    put(tmp_path / "test.csv", "file\n" + "".join(f"{path}\n" for path, _ in others))
    put(tmp_path / "sample_submission.csv", csv([(path, "cat") for path, _ in others]))
    found = run(tmp_path)
    assert set(found.files()) == {f"train_images/{path}" for path, _ in rows}
    assert f"test.csv has no column for the picture, or none of labels ({', '.join(LABEL_COLUMNS)}), and is not used" in found.said
    assert "train.csv has no line for 4 pictures, which are not used: test_images/0.png" in found.said
    put(tmp_path / "test.csv", csv(others[:2]))
    assert "the table of train.csv and test.csv has no line for 2 pictures" in run(tmp_path).said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"train_labels.csv": csv([("train/0.png", "cat")])},
            r"train/labels\.csv, train_labels\.csv give the labels of the train split each",
        ),
        ({"test.csv": "file,label\ntest/0.png\n"}, r"^test\.csv line 2 has 1 fields where the header has 2"),
        ({"test.csv": csv([("train/0.png", "dog")])}, r"test\.csv says something else of train/0\.png than the table of another split"),
    ],
)
def test_tables_of_splits_that_cannot_be_meant_are_refused(tmp_path: Path, run: Run, more: dict[str, str], message: str) -> None:
    put(tmp_path / "train" / "labels.csv", csv(pictures(tmp_path / "train", "train")))
    pictures(tmp_path / "test", "test", 4)
    for name, text in more.items():
        put(tmp_path / name, text)
    with pytest.raises(DataError, match=message):
        run(tmp_path)


def split_folders(root: Path) -> Path:
    for split in ("train", "test"):
        folder(root / split, ["cat", "dog"], seed=SEEDS[split])
    return root


def test_beside_class_folders_the_tables_of_splits_must_agree_or_be_other_names(tmp_path: Path, run: Run) -> None:
    data = split_folders(tmp_path)
    before = run(data).info.digest
    names = [f"train/{label}/{label}_{k:03d}.png" for label in ("cat", "dog") for k in range(6)]

    def with_labels(label: Callable[[str], str]) -> Ingested:
        put(data / "train.csv", "path,label,site\n" + "".join(f"{name},{label(name)},s\n" for name in names))
        return run(data)

    assert with_labels(lambda name: name.split("/")[1]).info.digest == before
    found = with_labels(lambda name: str("dog" in name))
    assert found.info.digest == before
    assert "train.csv has other names of the class folders: the folders' are taken" in found.said
    with pytest.raises(DataError, match=r"train\.csv calls train/cat/cat_003\.png 'dog', and it lies in folder 'cat' \(1 of 12 differ\)"):
        with_labels(lambda name: "dog" if name.endswith("cat_003.png") else name.split("/")[1])
    put(data / "train.csv", "path,label\ntrain/cat/cat_000.png\n")
    assert "the folders are the classes, and no table is read: train.csv line 2 has 1 fields" in run(data).said


def test_folders_that_are_parts_are_not_the_classes_where_the_tables_say_others(tmp_path: Path, run: Run) -> None:
    rows = []
    for part in ("part1", "part2"):
        rows += [
            (f"train_images/{part}/{part}{path}", label) for path, label in pictures(tmp_path / part, "train" if part == "part1" else "val")
        ]
        for path, _ in pictures(tmp_path / part, "train" if part == "part1" else "val"):
            put(tmp_path / "data" / "train_images" / part / f"{part}{path}", (tmp_path / part / path).read_bytes())
    put(tmp_path / "data" / "train.csv", csv(rows))
    found = run(tmp_path / "data")
    assert found.counts() == {"cat": 12, "dog": 12}
    assert "the labels are not the names of the folders" in found.said


def test_a_split_in_a_row_comes_before_that_of_its_table(tmp_path: Path, run: Run) -> None:
    rows = pictures(tmp_path / "train", "train")
    text = "file,label,split\n" + "".join(f"train/{path},{label},{'val' if k < 4 else ''}\n" for k, (path, label) in enumerate(rows))
    put(tmp_path / "train.csv", text)
    found = run(tmp_path)
    validation: SplitName = "validation"
    assert set(found.files(validation)) == {f"train/{k}.png" for k in range(4)}


@pytest.mark.parametrize("text", ["sep=;\r\nFile Name;Label\r\n{}", "file_name,label\r\n{},\r\n,\r\n", "File, Label\n{}"])
def test_what_excel_makes_of_a_table_is_read(tmp_path: Path, run: Run, text: str) -> None:
    rows = pictures(tmp_path, "train")
    separator = ";" if "sep=;" in text else ", " if "File, " in text else ","
    body = "\r\n".join(f"{path}{separator}{label}" for path, label in rows)
    found = run(put(tmp_path / "labels.csv", text.replace("{},", "{}").format(body)).parent)
    assert found.counts() == {"cat": 6, "dog": 6}


@pytest.mark.parametrize("name", ["labels.xlsx", "labels.csv"])
def test_a_workbook_is_called_one_whatever_its_name(tmp_path: Path, run: Run, name: str) -> None:
    pictures(tmp_path / "data", "train")
    content = {"[Content_Types].xml": b"<Types/>", "xl/workbook.xml": b"<workbook/>"}
    workbook = zip_of(tmp_path / "data" / "book.zip", content).rename(tmp_path / "data" / name)
    with pytest.raises(DataError, match=rf"{name} is a document of Excel or another office program; save a table as 'CSV UTF-8'"):
        run(workbook)


def test_a_table_without_names_of_columns_is_read_where_each_column_tells_what_it_is(tmp_path: Path, run: Run) -> None:
    """As MedMNIST saves a set: split, picture, number of the class."""
    rows = pictures(tmp_path / "breast", "train", 16)
    lines = [f"{'TRAIN' if k < 8 else 'VAL' if k < 12 else 'TEST'},{path},{int(label == 'dog')}" for k, (path, label) in enumerate(rows)]
    found = run(put(tmp_path / "breast.csv", "\n".join(lines)))
    assert found.counts() == {"0": 8, "1": 8}
    assert set(found.files("test")) == {f"breast/{k}.png" for k in range(12, 16)}
    with pytest.raises(DataError, match=r"breast\.csv has no names of columns, and its first line names a picture \(TRAIN, 0\.png, 0, 1\)"):
        run(put(tmp_path / "breast.csv", "\n".join(f"{line},{k % 3}" for k, line in enumerate(lines, 1))))


def test_columns_of_zeros_and_ones_are_classes_only_where_each_row_has_one(tmp_path: Path, run: Run) -> None:
    rows = pictures(tmp_path, "train")
    found = run(put(tmp_path / "rows.csv", one_hot(rows)))
    assert found.counts() == {"cat": 6, "dog": 6}
    assert "rows.csv has a column for each class, with one 1 in each line: cat, dog, none" in found.said
    with pytest.raises(
        DataError, match=r"rows\.csv gives a picture several classes, such as 3\.png \(cat, dog\), and a classifier takes one"
    ):
        run(put(tmp_path / "rows.csv", one_hot(rows).replace("3.png, 0, 1", "3.png, 1, 1")))
    with pytest.raises(DataError, match=r"rows\.csv has the columns cat, dog, none and none of labels; call it label"):
        run(put(tmp_path / "rows.csv", one_hot(rows).replace("3.png, 0, 1", "3.png, 0, 0")))


def test_boxes_beside_the_labels_are_told(tmp_path: Path, run: Run) -> None:
    rows = pictures(tmp_path, "train")
    text = "filename,class,xmin,ymin\n" + "".join(f"{path},{label},1,2\n" for path, label in rows)
    assert "labels.csv has boxes of objects (xmin), which are not read" in run(put(tmp_path / "labels.csv", text).parent).said


@pytest.mark.parametrize("value", ['{"name": "cat"}', '["cat"]'])
def test_a_label_of_json_that_is_not_one_value_is_refused(tmp_path: Path, run: Run, value: str) -> None:
    rows = pictures(tmp_path, "train")
    text = "".join(f'{{"file_name": "{path}", "label": {value}}}\n' for path, _ in rows)
    with pytest.raises(DataError, match=r"labels\.jsonl line 1 has an object or list in column 'label'; a label is one text or number"):
        run(put(tmp_path / "labels.jsonl", text).parent)


def test_split_tables_give_the_splits_of_class_folders_that_have_none(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", ["cat", "dog"])
    for split, numbers in (("train", range(4)), ("test", range(4, 6))):
        put(data / f"{split}.csv", csv([(f"{name}/{name}_{k:03d}.png", name) for name in ("cat", "dog") for k in numbers]))
    assert set(run(data).files("test")) == {f"{name}/{name}_{k:03d}.png" for name in ("cat", "dog") for k in (4, 5)}


def test_a_column_that_seems_to_say_the_splits_and_is_not_called_so_is_told(tmp_path: Path, run: Run) -> None:
    rows = pictures(tmp_path, "train")

    def told(column: str, values: tuple[str, str]) -> bool:
        lines = "".join(f"{path},{label},{values[k % 2]}\n" for k, (path, label) in enumerate(rows))
        found = run(put(tmp_path / "labels.csv", f"file,label,{column}\n{lines}").parent)
        return f"warning: columns: column {column} seems to say the splits, and is not used for that: call it split" in found.said

    assert told("subset", ("train", "test"))
    assert told("is_valid", ("True", "False"))
    assert not told("is_night", ("True", "False"))
    assert not told("site", ("train", "bus"))


def test_two_tables_that_differ_are_refused_and_split_tables_beside_one_are_told(tmp_path: Path, run: Run) -> None:
    rows = pictures(tmp_path, "train")
    put(tmp_path / "labels.csv", csv(rows))
    put(tmp_path / "metadata.jsonl", "".join(json.dumps({"file_name": path, "class": label, "x": 1}) + "\n" for path, label in rows))
    put(tmp_path / "test.csv", csv(rows[:4]))
    assert "test.csv may say the splits, and is not read beside labels.csv" in run(tmp_path).said
    put(tmp_path / "metadata.jsonl", "".join(json.dumps({"file_name": path, "class": "cat"}) + "\n" for path, _ in rows))
    with pytest.raises(
        DataError, match=r"labels\.csv and metadata\.jsonl both give labels, and differ; keep one, or give it as the source"
    ):
        run(tmp_path)


@pytest.mark.parametrize("folder", ["jpg", "jpg of {}"])
@pytest.mark.parametrize("table", ["{}_list.txt", "{}.txt", "{}_labels.txt"])
def test_lists_of_paths_and_labels_are_read_as_caffe_and_paddleclas_write_them(tmp_path: Path, run: Run, folder: str, table: str) -> None:
    wanted = {}
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        below = folder.format(split)
        rows = [(f"{below}/{split}{path}", label) for path, label in pictures(tmp_path / "made" / split, split, count)]
        for (name, label), path in zip(rows, sorted((tmp_path / "made" / split).iterdir(), key=lambda path: int(path.stem)), strict=True):
            put(tmp_path / "data" / name, path.read_bytes())
            wanted[name] = (str(int(label == "dog")), {"val": "validation"}.get(split, split))
        separator = "\t" if split == "val" else " "
        put(tmp_path / "data" / table.format(split), "".join(f"{name}{separator}{wanted[name][0]}\r\n" for name, _ in rows))
    found = run(tmp_path / "data")
    splits: tuple[SplitName, ...] = ("train", "validation", "test")
    assert {name: (label, split) for split in splits for name, (label, _) in found.files(split).items()} == wanted


def test_a_text_that_is_no_list_is_left_alone_and_one_that_is_no_more_in_a_later_line_is_refused(tmp_path: Path, run: Run) -> None:
    data = tmp_path / "data"
    rows = pictures(data, "train")
    put(data / "labels.txt", "0 cat\n1 dog\n")
    put(data / "train.txt", "".join(f"{path} {label}\n" for path, label in rows))
    assert run(data).counts() == {"cat": 6, "dog": 6}
    assert run(data / "train.txt").counts() == {"cat": 6, "dog": 6}
    put(data / "train.txt", "0.png cat\n1.png 2.png\n")
    for source in (data, data / "train.txt"):
        with pytest.raises(DataError, match=r"^train\.txt line 2 is not a picture and its label, such as cats/1\.png 0; correct it"):
            run(source)
    with pytest.raises(DataError, match=r"^labels\.txt line 1 is not a picture and its label"):
        run(data / "labels.txt")


def test_the_separator_is_the_one_by_which_the_header_names_the_picture(tmp_path: Path, run: Run) -> None:
    rows = pictures(tmp_path / "data", "train")
    text = '"file";label;"size, in mm, of it"\n' + "".join(f"{path};{label};3\n" for path, label in rows)
    assert run(put(tmp_path / "data" / "labels.csv", text).parent).counts() == {"cat": 6, "dog": 6}
    assert run(put(tmp_path / "data" / "labels.csv", text.replace(";", "|")).parent).counts() == {"cat": 6, "dog": 6}
    put(tmp_path / "data" / "labels.csv", text.replace(";", ":").replace(chr(34), ""))
    with pytest.raises(DataError, match=r"found 12 pictures .*, and labels\.csv, where a table of labels has a column for the picture"):
        run(tmp_path / "data")


def test_paths_with_dots_and_double_slashes_are_tidied_and_those_that_lead_up_are_told(tmp_path: Path, run: Run) -> None:
    rows = pictures(tmp_path / "data" / "images", "train")
    odd = ("images//{}", "images/./{}", "./images/{}", "tables/../images/{}")
    put(tmp_path / "data" / "labels.csv", csv([(odd[k % 4].format(path), label) for k, (path, label) in enumerate(rows)]))
    assert run(tmp_path / "data").counts() == {"cat": 6, "dog": 6}
    table = put(tmp_path / "data" / "tables" / "labels.csv", csv([(f"../images/{path}", label) for path, label in rows]))
    with pytest.raises(
        DataError, match="it is not there; move the table to a folder that holds the pictures too, and write paths from there"
    ):
        run(table)
