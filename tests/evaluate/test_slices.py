"""Slices by class, looks and the dataset's own columns."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from components.classifier.errors import EvaluationError
from components.evaluate.slices import Columns, measure_appearance, read_columns, slice_accuracies

NO_COLUMNS = Columns(None, {}, [])


def write(path: Path, **columns: list[object]) -> Path:
    parquet.write_table(pa.table(columns), path / "columns.parquet")
    return path / "columns.parquet"


def test_looks_are_the_mean_and_spread_of_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1500, 4, 5, 3), dtype=np.uint8)
    seen = measure_appearance(images)
    flat = images.reshape(1500, -1).astype(np.float64)
    np.testing.assert_allclose(seen.brightness, flat.mean(axis=1), atol=1e-3)
    np.testing.assert_allclose(seen.contrast, flat.std(axis=1), atol=1e-3)


def test_every_picture_is_in_one_slice_of_each_kind() -> None:
    rng = np.random.default_rng(1)
    labels, predicted = rng.integers(0, 3, 300), rng.integers(0, 3, 300)
    seen = measure_appearance(rng.integers(0, 256, (300, 4, 4, 1), dtype=np.uint8))
    columns = Columns(None, {"site": ["a" if k % 3 else "b" for k in range(300)]}, [])
    slices = slice_accuracies(labels, predicted, ["x", "y", "z"], seen, columns)
    for kind in ("class", "brightness", "contrast", "site"):
        parts = [s.accuracy for s in slices if s.column == kind]
        assert sum(p.n for p in parts) == 300
        assert sum(p.correct for p in parts) == (labels == predicted).sum()


def test_pictures_that_look_the_same_are_one_slice() -> None:
    seen = measure_appearance(np.zeros((20, 3, 3, 1), np.uint8))
    slices = slice_accuracies(np.zeros(20, np.int64), np.zeros(20, np.int64), ["a", "b"], seen, NO_COLUMNS)
    assert [(s.column, s.accuracy.n, s.p_worse) for s in slices] == [("class", 20, None), ("brightness", 20, None), ("contrast", 20, None)]


def test_a_slice_that_fails_is_told_from_chance() -> None:
    n = 400
    site = ["field" if k < 100 else "lab" for k in range(n)]
    labels = np.zeros(n, np.int64)
    predicted = labels.copy()
    predicted[:40] = 1
    seen = measure_appearance(np.random.default_rng(2).integers(0, 256, (n, 4, 4, 1), dtype=np.uint8))
    found = {s.value: s for s in slice_accuracies(labels, predicted, ["a", "b"], seen, Columns(None, {"site": site}, []))}
    assert found["field"].accuracy.value == 0.6
    assert found["field"].p_worse is not None
    assert found["field"].p_worse < 1e-6
    assert found["lab"].p_worse == 1


def test_columns_become_groups_except_files_and_identifiers(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        file=[f"{k}.png" for k in range(30)],
        site=["a", "b", None] * 10,
        night=[k % 2 == 0 for k in range(30)],
        shot=list(range(30)),
    )
    columns = read_columns(path, 30)
    assert columns.files is not None
    assert columns.files[3] == "3.png"
    assert {name: sorted(set(values)) for name, values in columns.groups.items()} == {
        "site": ["(none)", "a", "b"],
        "night": ["False", "True"],
    }
    assert columns.left_out == ["column 'shot' has 30 distinct values, more than 20: no slices were made of it"]


def test_columns_of_other_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="2 rows for 3 pictures"):
        read_columns(write(tmp_path, site=["a", "b"]), 3)


def test_a_damaged_file_of_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "columns.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(EvaluationError, match=r"columns\.parquet cannot be read"):
        read_columns(tmp_path / "columns.parquet", 3)


def test_no_columns_are_no_error() -> None:
    assert read_columns(None, 3) == NO_COLUMNS


def test_a_column_that_is_called_like_a_slice_of_ours_keeps_apart(tmp_path: Path) -> None:
    assert list(read_columns(write(tmp_path, **{"class": ["a", "b"], "site": ["x", "y"]}), 2).groups) == ["class (column)", "site"]
