"""A dataset on disk: what was written is read, in pieces or at once, and what does not belong together is refused."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.bundle import dataset
from components.bundle.dataset import SPLITS, Dataset, DatasetInfo
from components.classifier.errors import DataError

INFO = DatasetInfo(source="test", classes=["a", "b"], shape=(3, 4, 1), counts={}, seed=0)


def parts(seed: int = 0) -> dict[dataset.SplitName, tuple[np.ndarray, np.ndarray]]:
    chance = np.random.default_rng(seed)
    sizes = {"train": 7, "validation": 0, "test": 5}
    return {name: (chance.integers(0, 256, (sizes[name], 3, 4, 1), dtype=np.uint8), chance.integers(0, 2, sizes[name])) for name in SPLITS}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    content = parts()
    columns = {
        name: {"file": [f"{k}.png" for k in range(len(labels))], "lens": [None] * len(labels)} for name, (_, labels) in content.items()
    }
    info = dataset.write(tmp_path, INFO, content, columns)
    loaded = Dataset.load(tmp_path)
    assert loaded.info == info
    assert loaded.info.digest == dataset.digest(["a", "b"], (3, 4, 1), content)
    for name, (images, labels) in content.items():
        split = loaded.split(name)
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)
        assert not split.images.flags.writeable
        assert pq.read_table(split.columns_path)["file"].to_pylist() == columns[name]["file"]


def test_pieces_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dataset.write(tmp_path / "whole", INFO, parts())
    monkeypatch.setattr(dataset, "CHUNK_BYTES", 30)
    pieces = dataset.write(tmp_path / "pieces", INFO, parts())
    assert pieces.digest == whole.digest
    for name in SPLITS:
        assert (tmp_path / "whole" / name / "images.npy").read_bytes() == (tmp_path / "pieces" / name / "images.npy").read_bytes()


def test_the_digest_sees_pixels_labels_classes_shape_and_splits() -> None:
    content = parts()
    base = dataset.digest(["a", "b"], (3, 4, 1), content)
    images, labels = content["train"]
    changed = images.copy()
    changed[0, 0, 0, 0] ^= 1
    moved = {**content, "train": content["test"], "test": content["train"]}
    others = [
        dataset.digest(["b", "a"], (3, 4, 1), content),
        dataset.digest(["a", "b"], (4, 3, 1), content),
        dataset.digest(["a", "b"], (3, 4, 1), {**content, "train": (changed, labels)}),
        dataset.digest(["a", "b"], (3, 4, 1), {**content, "train": (images, 1 - labels)}),
        dataset.digest(["a", "b"], (3, 4, 1), moved),
    ]
    assert len({base, *others}) == 6


def test_a_second_write_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    columns = {name: {"file": ["x"] * len(labels)} for name, (_, labels) in parts().items()}
    dataset.write(tmp_path, INFO, parts(), columns)
    dataset.write(tmp_path, INFO, parts(1))
    assert Dataset.load(tmp_path).split("train").columns_path is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no complete dataset"),
        ("[]", "schema version None"),
        ('{"schema_version": 99}', "schema version 99, this release reads 1"),
        ('{"schema_version": 1}', "not of this release's form"),
        (json.dumps({"schema_version": 1, "shape": [1, 1, 1], "colour": 3}), "not of this release's form"),
    ],
)
def test_a_description_of_another_form_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=message):
        Dataset.load(tmp_path)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no complete dataset"):
        Dataset.load(tmp_path)
    dataset.write(tmp_path, INFO, parts())
    np.save(tmp_path / "train" / "labels.npy", np.zeros(3, np.int64))
    with pytest.raises(DataError, match="for 3 labels"):
        Dataset.load(tmp_path).split("train")
    (tmp_path / "test" / "images.npy").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        Dataset.load(tmp_path).split("test")
    np.save(tmp_path / "validation" / "images.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        Dataset.load(tmp_path).split("validation")
