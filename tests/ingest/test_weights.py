"""Weights of training pictures: named by a setting, checked, and used by nothing but training's loss."""

import json
from pathlib import Path

import numpy as np
import pytest

from components.bundle.model import Classifier
from components.classifier.errors import DataError
from components.ingest.ingest import ingest
from components.settings.ingest import IngestSettings
from components.settings.training import TrainingSettings
from components.train.training import train
from tests.ingest.cases import encode, folder, pixels, put
from tests.ingest.conftest import Run


def weighted(root: Path, weights: dict[str, str]) -> Path:
    """Cats and dogs with columns.csv; pictures that it does not name have no weight."""
    folder(root, {"cat": 8, "dog": 8})
    return put(root / "columns.csv", "file,weight\n" + "".join(f"{name},{weight}\n" for name, weight in weights.items())).parent


def test_the_column_is_checked_and_its_values_lie_beside_the_pictures(tmp_path: Path, run: Run) -> None:
    data = weighted(tmp_path / "data", {"cat/cat_000.png": "0.5", "cat/cat_001.png": "3", "dog/dog_000.png": "0"})
    ran = run(data, weight_column="weight")
    assert ran.info.weight == "weight"
    assert ran.check("weights")["detail"] == (
        "training pictures count 0 to 1 by column weight; 8 pictures without a value count 1; metrics count each picture once"
    )
    found: dict[str, float] = {}
    for split in ("train", "validation", "test"):
        weights = ran.dataset.split(split).weights("weight")  # type: ignore[arg-type]
        assert weights is not None
        found |= dict(zip(ran.files(split), weights.tolist(), strict=True))  # type: ignore[arg-type]
    assert {name: found[name] for name in ("cat/cat_000.png", "cat/cat_001.png", "dog/dog_000.png", "dog/dog_001.png")} == {
        "cat/cat_000.png": 0.5, "cat/cat_001.png": 3, "dog/dog_000.png": 0, "dog/dog_001.png": 1,
    }  # fmt: skip


def test_a_column_that_is_called_weight_is_not_used_unasked_and_that_is_told(tmp_path: Path, run: Run) -> None:
    ran = run(weighted(tmp_path / "data", {"cat/cat_000.png": "12.5 kg"}))
    assert ran.info.weight == ""
    assert "warning: weights: column weight is not used in training; if it is a picture's weight in the loss, set weight_column" in ran.said
    assert ran.dataset.split("train").weights("") is None


@pytest.mark.parametrize(
    ("weights", "column", "told"),
    [
        ({"cat/cat_000.png": "-1"}, "weight", r"cat/cat_000\.png has '-1' in column weight; a weight is a number of 0 or more"),
        ({"cat/cat_000.png": "nan"}, "weight", "has 'nan' in column weight"),
        ({"cat/cat_000.png": "heavy"}, "weight", "has 'heavy' in column weight"),
        ({f"cat/cat_{k:03d}.png": "0" for k in range(8)}, "weight", "all training pictures of cat have weight 0 in column weight"),
        ({}, "importance", "there is no column 'importance' of weights; the columns are: "),
    ],
)
def test_what_is_not_a_weight_is_refused_by_name(tmp_path: Path, run: Run, weights: dict[str, str], column: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        run(weighted(tmp_path / "data", weights), weight_column=column)


def test_a_class_that_training_would_not_see_is_refused_though_its_test_pictures_weigh_something(tmp_path: Path, run: Run) -> None:
    data = weighted(tmp_path / "data", {f"cat/cat_{k:03d}.png": "0" for k in range(8)})
    rows = [f"cat/cat_{k:03d}.png,{'test' if k < 2 else 'train'},{2 if k < 2 else 0}" for k in range(8)]
    rows += [f"dog/dog_{k:03d}.png,{'test' if k < 2 else 'train'},{9 if k < 2 else 1}" for k in range(8)]
    put(data / "columns.csv", "\n".join(["file,split,weight", *rows]))
    with pytest.raises(DataError, match="all training pictures of cat have weight 0"):
        run(data, weight_column="weight")
    assert run(data).info.counts["test"] == {"cat": 2, "dog": 2}
    put(data / "columns.csv", (data / "columns.csv").read_text().replace("train,0", "train,1"))
    ran = run(data, weight_column="weight")
    assert str(ran.check("weights")["detail"]).startswith("training pictures count 1 to 1 by column weight")


def test_other_weights_and_other_levels_make_another_dataset_that_can_be_kept(tmp_path: Path, run: Run) -> None:
    data = weighted(tmp_path / "data", {"cat/cat_000.png": "0.5"})
    settings = ({}, {"weight_column": "weight"}, {"levels": 12}, {"weight_column": "weight", "levels": 12})
    digests = []
    for options in settings:
        info = ingest(str(data), tmp_path / "made", IngestSettings(keep_dataset=True, **options), lambda _: None, str(tmp_path / "store"))
        again = ingest(f"{tmp_path}/store/datasets/{info.digest}", tmp_path / "again", log=lambda _: None)
        assert (again.weight, again.levels, again.digest) == (info.weight, info.levels, info.digest)
        digests.append(info.digest)
    assert len(set(digests)) == 4
    put(data / "columns.csv", "file,weight\ncat/cat_000.png,0.75\n")
    assert run(data).info.digest == digests[0]
    assert run(data, weight_column="weight").info.digest not in digests


@pytest.mark.integration
def test_training_learns_nothing_from_pictures_of_weight_0(tmp_path: Path, run: Run) -> None:
    lines = ["file,label,split,trust"]
    for k in range(120):
        kind = k % 2
        put(tmp_path / "data" / f"{k}.png", encode(pixels(kind, k, (12, 12), 1)))
        split = "train" if k < 80 else "validation" if k < 96 else "test"
        wrong = split == "train" and k % 8 < 5  # most of the training labels are wrong, and weigh nothing
        lines.append(f"{k}.png,{'ab'[1 - kind if wrong else kind]},{split},{0 if wrong else 1}")
    put(tmp_path / "data" / "labels.csv", "\n".join(lines))
    ran = run(tmp_path / "data", weight_column="trust", max_near_duplicates=None)
    options = TrainingSettings(name="weighted", epochs=2, device="cpu", augmentation="none")
    train(ran.dataset.path, tmp_path / "model", options)
    test = ran.dataset.split("test")
    right = Classifier(tmp_path / "model", threads=1).probabilities(test.images).argmax(axis=1) == np.asarray(test.labels)
    assert right.mean() >= 0.9
    assert json.loads((tmp_path / "model" / "config.json").read_text())["parameters"]["weight_column"] == "trust"
