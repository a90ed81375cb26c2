"""Parquet with encoded pictures, in the forms that writers give them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.classifier.errors import DataError
from tests.score import cases
from tests.score.conftest import Score

PICTURES = [cases.png(k) for k in range(8)]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def hugging_face(path: Path, rows: list[Any], **more: Any) -> Path:
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel"}}
    table = pa.table({"image": pa.array(rows, STRUCT), "label": pa.array(range(len(rows)), pa.int64()), **more})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), path)
    return path


ROWS = [{"bytes": picture, "path": f"{k}.png"} for k, picture in enumerate(PICTURES)]
ENCODINGS: dict[str, Any] = {
    "binary": pa.array(PICTURES, pa.binary()),
    "large": pa.array(PICTURES, pa.large_binary()),
    "view": pa.array(PICTURES, pa.binary_view()),
    "dictionary": pa.array(PICTURES, pa.binary()).dictionary_encode(),
    "struct": pa.array(ROWS, STRUCT),
    "large-struct": pa.array([{"bytes": p} for p in PICTURES], pa.struct([("bytes", pa.large_binary())])),
    "two-chunks": pa.chunked_array([pa.array(PICTURES[:3], pa.binary()), pa.array(PICTURES[3:], pa.binary())]),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("row_group", [1, 3, 100])
def test_every_encoding_gives_the_same_answers(score: Score, tmp_path: Path, encoding: str, row_group: int) -> None:
    path = write(tmp_path / "t.parquet", {"id": list(range(8)), "image": ENCODINGS[encoding]}, row_group_size=row_group)
    done, files = score(path, shards=3), score(cases.folder(tmp_path / "files", 8))
    assert [row["confidence"] for row in done.rows] == [row["confidence"] for row in files.rows]
    assert [(row["input"], row["index"]) for row in done.rows] == [("t.parquet", k) for k in range(8)]


def test_rows_without_a_picture_keep_their_place_and_say_why(score: Score, tmp_path: Path) -> None:
    rows = [ROWS[0], None, {"bytes": None, "path": "elsewhere.png"}, {"bytes": b"", "path": None}, {"bytes": PICTURES[4][:50]}, *ROWS[5:]]
    done = score(hugging_face(tmp_path / "nulls.parquet", rows))
    assert [row["label"] is None for row in done.rows] == [False, True, True, True, True, False, False, False]
    assert [row["confidence"] is None and row["needs_review"] is None for row in done.rows] == [row["label"] is None for row in done.rows]
    assert [done.errors["nulls.parquet", k].split(" (")[0] for k in (1, 2, 3, 4)] == [
        "the row holds no picture",
        "the row holds only a path",
        "the file is empty",
        "the picture is cut or damaged",
    ]


def test_no_rows_give_columns_and_no_rows(score: Score, tmp_path: Path) -> None:
    done = score(write(tmp_path / "none.parquet", {"image": pa.array([], pa.binary())}))
    assert done.rows == []
    assert pq.read_schema(done.output / "predictions.parquet").names[:4] == ["input", "index", "label", "confidence"]


def test_an_unclear_column_is_refused_and_all_are_listed(score: Score, tmp_path: Path) -> None:
    two = write(tmp_path / "two.parquet", {"left": PICTURES, "right": PICTURES[::-1], "id": list(range(8))})
    with pytest.raises(DataError, match=r"two\.parquet has 2 columns.*left \(binary\), right \(binary\), id \(int64\).*image_column"):
        score(two)
    assert score(two, image_column="right").labels == score(two, image_column="left").labels[::-1]
    with pytest.raises(DataError, match=r"no column 'middle'.*left"):
        score(two, image_column="middle")
    with pytest.raises(DataError, match=r"none\.parquet has no column.*id \(int64\), text \(string\)"):
        score(write(tmp_path / "none.parquet", {"id": [1], "text": ["x"]}))


def test_hugging_faces_declaration_settles_which_column(score: Score, tmp_path: Path) -> None:
    assert len(score(hugging_face(tmp_path / "hf.parquet", ROWS, hash=pa.array(PICTURES, pa.binary()))).rows) == 8


def test_a_cut_file_is_refused_by_name(score: Score, tmp_path: Path) -> None:
    data = write(tmp_path / "whole.parquet", {"image": PICTURES}).read_bytes()
    with pytest.raises(DataError, match=r"cut\.parquet is a cut or damaged Parquet"):
        score(cases.put(tmp_path / "cut.parquet", data[:-30]))
