"""Labels that do not come from folders: tables, webdataset, Parquet, NumPy's arrays."""

import csv
import io
import json
import os
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.bundle.dataset import SPLITS
from components.classifier.errors import DataError
from components.readers.table import read_table
from components.storage.memory import MemoryStore
from tests.ingest.cases import encode, files, folder, pixels, put, tar_of
from tests.ingest.conftest import Ingested, Run

PICTURES = {f"{name}_{k}.png": (name, encode(pixels(kind, k))) for kind, name in enumerate(("cat", "dog")) for k in range(6)}


def flat(root: Path, below: str = "") -> Path:
    """All pictures in one folder, so that no folder says what they are."""
    for name, (_, data) in PICTURES.items():
        put(root / below / name, data)
    return root


def table(path: str = "file", label: str = "label", separator: str = ",", below: str = "", **more: Any) -> str:
    """A CSV that names each picture; `more` are further columns: a function of the number of the row."""
    lines = [separator.join([path, label, *more])]
    for number, (name, (label_, _)) in enumerate(PICTURES.items()):
        lines.append(separator.join([f"{below}{name}", label_, *(value(number) for value in more.values())]))
    return "\n".join(lines) + "\n"


def columns(found: Ingested) -> dict[str, dict[str, Any]]:
    """columns.parquet of all splits, by file."""
    tables = [pq.read_table(found.dataset.split(name).columns_path).to_pylist() for name in SPLITS]
    return {row["file"]: row for rows in tables for row in rows}


def labels(found: Ingested) -> dict[str, str]:
    return {file.rpartition("/")[2].partition("#")[0]: label for file, (label, _) in found.files().items()}


WANTED = {name: label for name, (label, _) in PICTURES.items()}


@pytest.mark.parametrize(
    "written", ["cat_0", "cat_0.png", "Images/cat_0.PNG", "images\\cat_0.png", "C:\\data\\cat_0.png", "000cat_0", "images/cat%5F0.png"]
)
def test_a_path_that_may_mean_a_picture_that_is_there_is_told_so(tmp_path: Path, run: Run, written: str) -> None:
    text = table(below="images/").replace("images/cat_0.png", written)
    put(flat(tmp_path, "images") / "labels.csv", text)
    (entry,) = run(tmp_path).info.set_aside
    assert entry["file"] == written
    assert f"it is not there; is images/cat_0.png meant by {written}? Write paths from the table's folder" in entry["reason"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_table_in_the_folder_gives_the_labels(tmp_path: Path, run: Run, separator: str, encoding: str) -> None:
    put(flat(tmp_path, "images") / "labels.csv", table(separator=separator, below="images/").replace("\n", "\r\n").encode(encoding))
    assert labels(run(tmp_path)) == WANTED


@pytest.mark.parametrize("path", ["file", "path", "file_name", "filename", "image", "uri"])
@pytest.mark.parametrize("label", ["label", "class", "class_name", "class_id", "ClassId"])
def test_columns_are_known_by_their_usual_names(tmp_path: Path, run: Run, path: str, label: str) -> None:
    assert labels(run(put(flat(tmp_path) / "any name.csv", table(path, label)))) == WANTED


@pytest.mark.parametrize("unnamed", [lambda k: str(k), lambda k: str(k + 1), lambda k: str(97 * k), lambda _: "", lambda _: " "])
@pytest.mark.parametrize("last", [False, True])
def test_columns_without_a_name_that_are_empty_or_the_numbers_of_the_rows_are_left_out(
    tmp_path: Path, run: Run, unnamed: Any, last: bool
) -> None:
    """As pandas, R and spreadsheets write them."""
    lines = table().splitlines()
    fields = ["", *map(unnamed, range(len(lines) - 1))]
    text = "\n".join(f"{line},{field}" if last else f'"{field}",{line}' for line, field in zip(lines, fields, strict=True))
    assert labels(run(put(flat(tmp_path) / "labels.csv", f"{text}\n,,\n"))) == WANTED


@pytest.mark.parametrize("field", ["left", "1"])
def test_a_column_without_a_name_that_says_something_is_refused(tmp_path: Path, run: Run, field: str) -> None:
    lines = [f"{line},{field if k else ''}" for k, line in enumerate(table().splitlines())]
    with pytest.raises(DataError, match="each once and with a name"):
        run(put(flat(tmp_path) / "labels.csv", "\n".join(lines)))


def test_json_lines_give_labels_splits_and_groups(tmp_path: Path, run: Run) -> None:
    rows = [
        {"file": f"images/{name}", "label": label, "split": "test" if number % 3 == 0 else None, "group": number // 2, "note": "NA"}
        for number, (name, (label, _)) in enumerate(PICTURES.items())
    ]
    put(flat(tmp_path, "images") / "metadata.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    found = run(tmp_path)
    assert labels(found) == WANTED
    assert set(found.files("test")) == {f"images/{name}" for number, name in enumerate(PICTURES) if number % 3 == 0}
    assert columns(found)["images/cat_3.png"] == {"file": "images/cat_3.png", "group": "1", "note": "NA"}


def test_splits_and_groups_of_a_csv_come_into_the_dataset(tmp_path: Path, run: Run) -> None:
    split = ("train", "Val", "testing")
    text = table(split=lambda number: split[number % 3], patient=lambda number: f"p{number // 4}")
    found = run(put(flat(tmp_path) / "rows.csv", text))
    assert [found.total(name) for name in SPLITS] == [4, 4, 4]
    assert {row["patient"] for row in columns(found).values()} == {"p0", "p1", "p2"}
    with pytest.raises(DataError, match=r"rows\.csv puts cat_0\.png into split 'fold 1'; use train, validation or test"):
        run(put(tmp_path / "rows.csv", table(split=lambda number: "fold 1")))


def test_a_table_names_pictures_elsewhere_by_their_address(tmp_path: Path, run: Run) -> None:
    flat(tmp_path / "far away")
    store = MemoryStore.named("labels-table")
    for name, (_, data) in PICTURES.items():
        store.replace(f"pictures/{name}", data)
    by_path = put(tmp_path / "t" / "paths.csv", table(below=f"{tmp_path}/far away/"))
    by_uri = put(tmp_path / "t" / "uris.csv", table("uri", below="memory://labels-table/pictures/"))
    assert labels(run(by_path)) == labels(run(by_uri)) == WANTED
    assert run(by_path).info.digest == run(by_uri).info.digest
    store.replace("labels.csv", by_path.read_bytes())
    with pytest.raises(DataError, match=r"names the local file .* but does not lie on this machine"):
        run("memory://labels-table/labels.csv")
    store.replace("relative.csv", table(below="pictures/").encode())
    assert labels(run("memory://labels-table/relative.csv")) == WANTED


def test_an_address_in_a_table_that_is_no_file_is_named_and_never_opened(tmp_path: Path, run: Run) -> None:
    flat(tmp_path / "far")
    os.mkfifo(tmp_path / "far" / "pipe.png")
    with (tmp_path / "far" / "large.png").open("wb") as file:
        file.truncate(256 * 2**20 + 1)
    rows = "".join(f"{tmp_path}/far/{name},cat\n" for name in ("pipe.png", "large.png"))
    found = run(put(tmp_path / "t" / "paths.csv", table(below=f"{tmp_path}/far/") + rows))
    reasons = {Path(entry["file"]).name: entry["reason"] for entry in found.info.set_aside}
    assert reasons == {
        "pipe.png": "neither a file nor a folder, but a device, pipe or socket",
        "large.png": "the file has 268435457 bytes, more than the limit of 268435456",
    }


def test_a_column_called_file_does_not_hide_where_a_picture_came_from(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "set.parquet"
    rows = [{"image": data, "label": label, "file": f"original-{name}"} for name, (label, data) in PICTURES.items()]
    pq.write_table(pa.Table.from_pylist(rows), path)
    found = run(path)
    assert "column file is kept as source_file" in found.said
    assert {row["source_file"] for row in columns(found).values()} == {f"original-{name}" for name in PICTURES}
    assert all(origin.startswith("set.parquet") for origin in found.files())


def test_decomposed_names_in_tables_and_folders_find_each_other(tmp_path: Path, run: Run) -> None:
    """macOS writes names decomposed, most tables have them composed."""
    nfc, nfd = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    for name, (_, data) in PICTURES.items():
        put(tmp_path / "d" / f"{nfd}{name}", data)
    for written in (nfc, nfd):
        found = run(put(tmp_path / "d" / "rows.csv", table(below=written)))
        assert set(found.files()) == {f"{nfc}{name}" for name in PICTURES}
    found = run(put(tmp_path / "elsewhere.csv", table(below=f"{tmp_path}/d/{nfd}")))
    assert set(found.files()) == {f"{tmp_path}/d/{nfc}{name}" for name in PICTURES}


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=8).filter(lambda text: text == text.strip())


@given(st.dictionaries(TEXT, st.tuples(TEXT, TEXT), min_size=1, max_size=5), st.sampled_from([",", ";", "\t"]))
@settings(max_examples=100, deadline=None)
def test_any_text_comes_back_from_both_forms_of_a_table(rows: dict[str, tuple[str, str]], separator: str) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=separator).writerows([("file", "label", "note"), *((f"p/{name}", *row) for name, row in rows.items())])
    lines = "\n".join(json.dumps({"file": f"p/{name}", "label": label, "note": note}) for name, (label, note) in rows.items())
    wanted = {unicodedata.normalize("NFC", f"p/{name}"): {"label": label, "note": note} for name, (label, note) in rows.items()}
    if len(wanted) < len(rows):
        return  # two spellings of one name
    for name, text in (("t.csv", out.getvalue()), ("t.jsonl", lines)):
        found = read_table(name, text.encode())
        assert found is not None
        assert found.rows == wanted


def test_a_table_in_an_archive_and_in_a_store(tmp_path: Path, run: Run) -> None:
    content = {name: data for name, (_, data) in PICTURES.items()} | {"labels.csv": table().encode()}
    assert labels(run(tar_of(tmp_path / "a.tgz", content, "w:gz"))) == WANTED
    store = MemoryStore.named("table-in-store")
    for name, data in content.items():
        store.replace(f"data/{name}", data)
    assert labels(run("memory://table-in-store/data")) == WANTED


def test_beside_class_folders_a_table_adds_splits_and_must_agree(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", ["cat", "dog"])
    before = run(data).info
    names = [f"{label}/{label}_{k:03d}.png" for label in ("cat", "dog") for k in range(6)]
    put(data / "labels.csv", "file,label,site\n" + "".join(f"{n},{n.partition('/')[0]},s\n" for n in names[:-1]))
    found = run(data)
    assert found.info.digest == before.digest
    assert columns(found)[names[0]]["site"] == "s"
    put(data / "labels.csv", "file,label\n" + "".join(f"{n},{'dog' if n == names[2] else n.partition('/')[0]}\n" for n in names))
    with pytest.raises(DataError, match=r"labels\.csv calls cat/cat_002\.png 'dog', and it lies in folder 'cat' \(1 of 12 differ\)"):
        run(data)
    assert run(data / "labels.csv").counts() == {"cat": 5, "dog": 7}
    put(data / "labels.csv", "file,label\n" + "".join(f"{n},{'even' if k % 2 else 'odd'}\n" for k, n in enumerate(names)))
    found = run(data)
    assert found.info.classes == ["even", "odd"]
    assert "labels.csv gives the labels: they are not the names of the folders" in found.said


def test_a_csv_without_labels_stays_a_file_beside_the_pictures(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", ["cat", "dog"])
    before = run(data).info.digest
    put(data / "labels.csv", "id,name\n1,cat\n")
    put(data / "metadata.csv", "file,camera\ncat/cat_000.png,x\n")
    assert run(data).info.digest == before


def test_rows_that_cannot_be_used_are_named(tmp_path: Path, run: Run) -> None:
    text = table() + "gone.png,cat\nunlabelled.png,\n"
    put(flat(tmp_path) / "unlabelled.png", encode(pixels(0, 60)))
    put(tmp_path / "beside.png", encode(pixels(0, 61)))
    found = run(put(tmp_path / "labels.csv", text))
    assert {entry["file"]: entry["reason"] for entry in found.info.set_aside} == {
        "gone.png": "labels.csv names it, and it is not there",
        "unlabelled.png": "labels.csv gives it no label",
    }
    assert "labels.csv has no line for 2 pictures, which are not used: beside.png, unlabelled.png" in found.said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "has the columns a, b; it needs one for the picture"),
        ("file,camera\ncat_0.png,x\n", "none of labels; call it label"),
        ("file,label\ncat_0.png,cat\ncat_0.png,dog\n", r"line 3 says something else of cat_0\.png than a line before"),
        (
            "file,label\ncat_0.png,cat,x\n",
            "line 2 has 3 fields where the header has 2; put a value that holds a separator in double quotes",
        ),
        ("file,label\n,cat\n", "line 2 has no value in column 'file'"),
        ('file,label\n"cat_0.png,cat\n', "cannot be read as a table"),
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
            "is a git-lfs pointer, not the file itself; run `git lfs pull`",
        ),
    ],
)
def test_tables_of_another_form_are_refused_by_line(tmp_path: Path, run: Run, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"rows\.csv.*{message}"):
        run(put(flat(tmp_path) / "rows.csv", text))
    with pytest.raises(DataError, match=r"rows\.jsonl line 1 is not"):
        run(put(tmp_path / "rows.jsonl", "[1]\n"))
    with pytest.raises(DataError, match=r"rows\.jsonl line 1 is not JSON \('label' is there twice\)"):
        run(put(tmp_path / "rows.jsonl", '{"file": "cat_0.png", "label": "cat", "label": "dog"}\n'))


def test_a_second_column_of_labels_is_told(tmp_path: Path, run: Run) -> None:
    put(flat(tmp_path) / "labels.csv", table(**{"class": lambda number: str(number % 3)}))
    found = run(tmp_path)
    assert labels(found) == WANTED
    assert "labels.csv gives the labels in column label; class may hold some too, and is an attribute" in found.said


@pytest.mark.parametrize(
    "name", ["a.zip", "rows.parquet", "x/train-images-idx3-ubyte.gz", "x/arrays.npz", "x/train-000.tar", "x/rows.parquet"]
)
def test_a_pointer_in_place_of_a_container_is_called_one(tmp_path: Path, run: Run, name: str) -> None:
    path = put(tmp_path / name, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(DataError, match=rf"^{path.name} is a git-lfs pointer"):
        run(path.parent if "/" in name else path)


def samples(suffix: str = ".cls", **more: Any) -> dict[str, bytes]:
    """A webdataset: 000.png and 000.cls (or .json) beside it."""
    content: dict[str, bytes] = {}
    for number, (label, data) in enumerate(PICTURES.values()):
        mark = label if suffix == ".cls" else json.dumps({"label": label, **{key: value(number) for key, value in more.items()}})
        content |= {f"{number:03d}.png": data, f"{number:03d}{suffix}": mark.encode()}
    return content


@pytest.mark.parametrize("suffix", [".cls", ".json"])
@pytest.mark.parametrize("apart", [False, True])
def test_a_webdataset_has_its_labels_beside_the_pictures(tmp_path: Path, run: Run, suffix: str, apart: bool) -> None:
    content = samples(suffix)
    members = sorted(content.items(), key=lambda item: item[0].endswith(suffix)) if apart else list(content.items())
    if suffix == ".cls":  # Windows' editors put a byte order mark before the text
        members[-1] = (members[-1][0], b"\xef\xbb\xbf" + members[-1][1])
    found = run(tar_of(tmp_path / "a.tar", members))
    assert {file: label for file, (label, _) in found.files().items()} == {
        f"{number:03d}.png": label for number, label in enumerate(WANTED.values())
    }


def test_of_two_labels_cls_counts_and_several_pictures_of_a_sample_are_told(tmp_path: Path, run: Run) -> None:
    extra = {f"{number:03d}.json": b'{"width": 16}' for number in range(len(PICTURES))}
    found = run(tar_of(tmp_path / "a.tar", samples() | extra))
    assert found.counts() == {"cat": 6, "dog": 6}
    assert "passed over 12 files without a picture, such as 000.json: .json (12)" in found.said
    views = {"000.left.png": encode(pixels(0, 100)), "001.left.png": encode(pixels(0, 101))}
    found = run(tar_of(tmp_path / "b.tar", samples() | views))
    assert found.counts() == {"cat": 8, "dog": 6}
    assert "2 samples with several pictures, each of which counts by itself" in found.said


def test_shards_of_a_webdataset_are_one_source_with_its_splits(tmp_path: Path, run: Run) -> None:
    content = list(samples(".json", group=lambda number: number // 2).items())
    test = [(name, data) for name, data in content if int(name[:3]) % 3 == 0]
    train = [(name, data) for name, data in content if int(name[:3]) % 3]
    tar_of(tmp_path / "data" / "train-0.tar", train[:8])
    tar_of(tmp_path / "data" / "train-1.tgz", train[8:], "w:gz")
    tar_of(tmp_path / "data" / "test-0.tar", test)
    found = run(tmp_path / "data")
    assert set(found.files("test")) == {f"test-0.tar/{k:03d}.png" for k in (0, 3, 6, 9)}
    assert columns(found)["test-0.tar/003.png"]["group"] == "1"
    store = MemoryStore.named("shards")
    for path in (tmp_path / "data").iterdir():
        store.replace(f"data/{path.name}", path.read_bytes())
    assert run("memory://shards/data").info.digest == found.info.digest


def test_a_cut_shard_of_a_webdataset_is_named_and_the_others_are_used(tmp_path: Path, run: Run) -> None:
    content = list(samples().items())
    tar_of(tmp_path / "data" / "a.tar", content)
    whole = tar_of(tmp_path / "data" / "b.tar", [(f"9{name}", data + bytes(2000) * name.endswith("png")) for name, data in content])
    put(whole, whole.read_bytes()[:9000])
    found = run(tmp_path / "data", max_duplicates=100)
    assert {name for name in found.files() if name.startswith("a.tar/")} == {f"a.tar/{name}" for name, _ in content if "png" in name}
    assert re.search(r"warning: set aside b\.tar(/9\d+\.png)?: archive b\.tar is cut (within|after) ", found.said)


def test_pictures_of_a_webdataset_without_a_label_are_named(tmp_path: Path, run: Run) -> None:
    content = samples() | {"099.png": encode(pixels(0, 99))}
    assert "set aside 099.png: no label (.cls or .json) of its name is beside it" in run(tar_of(tmp_path / "a.tar", content)).said
    with pytest.raises(DataError, match=r"099\.cls is not one label"):
        run(tar_of(tmp_path / "b.tar", content | {"099.cls": b""}))
    with pytest.raises(DataError, match="archives without labels"):
        run(tar_of(tmp_path / "c" / "a.tar", {"cat/1.png": content["099.png"]}).parent)


def test_json_beside_pictures_in_class_folders_are_no_labels(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", ["cat", "dog"])
    for path in sorted(data.rglob("*.png")):
        put(path.with_suffix(".json"), json.dumps({"label": "other"}))
    assert run(data).counts() == {"cat": 6, "dog": 6}


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def parquet(path: Path, rows: list[tuple[str, bytes | None]], form: str = "bytes", **more: Any) -> Path:
    data = [picture for _, picture in rows]
    image = pa.array(data, pa.binary()) if form == "bytes" else pa.array([{"bytes": d, "path": None} for d in data], STRUCT)
    path.parent.mkdir(parents=True, exist_ok=True)
    names = sorted({label for label, _ in rows})
    whole = pa.table({"image": image, "label": [names.index(label) if form == "hugging face" else label for label, _ in rows], **more})
    if form == "hugging face":
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        whole = whole.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(whole, path, row_group_size=5)
    return path


@pytest.mark.parametrize("form", ["bytes", "struct", "hugging face"])
def test_parquet_with_a_column_of_labels(tmp_path: Path, run: Run, form: str) -> None:
    path = parquet(tmp_path / "data" / "rows.parquet", list(PICTURES.values()), form, patient=[f"p{k // 3}" for k in range(12)])
    found = run(path)
    assert {file: label for file, (label, _) in found.files().items()} == {
        f"rows.parquet#{k}": label for k, label in enumerate(WANTED.values())
    }
    assert columns(found)["rows.parquet#7"]["patient"] == "p2"
    assert run(path.parent).info.digest == found.info.digest


def test_parquet_files_of_a_folder_give_the_splits(tmp_path: Path, run: Run) -> None:
    rows = list(PICTURES.values())
    parquet(tmp_path / "data" / "train-00000-of-00001.parquet", rows[:4] + rows[6:10])
    parquet(tmp_path / "data" / "test-00000-of-00001.parquet", rows[4:6] + rows[10:])
    assert set(run(tmp_path).files("test")) == {f"data/test-00000-of-00001.parquet#{k}" for k in range(4)}


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_files_of_which_only_some_name_a_split_are_refused(tmp_path: Path, run: Run, kind: str) -> None:
    for split, rows in (("train", slice(0, 6)), ("eval", slice(6, 12))):
        if kind == "parquet":
            parquet(tmp_path / "data" / f"{split}.parquet", list(PICTURES.values())[rows])
        else:
            tar_of(tmp_path / "data" / f"{split}.tar", list(samples().items())[2 * rows.start : 2 * rows.stop])
    with pytest.raises(DataError, match=rf"^eval\.{kind} names no split, but train\.{kind} does; name all files train-…, val-… or test-…"):
        run(tmp_path / "data")


def test_words_in_the_names_of_files_that_only_hold_a_split_s_name_are_no_splits(tmp_path: Path, run: Run) -> None:
    rows = list(PICTURES.values())
    for k, name in enumerate(("medieval", "latest", "strains", "values", "intestine", "trainer")):
        parquet(tmp_path / "data" / f"{name}.parquet", rows[k::6])
    several, one = (run(source).files("test") for source in (tmp_path / "data", parquet(tmp_path / "all.parquet", rows)))
    assert {picture.tobytes() for _, picture in several.values()} == {picture.tobytes() for _, picture in one.values()}


def test_labels_of_parquet_are_found_in_any_case_and_whole_numbers_beside_empty_cells_are_whole(tmp_path: Path, run: Run) -> None:
    pictures = [data for _, data in PICTURES.values()]
    numbers = [float(label == "dog") for label in WANTED.values()]
    pq.write_table(pa.table({"Image": [*pictures, pictures[0]], "Label": [*numbers, None]}), tmp_path / "rows.parquet")
    found = run(tmp_path / "rows.parquet")
    assert found.counts() == {"0": 6, "1": 6}
    assert [entry["reason"] for entry in found.info.set_aside] == ["the row has no label"]
    pq.write_table(pa.table({"image": pictures, "label": WANTED.values(), "class_id": range(12)}), tmp_path / "rows.parquet")
    assert "note: rows.parquet: class_id may hold labels too, and is an attribute" in run(tmp_path / "rows.parquet").lines
    pq.write_table(pa.table({"image": pictures, "label": np.linspace(0, 1, 12)}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet holds label 0\.09090909090909091; labels are text or whole numbers"):
        run(tmp_path / "rows.parquet")


def test_a_number_that_is_not_there_is_no_group(tmp_path: Path, run: Run) -> None:
    patients = [float(k // 2) if k % 6 < 4 else float("nan") for k in range(len(PICTURES))]
    found = run(parquet(tmp_path / "rows.parquet", list(PICTURES.values()), patient=patients), group_column="patient")
    assert "4 pictures have no value in column patient: each is a group of its own" in found.said


def test_rows_of_parquet_that_cannot_be_used_are_named(tmp_path: Path, run: Run) -> None:
    rows = [*PICTURES.values(), ("cat", None), ("dog", b"text")]
    found = run(parquet(tmp_path / "rows.parquet", rows))
    assert {entry["file"]: entry["reason"].split(" (")[0] for entry in found.info.set_aside} == {
        "rows.parquet#12": "the row holds no picture",
        "rows.parquet#13": "the content is not a picture in a known format",
    }
    pq.write_table(pa.table({"image": [data for _, data in PICTURES.values()]}), tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"none\.parquet has no column of labels .*image \(binary\)"):
        run(tmp_path / "none.parquet")


def stacked(channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    pictures = np.stack([pixels(kind, k, channels=channels) for kind in range(2) for k in range(6)])
    return pictures, np.repeat(np.array(["cat", "dog"]), 6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["uint8", "int64", "float32"])
def test_arrays_of_numpy_with_their_labels(tmp_path: Path, run: Run, channels: int, kind: str) -> None:
    pictures, names = stacked(channels)
    np.save(tmp_path / "images.npy", pictures.astype(kind))
    np.save(tmp_path / "labels.npy", names)
    found = run(tmp_path)
    assert found.counts() == {"cat": 6, "dog": 6}
    assert found.info.shape == (16, 16, channels)
    np.testing.assert_array_equal(found.files()["images.npy#7"][1].squeeze(), pictures[7])


def test_arrays_with_splits_and_numbers_as_labels(tmp_path: Path, run: Run) -> None:
    pictures, names = stacked()
    marks = (names == "dog").astype(np.int32)[:, None]
    for split, rows in {"train": slice(0, 12, 3), "test": slice(1, 12, 3)}.items():
        np.save(tmp_path / f"x_{split}.npy", pictures[rows])
        np.save(tmp_path / f"y_{split}.npy", marks[rows])
    found = run(tmp_path)
    assert found.info.classes == ["0", "1"]
    assert set(found.files("test")) == {f"x_test.npy#{k}" for k in range(4)}


def test_labels_of_numpy_that_are_bytes_are_text(tmp_path: Path, run: Run) -> None:
    pictures, names = stacked()
    np.save(tmp_path / "images.npy", pictures)
    np.save(tmp_path / "labels.npy", names.astype("S"))
    assert run(tmp_path).counts() == {"cat": 6, "dog": 6}


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("images.npy", lambda p: p / 255, r"images\.npy.*whole numbers from 0 to 255"),
        ("images.npy", lambda p: (p > 100).astype(np.uint8), r"images\.npy holds no value above 1"),
        ("images.npy", lambda p: p.transpose(0, 3, 1, 2), r"images\.npy has shape .*transpose\(0, 2, 3, 1\)"),
        ("images.npy", lambda p: p[:-1], "holds 11 pictures and labels.npy 12 labels"),
        ("extra.npy", lambda p: p.reshape(12, -1), r"extra\.npy has shape .* neither pictures .* nor labels"),
        ("labels.npy", lambda p: np.linspace(0, 1, 12), "float64 values; labels are whole numbers"),
        ("labels.npy", lambda p: np.array(["cat", " "] * 6), r"labels\.npy has no label at place 1 \(6 in all\)"),
        ("labels.npy", lambda p: np.array([0, 2**64 - 1] * 6, np.uint64), r"18446744073709551615 at place 1; labels are 0 to 2\*\*63 - 1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(tmp_path: Path, run: Run, name: str, array: Any, message: str) -> None:
    pictures, names = stacked()
    np.save(tmp_path / "images.npy", pictures)
    np.save(tmp_path / "labels.npy", names)
    np.save(tmp_path / name, array(pictures))
    with pytest.raises(DataError, match=message):
        run(tmp_path)


@pytest.mark.parametrize("beginning", ["/home/alice/pets/", "C:\\Users\\alice\\pets\\", "D:/pets/", "\\\\server\\share\\pets\\"])
@pytest.mark.parametrize("kind", ["the source", "in a folder", "in a tar"])
def test_paths_of_another_machine_are_read_where_all_are_there_without_their_beginning(
    tmp_path: Path, run: Run, beginning: str, kind: str
) -> None:
    data = flat(tmp_path / "data", "images")
    written = put(data / "labels.csv", table(below=f"{beginning}images{'/' if '/' in beginning else chr(92)}"))
    source = {"the source": written, "in a folder": data, "in a tar": tar_of(tmp_path / "pets.tar", files(data))}[kind]
    found = run(source)
    assert labels(found) == WANTED
    assert f"note: labels.csv has paths of another machine, whose beginning is left out: {beginning}images" in found.said


@pytest.mark.parametrize(("below", "beginning"), [("", "/home/alice/train/"), ("test/", "/data/train/"), ("", "/data/gone/")])
def test_paths_of_another_machine_are_refused_where_a_picture_is_not_there_or_they_speak_of_another_split(
    tmp_path: Path, run: Run, below: str, beginning: str
) -> None:
    data = flat(tmp_path, below)
    if "gone" in beginning:
        (data / "cat_0.png").unlink()
    with pytest.raises(DataError, match=r"labels.csv has paths of another machine \(.*cat_0.png\), none of which is there; write paths"):
        run(put(data / below / "labels.csv", table(below=beginning)))


def test_absolute_paths_of_this_machine_are_taken_as_they_are(tmp_path: Path, run: Run) -> None:
    flat(tmp_path / "elsewhere")
    flat(tmp_path / "data")
    text = table(below=f"{tmp_path}/elsewhere/").replace("elsewhere/cat_0.png", "elsewhere/gone.png")
    found = run(put(tmp_path / "data" / "labels.csv", text))
    (entry,) = found.info.set_aside
    assert entry == {"file": f"{tmp_path}/elsewhere/gone.png", "reason": "cannot be read (No such file or directory)"}
    assert "another machine" not in found.said


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_pictures_of_the_web_are_refused_by_name(tmp_path: Path, run: Run, scheme: str) -> None:
    text = table(below=f"{scheme}://example.invalid/")
    with pytest.raises(DataError, match=rf"labels.csv names {scheme}://example.invalid/cat_0.png: .* download them, and write paths"):
        run(put(tmp_path / "data" / "labels.csv", text))
