"""NumPy arrays: scored, or refused by the written rule; never guessed, never unpickled."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from components.classifier.errors import DataError
from components.classifier.images import ImageSpec
from components.readers import npy
from components.readers.records import Reading
from tests.score import cases
from tests.score.conftest import Score

GREY = Reading(ImageSpec(8, 8, 1))


def saved(path: Path, array: Any, **options: Any) -> Path:
    np.save(path, array, **options)
    return path


@pytest.fixture
def expected(score: Score, tmp_path: Path) -> list[tuple[str | None, float]]:
    done = score(saved(tmp_path / "plain.npy", cases.digits(6)))
    return [(row["label"], row["confidence"]) for row in done.rows]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(np.asfortranarray, id="fortran"),
        pytest.param(lambda a: a[..., 0], id="without-channel"),
        pytest.param(lambda a: a.astype(np.int64), id="int64"),
        pytest.param(lambda a: a.astype(">u2"), id="big-endian"),
        pytest.param(lambda a: a.astype(np.float32), id="float-0-255"),
        pytest.param(lambda a: a.astype(np.float16), id="half"),
    ],
)
def test_the_same_pictures_give_the_same_answers(score: Score, tmp_path: Path, expected: list[Any], change: Any) -> None:
    done = score(saved(tmp_path / "changed.npy", change(cases.digits(6))))
    assert [(row["label"], row["confidence"]) for row in done.rows] == expected
    assert [(row["input"], row["index"]) for row in done.rows] == [("changed.npy", k) for k in range(6)]


def test_one_picture_needs_no_batch_axis(score: Score, tmp_path: Path, expected: list[Any]) -> None:
    done = score(saved(tmp_path / "single.npy", cases.digits(6)[2]))
    assert [(row["label"], row["confidence"]) for row in done.rows] == [expected[2]]


def test_pictures_of_another_size_are_prepared_like_files(score: Score, tmp_path: Path) -> None:
    large = np.random.default_rng(0).integers(0, 256, (3, 20, 31, 3), dtype=np.uint8)
    for number, picture in enumerate(large):
        cases.put(tmp_path / "png" / f"{number}.png", cases.encoded(picture))
    by_array, by_file = score(saved(tmp_path / "large.npy", large)), score(tmp_path / "png")
    assert [row["confidence"] for row in by_array.rows] == [row["confidence"] for row in by_file.rows]


def test_no_pictures_give_columns_and_no_rows(score: Score, tmp_path: Path) -> None:
    assert score(saved(tmp_path / "none.npy", cases.digits(6)[:0])).rows == []


@pytest.mark.parametrize(
    ("array", "says"),
    [
        pytest.param(lambda a: a.transpose(0, 3, 1, 2), r"shape \(6, 1, 8, 8\).*transpose\(0, 2, 3, 1\)", id="nchw"),
        pytest.param(lambda a: (a / 255).astype(np.float32), "whole numbers from 0 to 255", id="scaled-to-1"),
        pytest.param(lambda a: (a / 255).astype(np.uint8), "no value above 1", id="cast-after-scaling"),
        pytest.param(lambda a: (a > 128).astype(np.float64), "no value above 1", id="float-mask"),
        pytest.param(lambda a: a > 128, "bool", id="bool"),
        pytest.param(lambda a: a.astype(np.int16) - 200, "from 0 to 255", id="negative"),
        pytest.param(lambda a: a.astype(np.uint16) * 257, "from 0 to 255", id="16-bit"),
        pytest.param(lambda a: np.where(a > 200, np.nan, a).astype(np.float32), "NaN", id="nan"),
        pytest.param(lambda a: a.reshape(6, 64), "reshape", id="flat"),
        pytest.param(lambda a: np.repeat(a, 4, axis=3), "C = 1 or 3", id="four-channels"),
        pytest.param(lambda a: a.astype(complex), "complex", id="complex"),
        pytest.param(lambda a: np.array("text"), "shape", id="text"),
    ],
)
def test_what_is_no_pixels_is_refused_by_name(score: Score, tmp_path: Path, array: Any, says: str) -> None:
    with pytest.raises(DataError, match=rf"wrong\.npy.*{says}"):
        score(saved(tmp_path / "wrong.npy", array(cases.digits(6))))


def test_fractions_in_a_dark_beginning_are_found(score: Score, tmp_path: Path) -> None:
    pictures = np.zeros((1500, 8, 8, 1), np.float32)
    pictures[0, 0, 0, 0], pictures[1400] = 0.5, 200
    with pytest.raises(DataError, match=r"0\.5"):
        score(saved(tmp_path / "mixed.npy", pictures))


def test_dark_pictures_beside_bright_ones_are_pictures(score: Score, tmp_path: Path) -> None:
    pictures = np.zeros((1500, 8, 8, 1), np.uint8)
    pictures[3, 2, 2], pictures[1400] = 1, 255
    assert score(saved(tmp_path / "dark.npy", pictures)).summary.scored == 1500


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_objects_are_refused_and_never_unpickled(score: Score, tmp_path: Path) -> None:
    array = np.empty(1, object)
    array[0] = Trap(tmp_path / "ran")
    with pytest.raises(DataError, match=r"objects\.npy.*pickled"):
        score(saved(tmp_path / "objects.npy", array, allow_pickle=True))
    assert not (tmp_path / "ran").exists()


def test_cut_joined_and_packed_arrays_are_refused_by_name(score: Score, tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.npy", cases.digits(6)).read_bytes()
    with pytest.raises(DataError, match=r"cut\.npy is cut"):
        score(cases.put(tmp_path / "cut.npy", whole[:-50]))
    with pytest.raises(DataError, match=r"header\.npy is cut"):
        score(cases.put(tmp_path / "header.npy", whole[:40]))
    with pytest.raises(DataError, match=r"two\.npy goes on"):
        score(cases.put(tmp_path / "two.npy", whole + whole))
    np.savez(tmp_path / "several.npz", a=cases.digits(2), b=cases.digits(2))
    assert score(tmp_path / "several.npz").names == ["several.npz/a"] * 2 + ["several.npz/b"] * 2
    (tmp_path / "several.npz").rename(tmp_path / "several.zip")
    with pytest.raises(DataError, match=r"several\.zip is a NumPy archive of 2 arrays; name it several\.npz"):
        score(tmp_path / "several.zip")


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.int16, np.dtype(">i4"), np.float32, np.bool_]),
        arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=9),
    )
)
def test_any_array_is_read_exactly_or_refused(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    path = saved(tmp_path_factory.mktemp("npy") / "any.npy", array)
    blocks: list[Any] = []
    refusal = ""
    try:
        count = npy.count(path, "any.npy", GREY)
        blocks = list(npy.read(path, "any.npy", GREY))
    except DataError as error:
        refusal = str(error)
    if refusal:
        assert refusal.startswith("any.npy")
        return
    read = np.concatenate([block.pixels for block in blocks]) if blocks else np.zeros(0)
    assert (len(read), read.size) == (count, array.size)
    assert (read.ravel() == array.ravel()).all()
