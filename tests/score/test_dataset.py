"""The rows as a dataset of several files, read alike by what users read Parquet with."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from components.classifier.errors import IntegrityError, UsageError
from components.score import rows
from components.score.merge import merge
from components.score.output import Output
from components.score.shard import score_shard
from components.settings.scoring import ScoringSettings
from tests import tiny
from tests.score import cases
from tests.score.conftest import Model, Score, plan_of, publish

Rows = list[tuple[str, int, str | None]]
COLUMNS = ["input", "index", "label"]
BY_LABEL = ds.partitioning(pa.schema([("label", pa.string())]), flavor="hive")


def by_pandas(folder: str) -> pa.Table:
    """Without a type, pandas reads the directories as categories, and cannot join those with none, which dead letters have."""
    partitioned = any(Path(folder).glob("label=*"))
    frame = pd.read_parquet(folder, **({"partitioning": BY_LABEL} if partitioned else {}))
    return pa.Table.from_pandas(frame[COLUMNS], preserve_index=False)


def by_duckdb(folder: str) -> pa.Table:
    query = f"select input, index, label from read_parquet('{folder}/**/*.parquet', hive_partitioning = true)"
    return duckdb.connect().sql(query).to_arrow_table()


READERS: dict[str, Callable[[str], pa.Table]] = {
    "pyarrow": lambda folder: ds.dataset(folder, format="parquet", partitioning="hive").to_table(columns=COLUMNS),
    "pandas": by_pandas,
    "polars": lambda folder: pl.scan_parquet(folder, hive_partitioning=True).select(COLUMNS).collect().to_arrow(),
    "duckdb": by_duckdb,
}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of 8 rows, and a part for each of them."""
    monkeypatch.setattr(rows, "GROUP_ROWS", 8)
    monkeypatch.setattr(rows, "PART_BYTES", 200)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    cases.put(cases.folder(tmp_path / "in", 40) / "cut.png", cases.png(0)[:40])
    cases.put(tmp_path / "in" / "notes.txt", b"x")
    return tmp_path / "in"


def rows_of(table: pa.Table) -> Rows:
    """Rows by their names; a class called 7 may come back as a number from a directory's name."""
    found = [(row["input"], row["index"], None if row["label"] is None else str(row["label"])) for row in table.to_pylist()]
    return sorted(found, key=lambda row: row[:2])


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("partition_by", ["", "label"])
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_sees_each_row_once_and_nothing_else(reader: str, partition_by: str, score: Score, pictures: Path) -> None:
    one = score(pictures, layout="file")
    many = score(pictures, layout="dataset", partition_by=partition_by)
    expected = [(row["input"], row["index"], row["label"]) for row in one.rows]
    assert len(list((many.output / "predictions").rglob("*.parquet"))) > 3
    assert rows_of(READERS[reader](str(many.output / "predictions"))) == sorted(expected, key=lambda row: row[:2])
    assert len(expected) == 41


@pytest.mark.usefixtures("small_parts")
def test_parts_hold_the_rows_in_order_and_the_manifest_names_them(score: Score, pictures: Path) -> None:
    one, many = score(pictures, layout="file", probabilities=True), score(pictures, probabilities=True, shards=3)
    manifest = json.loads((many.output / "manifest.json").read_text())
    names = list(manifest["rows"])
    assert names == [f"predictions/part-{number:05d}.parquet" for number in range(len(names))]
    assert {*names, "_passed_over/passed_over.parquet"} == set(manifest["files"])
    tables = [pq.read_table(many.output / name) for name in names]
    assert [len(table) for table in tables] == list(manifest["rows"].values())
    assert pa.concat_tables(tables).to_pylist() == one.rows
    assert {json.dumps(json.loads(table.schema.metadata[b"penstock.classes"])) for table in tables} == {json.dumps(tiny.CLASSES)}
    assert not (many.output / "predictions.parquet").exists()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("settings", [{"layout": "file"}, {"layout": "dataset"}, {"partition_by": "label"}], ids=str)
def test_merging_moves_no_rows_whichever_shard_ends_last(
    settings: dict[str, Any], model: Model, score: Score, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = score(pictures, **settings)
    plan = plan_of(model, tmp_path / "plan", pictures, tmp_path / "output", 3, **settings)
    results = [score_shard(plan, shard).to_json() for shard in ("2", "0", "1")]
    assembled = {path.stat().st_ino for path in (tmp_path / "output" / "_assembled").rglob("rows/**/*.parquet")}
    monkeypatch.setattr(Output, "get_piece", None)
    summary = merge(plan, results, tmp_path / "merged")
    assert {path.stat().st_ino for path in (tmp_path / "output").glob("predictions*/**/*.parquet")} <= assembled
    assert files_of(tmp_path / "output") == files_of(expected.output)
    assert {path.name for path in (tmp_path / "output").iterdir() if path.name.startswith("_")} == {"_passed_over"}
    unlike = {"output": "", "seconds": 0, "images_per_second": 0, "shards": 0}
    assert replace(summary, **unlike) == replace(expected.summary, **unlike)
    assert not [name for name in files_of(tmp_path / "merged") if name.startswith("predictions/")], (
        "the rows of a dataset stay in the output"
    )


@pytest.mark.usefixtures("small_parts")
def test_counts_of_many_parts_are_those_of_one(score: Score, pictures: Path) -> None:
    one, many = score(pictures, layout="file").summary, score(pictures, layout="dataset").summary
    unlike = {"output": "", "seconds": 0, "images_per_second": 0}
    assert replace(one, **unlike) == replace(many, **unlike)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.parquet")}


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("partition_by", ["", "needs_review"])
def test_the_bytes_of_parts_depend_on_no_number_of_shards_or_threads(partition_by: str, score: Score, pictures: Path) -> None:
    once, again = (score(pictures, layout="dataset", partition_by=partition_by, shards=n, workers=n) for n in (1, 4))
    bytes_of = [
        {p.relative_to(done.output): p.read_bytes() for p in (done.output / "predictions").rglob("*.parquet")} for done in (once, again)
    ]
    assert bytes_of[0] == bytes_of[1]


def test_directories_are_named_as_hive_does_and_leave_the_column_out(score: Score, pictures: Path) -> None:
    done = score(pictures, partition_by="label")
    folders = {path.name for path in (done.output / "predictions").iterdir()}
    assert "label=__HIVE_DEFAULT_PARTITION__" in folders, "dead letters have no label"
    assert folders - {"label=__HIVE_DEFAULT_PARTITION__"} == {f"label={name}" for name, count in done.summary.classes.items() if count}
    for path in (done.output / "predictions").rglob("*.parquet"):
        assert "label" not in pq.ParquetFile(path).schema_arrow.names
        names = pq.read_table(path, partitioning=None)["input"].to_pylist()
        assert names == sorted(names)


def test_a_small_output_stays_one_file_beside_which_no_pattern_catches_anything_else(score: Score, pictures: Path) -> None:
    done = score(pictures)
    assert [path.name for path in done.output.glob("*.parquet")] == ["predictions.parquet"]
    assert duckdb.connect().execute(f"select count(*) from '{done.output}/*.parquet'").fetchone() == (41,)
    assert done.passed_over == {"notes.txt": "neither its content nor its name is a picture's"}


@pytest.mark.usefixtures("small_parts")
def test_another_layout_replaces_the_one_that_was_there(score: Score, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    for name in ("passed_over.parquet", "incomplete.parquet"):
        cases.put(output / name, b"of an earlier release")
    score(pictures, output=output)
    assert (output / "predictions" / "part-00003.parquet").exists()
    score(pictures, output=output, layout="file")
    found = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert found == {"predictions.parquet", "_passed_over/passed_over.parquet", "summary.json", "manifest.json"}
    score(pictures, output=output, partition_by="label")
    assert not (output / "predictions.parquet").exists()
    assert not (output / "predictions" / "part-00000.parquet").exists()


@pytest.mark.usefixtures("small_parts")
def test_a_finished_dataset_is_found_again_and_a_changed_part_is_refused(score: Score, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    first = score(pictures, output=output).summary
    before = (output / "summary.json").read_bytes()
    assert score(pictures, output=output).summary == first
    assert (output / "summary.json").read_bytes() == before
    with (output / "predictions" / "part-00001.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(IntegrityError, match=r"predictions/part-00001\.parquet in .* was changed"):
        score(pictures, output=output)


def test_one_file_cannot_have_directories() -> None:
    with pytest.raises(UsageError, match="partition_by writes a dataset"):
        ScoringSettings(layout="file", partition_by="label")
    with pytest.raises(UsageError, match="unknown partition_by 'input'"):
        ScoringSettings(partition_by="input")  # type: ignore[arg-type]


def test_an_output_of_an_earlier_release_is_found_complete(score: Score, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    first = score(pictures, output=output).summary
    (output / "_passed_over" / "passed_over.parquet").rename(output / "passed_over.parquet")
    manifest = json.loads((output / "manifest.json").read_text())
    del manifest["rows"]
    manifest["files"]["passed_over.parquet"] = manifest["files"].pop("_passed_over/passed_over.parquet")
    (output / "manifest.json").write_text(json.dumps(manifest))
    before = (output / "predictions.parquet").stat().st_mtime_ns
    assert score(pictures, output=output).summary == first
    assert (output / "predictions.parquet").stat().st_mtime_ns == before


def test_a_table_that_names_the_pictures_beside_it_is_passed_over(score: Score, pictures: Path) -> None:
    pq.write_table(pa.table({"file_name": ["0.png"], "label": ["0"]}), pictures / "metadata.parquet")
    done = score(pictures)
    assert len(done.rows) == 41
    assert done.passed_over["metadata.parquet"] == "a table that names pictures, and holds none"


def test_a_class_that_would_read_as_no_label_is_refused(score: Score, pictures: Path, tmp_path: Path) -> None:
    classes = ["__HIVE_DEFAULT_PARTITION__", *map(str, range(1, 10))]
    named = publish(tiny.write_bundle(tmp_path / "bundle", samples=200, classes=classes), str(tmp_path / "store"))
    with pytest.raises(UsageError, match=r"^class __HIVE_DEFAULT_PARTITION__ is what no label is called .* leave partition_by out$"):
        score(pictures, using=named, partition_by="label")
    assert "__HIVE_DEFAULT_PARTITION__" in score(pictures, using=named).labels
