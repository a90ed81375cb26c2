"""IDX files: the bytes decide."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from components.classifier.errors import DataError
from tests.score import cases
from tests.score.conftest import Score


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-images.idx3-ubyte", "pictures.gz", "x.png.gz"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_gzipped_or_not_whatever_the_name_says(score: Score, tmp_path: Path, name: str, pack: type) -> None:
    np.save(tmp_path / "same.npy", cases.digits(7))
    done = score(cases.put(tmp_path / "idx" / name, pack(cases.idx(cases.digits(7)[..., 0]))))
    assert done.labels == score(tmp_path / "same.npy").labels
    assert [(row["input"], row["index"]) for row in done.rows] == [(name, k) for k in range(7)]


def test_labels_beside_the_pictures_are_passed_over(score: Score, tmp_path: Path) -> None:
    root = tmp_path / "mnist"
    cases.put(root / "t10k-images-idx3-ubyte.gz", gzip.compress(cases.idx(cases.digits(5)[..., 0])))
    cases.put(root / "t10k-labels-idx1-ubyte.gz", gzip.compress(cases.idx(np.arange(5, dtype=np.uint8))))
    done = score(root)
    assert len(done.rows) == 5
    assert done.passed_over == {"t10k-labels-idx1-ubyte.gz": "an IDX file of labels, no pictures"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (cases.idx(np.arange(9, dtype=np.uint8)), "holds 9 labels"),
        (cases.idx(cases.digits(4)[..., 0].astype(">i2"), code=11), "int16"),
        (cases.idx(cases.digits(4)[..., 0])[:-3], "cut or damaged"),
        (cases.idx(cases.digits(4)[..., 0]) + b"more", "cut or damaged"),
        (cases.idx(cases.digits(4)[..., 0].reshape(4, 64)), "shape"),
        (gzip.compress(cases.idx(cases.digits(4)[..., 0])[:-3], mtime=0), "cut within picture 3"),
        (gzip.compress(cases.idx(cases.digits(4)[..., 0]) + b"more", mtime=0), "goes on after"),
        (gzip.compress(cases.idx(cases.digits(40)[..., 0]), mtime=0)[:-60], "cut or damaged gzip"),
    ],
)
def test_wrong_files_are_refused_by_name(score: Score, tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(DataError, match=f"some-idx.*{says}"):
        score(cases.put(tmp_path / "some-idx", data))
