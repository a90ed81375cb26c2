"""Archives of arrays and tables of pixels, as people pass MNIST and its kin on: the same pictures in training and scoring, or refused."""

import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.classifier.errors import DataError, UnsafeArchiveError
from tests.ingest.cases import idx_pair, put
from tests.ingest.conftest import Run
from tests.score.conftest import Score, score
from tests.score.conftest import model as model

__all__ = ["score"]
Array = np.ndarray[Any, Any]
SIZE = (8, 8)


@pytest.fixture(scope="module")
def pair() -> tuple[Array, Array]:
    """36 pictures of 8x8, of three labels."""
    pictures, labels = idx_pair([3, 5, 11], 12, size=SIZE)
    pictures[:, -1, -1] = 0
    return pictures, labels


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def table(pictures: Array, labels: Array | None, header: str | None = "label,pixel{}", separator: str = ",", last: bool = False) -> bytes:
    """A CSV of pixels; `header` as a form of the columns' names, None for none."""
    flat = pictures.reshape(len(pictures), int(np.prod(pictures.shape[1:])))
    lines = []
    if header:
        names = [header.split(",")[-1].format(k) for k in range(flat.shape[1])]
        lines.append([*names, "label"] if last else [*(["label"] if labels is not None else []), *names])
    for k, row in enumerate(flat):
        mark = [] if labels is None else [str(labels[k])]
        lines.append([*map(str, row), *mark] if last else [*mark, *map(str, row)])
    return "\n".join(separator.join(line) for line in lines).encode()


GOOD = {
    "images and labels": ("set.npz", lambda x, y: npz(images=x, labels=y), "set.npz/images"),
    "x and y, colour last": ("set.npz", lambda x, y: npz(x=x[..., None], y=y[:, None]), "set.npz/x"),
    "without names": ("set.npz", lambda x, y: npz(arr_0=x, arr_1=y), "set.npz/arr_0"),
    "text labels beside other arrays": (
        "set.npz",
        lambda x, y: npz(X=x.astype(np.int64), y=y.astype(str), class_names=np.array(["a", "b"])),
        "set.npz/X",
    ),
    "header": ("set.csv", table, "set.csv"),
    "header with rows and columns": (
        "set.csv",
        lambda x, y: table(x, y, None).replace(
            b"", b"label," + ",".join(f"{r}x{c}" for r in range(1, 9) for c in range(1, 9)).encode() + b"\n", 1
        ),
        "set.csv",
    ),
    "label last": ("set.csv", lambda x, y: table(x, y, last=True), "set.csv"),
    "no header": ("set.csv", lambda x, y: table(x, y, None), "set.csv"),
    "no header, label last": ("set.csv", lambda x, y: table(np.roll(x, 1, axis=(1, 2)), y, None, last=True), "set.csv"),
    "semicolons, byte order mark, CRLF": (
        "set.csv",
        lambda x, y: b"\xef\xbb\xbf" + table(x, y, separator=";").replace(b"\n", b"\r\n"),
        "set.csv",
    ),
    "gzip": ("set.csv.gz", lambda x, y: gzip.compress(table(x, y)), "set.csv.gz"),
}


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("folder", [True, False])
def test_pictures_and_labels_are_read_as_they_lie_in_the_file_and_scored_as_well(
    tmp_path: Path, run: Run, score: Score, pair: tuple[Array, Array], kind: str, folder: bool
) -> None:
    name, make, prefix = GOOD[kind]
    pictures, labels = pair
    path = put(tmp_path / "data" / name, make(pictures, labels))
    wanted = np.roll(pictures, 1, axis=(1, 2)) if kind == "no header, label last" else pictures
    source = path.parent if folder else path
    ran = run(source)
    assert ran.info.classes == ["3", "5", "11"]
    files = ran.files()
    assert set(files) == {f"{prefix}#{k}" for k in range(36)}
    for k in range(36):
        label, found = files[f"{prefix}#{k}"]
        assert (label, found[..., 0].tolist()) == (str(labels[k]), wanted[k].tolist())
    scored = score(source)
    assert [(row["input"], row["index"], row["error"]) for row in scored.rows] == [(prefix, k, None) for k in range(36)]


def test_the_splits_of_keras_and_medmnist_are_kept(tmp_path: Path, run: Run, pair: tuple[Array, Array]) -> None:
    pictures, labels = pair
    keras = npz(x_train=pictures[:24], y_train=labels[:24], x_test=pictures[24:], y_test=labels[24:])
    medmnist = npz(
        train_images=pictures[:18], train_labels=labels[:18, None], val_images=pictures[18:24], val_labels=labels[18:24, None],
        test_images=pictures[24:], test_labels=labels[24:, None],
    )  # fmt: skip
    assert run(put(tmp_path / "keras.npz", keras)).total("test") == 12
    ran = run(put(tmp_path / "pathmnist.npz", medmnist))
    assert [ran.total(split) for split in ("train", "validation", "test")] == [18, 6, 12]


def test_tables_of_two_splits_lie_beside_each_other_or_name_them_in_a_column(tmp_path: Path, run: Run, pair: tuple[Array, Array]) -> None:
    pictures, labels = pair
    put(tmp_path / "two" / "mnist_train.csv", table(pictures[:24], labels[:24]))
    put(tmp_path / "two" / "mnist_test.csv", table(pictures[24:], labels[24:]))
    two = run(tmp_path / "two")
    lines = table(pictures, labels).decode().split("\n")
    column = ["split", *["train"] * 24, *["test"] * 12]
    one = run(put(tmp_path / "one.csv", "\n".join(f"{mark},{line}" for mark, line in zip(column, lines, strict=True))))
    assert two.total("test") == one.total("test") == 12
    assert set(one.files("test")) == {f"one.csv#{k}" for k in range(24, 36)}


REFUSED = {
    "colour in unknown order": (
        table(np.zeros((2, 8, 24), np.uint8), np.zeros(2)),
        r"192 pixels per picture, 8x8 in three colours, .* save the",
    ),
    "not a square": (
        table(np.zeros((2, 4, 5), np.uint8), np.zeros(2)),
        "20 pixels per picture, which is not a square; name them by row and",
    ),
    "both columns may be labels": (
        table(np.full((2, 8, 8), [[[1]], [[9]]], np.uint8), np.array([1, 2]), None),
        "nothing tells whether its first or",
    ),
    "too bright": (table(np.full((2, 8, 8), 256), np.array([1, 2])), "not a table of whole numbers from 0 to 255 .*'256'"),
    "fractions": (table(np.full((2, 8, 8), 0.5), np.array([1, 2])), r"not a table of whole numbers from 0 to 255 .*'0\.5'"),
    "0 to 1": (table(np.eye(8, dtype=int)[None].repeat(2, 0), np.array([1, 2])), "holds no value above 1, so it is scaled 0 to 1"),
    "a line that is cut": (table(np.full((2, 8, 8), 9), np.array([1, 2]))[:-9], "not a table of whole numbers .*Expected 65 columns, got"),
    "a stranger": (
        table(np.full((2, 8, 8), 9), np.array([1, 2])).replace(b"label", b"id"),
        "beside them id; keep one of labels, called label",
    ),
    "other order": (table(np.full((2, 8, 8), 9), np.array([1, 2])).replace(b"pixel7,", b"pixel99,", 1), "not all of them in order"),
    "nothing": (table(np.zeros((0, 8, 8), np.uint8), np.zeros(0)), "holds no pictures below its first line"),
    "a hole among the labels": (table(np.full((2, 8, 8), 9), np.array(["cat", ""])), "has no label at place 1"),
    "two ways of naming pixels": (
        table(np.full((2, 4, 4), 9), np.array([1, 2]), "label,{}").replace(b"label,0", b"label,1x1", 1),
        "and not all of them in the order of rows",
    ),
    "no labels": (table(np.full((2, 8, 8), 9), None), "has no column of labels"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_table_of_pixels_that_may_mean_two_things_is_refused(tmp_path: Path, run: Run, kind: str) -> None:
    data, told = REFUSED[kind]
    with pytest.raises(DataError, match=told):
        run(put(tmp_path / "set.csv", data))


def test_archives_of_arrays_that_are_no_pictures_are_refused_by_name(
    tmp_path: Path, run: Run, score: Score, pair: tuple[Array, Array]
) -> None:
    pictures, labels = pair
    buffer = io.BytesIO()
    np.savez(buffer, images=np.array([{}], object), labels=labels)
    for name, data, told in (
        ("objects", buffer.getvalue(), "objects.npz/images holds pickled Python objects, which are never loaded"),
        (
            "flat",
            npz(data=pictures.reshape(36, 64), target=labels),
            r"flat\.npz/data has shape \(36, 64\), .* a\.reshape\(N, height, width\)",
        ),
        ("hot", npz(images=pictures, labels=np.eye(3)[labels % 3]), r"hot\.npz/labels has shape \(36, 3\), .* a\.argmax\(axis=1\)"),
        ("alone", npz(images=pictures), r"alone\.npz/images has no labels beside it; add them"),
        ("empty", npz(), "empty.npz holds no arrays; save it again"),
        ("scaled", npz(images=pictures / 255, labels=labels), r"scaled\.npz/images"),
        ("cut", npz(images=pictures, labels=labels)[:-30], "cut or damaged zip"),
    ):
        with pytest.raises(DataError, match=told):
            run(put(tmp_path / f"{name}.npz", data))
    damaged = bytearray(npz(images=pictures, labels=labels))
    damaged[200] ^= 255
    with pytest.raises(DataError, match="is damaged at its array images"):
        run(put(tmp_path / "damaged.npz", bytes(damaged)))
    with pytest.raises(DataError, match=r"holds no array of pictures \(N, H, W, C\); it has y \(36,\)"):
        score(put(tmp_path / "labels.npz", npz(y=labels)))


def test_an_archive_of_arrays_beyond_the_limits_is_refused(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("images.npy", "w") as member:
        for _ in range(100):
            member.write(bytes(2**20))
    with pytest.raises(UnsafeArchiveError, match="unpacks to more than 200 times its size"):
        run(path)


def test_pixels_in_one_column_are_refused_with_what_to_do(tmp_path: Path, run: Run) -> None:
    data = "emotion,pixels,Usage\n" + "\n".join(f"{k % 2},{' '.join(map(str, range(64)))},Training" for k in range(8))
    with pytest.raises(DataError, match=r"pixels in one column are not read: save them as an array \(N, H, W\) with np\.save"):
        run(put(tmp_path / "fer2013.csv", data))
