"""IDX files: bytes decide, partners must fit, nothing is guessed."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from components.classifier.errors import DataError
from components.readers import idx as idx_files
from tests.ingest.cases import files, idx, idx_pair, idx_set, put, zip_of
from tests.ingest.conftest import Run

FOUR = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def renamed(root: Path, rename: Callable[[str], str], wrap: Callable[[bytes], bytes] = lambda data: data) -> Path:
    for name in FOUR:
        data = (root / name).read_bytes()
        (root / name).unlink()
        put(root / rename(name), wrap(data))
    return root


@pytest.mark.parametrize(
    ("rename", "wrap"),
    [
        (lambda n: n, lambda d: d),
        (lambda n: n, gzip.compress),
        (lambda n: f"{n}.gz", gzip.compress),
        (lambda n: f"{n}.gz", lambda d: d),
        (lambda n: n.replace("-idx", ".idx"), lambda d: d),
        (lambda n: f"emnist-letters-{n.replace('t10k', 'test')}.gz", gzip.compress),
        (lambda n: f"MNIST/raw/{n}", lambda d: d),
        (lambda n: f"{n.split('-')[0]}/{n.split('-')[1]}", lambda d: d),
        (lambda n: n.upper(), lambda d: d),
    ],
    ids=["plain", "gzip-without-suffix", "gzip", "suffix-without-gzip", "dotted", "emnist", "nested", "folders", "upper"],
)
def test_bytes_decide_and_names_give_the_split(
    tmp_path: Path, run: Run, rename: Callable[[str], str], wrap: Callable[[bytes], bytes]
) -> None:
    plain = run(idx_set(tmp_path / "plain"))
    found = run(renamed(idx_set(tmp_path / "data"), rename, wrap))
    assert found.info.classes == [str(k) for k in range(10)]
    assert (found.total("train") + found.total("validation"), found.total("test")) == (40, 20)
    assert found.info.digest == plain.info.digest
    assert "#" in next(iter(found.files("test")))


def test_letters_1_to_26_are_26_classes(tmp_path: Path, run: Run) -> None:
    found = run(idx_set(tmp_path, range(1, 27)))
    assert found.info.classes == [str(k) for k in range(1, 27)]
    assert min(found.counts().values()) == 6


def test_rows_come_first_and_orientation_is_left_alone(tmp_path: Path, run: Run) -> None:
    found = run(idx_set(tmp_path, size=(20, 28)))
    assert found.info.shape == (20, 28, 1)
    stored = idx_files.parse((tmp_path / FOUR[2]).read_bytes())
    np.testing.assert_array_equal(found.dataset.split("test").images[..., 0], stored)


def test_without_a_split_one_is_made(tmp_path: Path, run: Run) -> None:
    pictures, labels = idx_pair(range(3), 20)
    put(tmp_path / "images.idx3", idx(pictures))
    put(tmp_path / "labels.idx1", idx(labels))
    found = run(tmp_path)
    assert found.counts() == {"0": 20, "1": 20, "2": 20}
    assert found.total("test") == 12


def test_colour_sizes_and_channels(tmp_path: Path, run: Run) -> None:
    pictures, labels = idx_pair(range(3), 20)
    put(tmp_path / "images", idx(np.stack([pictures, pictures, 255 - pictures], axis=-1)))
    put(tmp_path / "labels", idx(labels))
    assert run(tmp_path).info.shape == (12, 12, 3)
    assert run(tmp_path, image_size=(8, 10), channels=1).info.shape == (8, 10, 1)


def test_idx_in_an_archive(tmp_path: Path, run: Run) -> None:
    root = idx_set(tmp_path / "data")
    assert run(zip_of(tmp_path / "data.zip", files(root))).info.digest == run(root).info.digest


def test_the_same_files_twice_are_one_and_different_ones_refused(tmp_path: Path, run: Run) -> None:
    root = idx_set(tmp_path)
    for name in FOUR:
        put(root / f"{name}.gz", gzip.compress((root / name).read_bytes()))  # as torchvision leaves them
    assert run(root).total("test") == 20
    other = idx_pair(range(10), 2, seed=5)[0]
    put(root / "emnist-test-images-idx3-ubyte", idx(other))
    with pytest.raises(DataError, match=r"several IDX files hold pictures of one split: .*emnist-test-images"):
        run(root)


def _cut(data: bytes) -> bytes:
    return data[:-5]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (FOUR[0], _cut, r"train-images-idx3-ubyte should hold 40x12x12 values \(5760 bytes\), and holds only 5755"),
        (FOUR[0], lambda d: d + b"x", "and holds more than 5760"),
        (FOUR[0], lambda d: d[:9], "ends within its header"),
        (FOUR[0], lambda d: _cut(gzip.compress(d)), "cut or damaged gzip"),
        (FOUR[0], lambda d: gzip.compress(d)[:40], "cut or damaged gzip"),
        (FOUR[1], lambda d: idx(np.arange(39, dtype=np.uint8) % 10), "holds 40 pictures and .* 39 labels"),
        (FOUR[1], lambda d: idx(np.zeros(40, ">f4"), 0x0D), "float32 values; labels are whole numbers"),
        (FOUR[1], lambda d: idx(np.full(40, -1, np.int8), 0x09), "labels out of range: -1 at place 0"),
        (FOUR[1], lambda d: d[:-1] + b"\xff", "label 255 out of range, 1 times, first at place 39; the others are 0 to 9"),
        (
            FOUR[3],
            lambda d: d[:-1] + b"\x0a",
            "t10k-labels-idx1-ubyte holds label 10 out of range, 1 times, first at place 19; training has 0 to 9",
        ),
        (FOUR[0], lambda d: idx(np.zeros((40, 12, 12), ">i2"), 0x0B), "int16 pictures; only bytes"),
        (FOUR[0], lambda d: idx(np.zeros((40, 12, 12, 2), np.uint8)), r"shape \(40, 12, 12, 2\)"),
        (FOUR[0], lambda d: struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**16, 2**16), "more than the limit"),
        (FOUR[2], lambda d: idx(np.zeros((20, 9, 9), np.uint8)), "differ in size"),
        (FOUR[0], lambda d: b"garbage that is no IDX", "train-images-idx3-ubyte is not an IDX file: it begins with 67 61 72 62"),
        (FOUR[1], None, "train-images-idx3-ubyte has no labels beside it; add them, such as train-labels-idx1-ubyte"),
    ],
)
def test_damage_names_the_file(tmp_path: Path, run: Run, name: str, change: Callable[[bytes], bytes] | None, message: str) -> None:
    root = idx_set(tmp_path)
    if change is None:
        (root / name).unlink()
    else:
        put(root / name, change((root / name).read_bytes()))
    with pytest.raises(DataError, match=message):
        run(root)


def test_test_files_alone_are_refused(tmp_path: Path, run: Run) -> None:
    root = idx_set(tmp_path)
    for name in FOUR[:2]:
        (root / name).unlink()
    with pytest.raises(DataError, match="no training files; add train-images-idx3-ubyte"):
        run(root)


def test_one_label_only_is_refused(tmp_path: Path, run: Run) -> None:
    with pytest.raises(DataError, match="one class only"):
        run(idx_set(tmp_path, [7]))


def test_a_gap_in_the_labels_is_no_error(tmp_path: Path, run: Run) -> None:
    assert run(idx_set(tmp_path, [3, 8])).info.classes == ["3", "8"]


TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


@given(st.data(), st.sampled_from(sorted(TYPES)), st.booleans())
@settings(max_examples=80, deadline=None)
def test_what_was_written_is_read(data: st.DataObject, code: int, pack: bool) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=5))
    array = data.draw(hnp.arrays(np.dtype(TYPES[code]), shape))
    raw = idx(array, code)
    found = idx_files.parse(gzip.compress(raw) if pack else raw)
    assert found.shape == array.shape
    np.testing.assert_array_equal(found.view(np.uint8), array.view(np.uint8))


@given(st.binary(max_size=80), st.sampled_from([b"", b"\0\0\x08\x01", b"\0\0\x08\x03\0\0\0\x01", b"\x1f\x8b\x08\0"]))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_an_array_or_an_error_of_ours(data: bytes, start: bytes) -> None:
    try:
        found = idx_files.parse(start + data, "x-idx")
    except DataError as error:
        message = str(error)
    else:
        message, size = "x-idx", found.nbytes
        assert size <= len(start + data)
    assert "x-idx" in message


@pytest.mark.parametrize("prefix", ["train", "t10k"])
def test_files_of_no_pictures_are_called_so(tmp_path: Path, run: Run, prefix: str) -> None:
    data = idx_set(tmp_path / "data")
    put(data / f"{prefix}-images-idx3-ubyte", idx(np.zeros((0, 12, 12), np.uint8)))
    put(data / f"{prefix}-labels-idx1-ubyte", idx(np.zeros(0, np.uint8)))
    with pytest.raises(DataError, match=f"{prefix}-images-idx3-ubyte holds 0 pictures; write it again, or move it and its labels away"):
        run(data)
