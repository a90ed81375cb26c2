"""Folders that Hugging Face's `datasets` saved to disk, as version 5.2 writes them: read as they are, or refused by name."""

import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest

from components.classifier.errors import DataError
from tests.ingest.cases import encode, pixels, put
from tests.ingest.conftest import Run
from tests.score.conftest import Score, score
from tests.score.conftest import model as model

__all__ = ["score"]
CLASSES = ["ant", "bee"]
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": CLASSES, "_type": "ClassLabel"},
    "patient": {"dtype": "string", "_type": "Value"},
}
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SCHEMA = pa.schema(
    [("image", STRUCT), ("label", pa.int64()), ("patient", pa.string())],
    metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
)


def rows(seeds: Iterable[int]) -> pa.RecordBatch:
    """One row a seed: class seed % 2."""
    found = [
        {"image": {"bytes": encode(pixels(k % 2, k, (8, 8))), "path": None}, "label": k % 2, "patient": f"p{k}"} for k in seeds
    ]  # fmt: skip
    return pa.RecordBatch.from_pylist(found, schema=SCHEMA)


def save(folder: Path, *shards: Iterable[int]) -> Path:
    """One split, of so many files with two batches each."""
    names = [f"data-{k:05}-of-{len(shards):05}.arrow" for k in range(len(shards))]
    for name, seeds in zip(names, shards, strict=True):
        batch, path = rows(seeds), put(folder / name)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as writer:
            writer.write_batch(batch[: len(batch) // 2])
            writer.write_batch(batch[len(batch) // 2 :])
    put(folder / "state.json", json.dumps({"_data_files": [{"filename": name} for name in names], "_format_type": None, "_split": None}))
    put(folder / "dataset_info.json", json.dumps({"features": FEATURES}))
    return folder


def save_splits(root: Path, **splits: list[Iterable[int]]) -> Path:
    for name, shards in splits.items():
        save(root / name, *shards)
    put(root / "dataset_dict.json", json.dumps({"splits": list(splits)}))
    return root


def test_a_dataset_is_read_with_its_class_names_and_columns_and_its_caches_are_left_alone(tmp_path: Path, run: Run, score: Score) -> None:
    data = save(tmp_path / "data", range(9), range(9, 20))
    put(data / "cache-4155163fd8729b57.arrow", (data / "data-00000-of-00002.arrow").read_bytes())
    ran = run(data)
    assert ran.counts() == {"ant": 10, "bee": 10}
    names = [f"data-00000-of-00002.arrow#{k}" for k in range(9)] + [f"data-00001-of-00002.arrow#{k}" for k in range(11)]
    files = ran.files()
    assert set(files) == set(names)
    for seed, name in enumerate(names):
        assert files[name][0] == CLASSES[seed % 2]
        assert files[name][1].tolist() == pixels(seed % 2, seed, (8, 8)).tolist()
    scored = score(data)
    assert [f"{row['input']}#{row['index']}" for row in scored.rows] == names
    assert "cache-4155163fd8729b57.arrow" in scored.passed_over


def test_the_splits_are_those_of_the_dictionary(tmp_path: Path, run: Run) -> None:
    ran = run(save_splits(tmp_path / "data", train=[range(12)], validation=[range(20, 24)], test=[range(30, 33), range(40, 43)]))
    assert [ran.total(split) for split in ("train", "validation", "test")] == [12, 4, 6]
    assert {name.partition("/")[0] for name in ran.files("test")} == {"test"}


def test_one_file_is_read_too_as_a_stream_or_a_feather_file(tmp_path: Path, run: Run, score: Score) -> None:
    stream = save(tmp_path / "data", range(12)) / "data-00000-of-00001.arrow"
    with pa.OSFile(str(tmp_path / "rows.feather"), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        writer.write_batch(rows(range(7)))
        writer.write_batch(rows(range(7, 12)))
    for path in (stream, tmp_path / "rows.feather"):
        assert run(path).counts() == {"ant": 6, "bee": 6}
        assert len(score(path).rows) == 12


def test_what_is_not_whole_is_refused_by_name(tmp_path: Path, run: Run) -> None:
    data = save(tmp_path / "lost", range(8), range(8, 16))
    (data / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match=r"state\.json names data-00001-of-00002\.arrow, which is not there; copy the folder again"):
        run(data)
    data = save_splits(tmp_path / "split", train=[range(8)], test=[range(8, 16)])
    (data / "test" / "state.json").unlink()
    with pytest.raises(DataError, match=r"test/state\.json is not there"):
        run(data)
    with pytest.raises(DataError, match="names split 'extra'; save the splits train, validation and test, each once"):
        run(save_splits(tmp_path / "extra", train=[range(8)], extra=[range(8, 16)]))
    with pytest.raises(DataError, match="names no split train; save it too"):
        run(save_splits(tmp_path / "test", test=[range(8)]))
    two = save(tmp_path / "two" / "a", range(8)).parent
    save(two / "b", range(8, 16))
    with pytest.raises(DataError, match=r"holds several saved datasets \(a/state\.json, b/state\.json\); give the folder of one"):
        run(two)
    data = save(tmp_path / "ordered", range(8))
    put(
        data / "state.json", json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_indices_files": [{"filename": "i"}]})
    )
    with pytest.raises(DataError, match=r"an order of their own; load it, and save dataset\.flatten_indices\(\) again"):
        run(data)
    file = save(tmp_path / "cut", range(8)) / "data-00000-of-00001.arrow"
    whole = file.read_bytes()
    for cut in (8, 300):  # without its end mark, and within its last batch
        file.write_bytes(whole[:-cut])
        with pytest.raises(DataError, match=r"is a cut or damaged Arrow file \(its end mark is missing\)"):
            run(file.parent)
    put(file.parent / "state.json", "{")
    with pytest.raises(DataError, match=r"state\.json cannot be read as JSON"):
        run(file.parent)
