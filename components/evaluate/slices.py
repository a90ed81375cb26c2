"""Accuracy on parts of the test split: per class, brightness, contrast, and any column that the dataset gives."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from components.bundle.dataset import Labels
from components.bundle.evaluation import Slice
from components.classifier.errors import EvaluationError
from components.classifier.images import Pixels, brightness_and_contrast
from components.classifier.intervals import holm
from components.evaluate.metrics import by_groups, proportion

MAX_VALUES = 20
"""A column with more distinct values holds identifiers or measurements, not groups."""

FILE_COLUMN = "file"
OWN_SLICES = ("class", "brightness", "contrast")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Appearance:
    """Per picture: brightness (mean pixel, 0 to 255) and contrast (standard deviation of the pixels, 0 to 127.5)."""

    brightness: Floats
    contrast: Floats


@dataclass(frozen=True)
class Columns:
    """What columns.parquet says: the pictures' files, the groupings, and why others were left out."""

    files: list[str] | None
    groups: dict[str, list[str]]
    left_out: list[str]


def measure_appearance(images: Pixels) -> Appearance:
    """Measure uint8 pictures (N, H, W, C), a part at a time, so that memory-mapped ones need not fit."""
    return Appearance(*(values.astype(np.float64) for values in brightness_and_contrast(images)))


def read_columns(path: Path | None, n: int) -> Columns:
    """Read columns.parquet of a split with `n` pictures; None gives nothing.

    Raises EvaluationError when it cannot be read or has another number of rows.
    """
    if path is None:
        return Columns(None, {}, [])
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise EvaluationError(f"{path} cannot be read ({' '.join(str(error).split())[:120]}); run ingest again") from error
    if table.num_rows != n:
        raise EvaluationError(f"{path} has {table.num_rows} rows for {n} pictures; run ingest again")
    files, groups, left_out = None, {}, []
    for name in table.column_names:
        values = ["(none)" if value is None else str(value) for value in table.column(name).to_pylist()]
        distinct = len(set(values))
        if name == FILE_COLUMN:
            files = values
        elif distinct > MAX_VALUES:
            left_out.append(f"column {name!r} has {distinct} distinct values, more than {MAX_VALUES}: no slices were made of it")
        else:
            groups[f"{name} (column)" if name in OWN_SLICES else name] = values
    return Columns(files, groups, left_out)


def read_groups(path: Path | None, column: str, files: list[str]) -> Labels:
    """The group of each picture of a split as a number from 0 up, int64 (N,); one without a value is a group of its own.

    Raises EvaluationError where the column is missing.
    """
    from pyarrow import parquet

    if path is None or column not in parquet.read_schema(path).names:
        raise EvaluationError(f"the dataset has groups by column {column!r}, and {path} does not hold it; run ingest again")
    values = parquet.read_table(path, columns=[column])[column].to_pylist()
    names = [value or f"\0{file}" for value, file in zip(values, files, strict=True)]
    return np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64)


def slice_accuracies(
    labels: Labels, predicted: Labels, classes: list[str], seen: Appearance, columns: Columns, members: Labels | None = None
) -> list[Slice]:
    """Accuracy of every slice, and the p-value of its being worse than the other pictures.

    With `members`, the group of each picture, int64 (N,), the intervals are those of groups; the p-values count pictures.
    """
    correct = labels == predicted
    groups: list[tuple[str, str, npt.NDArray[np.bool_]]] = []
    groups += [("class", name, labels == k) for k, name in enumerate(classes) if (labels == k).any()]
    groups += [("brightness", name, rows) for name, rows in _thirds(seen.brightness, ("dark", "medium", "bright"))]
    groups += [("contrast", name, rows) for name, rows in _thirds(seen.contrast, ("low", "medium", "high"))]
    for column, values in columns.groups.items():
        array = np.asarray(values, dtype=object)
        groups += [(column, value, array == value) for value in sorted(set(values))]
    p_values = _holm([_worse(correct, rows) for _, _, rows in groups])
    found = []
    for (column, value, rows), p in zip(groups, p_values, strict=True):
        accuracy, effective = proportion(int(correct[rows].sum()), int(rows.sum())), None
        if members is not None:
            accuracy, counted = by_groups(accuracy, correct[rows], column, members[rows])
            effective = counted.effective
        found.append(Slice(column=column, value=value, accuracy=accuracy, p_worse=p, effective=effective))
    return found


def _thirds(values: Floats, names: tuple[str, str, str]) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Three parts of about equal size, named with their bounds; fewer where values are equal."""
    low, high = np.quantile(values, [1 / 3, 2 / 3])
    first, last = f"{names[0]} (up to {low:.1f})", f"{names[2]} (above {high:.1f})"
    parts = [(first, values <= low), (f"{names[1]} (to {high:.1f})", (values > low) & (values <= high)), (last, values > high)]
    return ((name, rows) for name, rows in parts if rows.any())


def _worse(correct: npt.NDArray[np.bool_], rows: npt.NDArray[np.bool_]) -> float | None:
    """Fisher's exact test, one-sided: is accuracy inside lower than outside?"""
    inside, outside = correct[rows], correct[~rows]
    if not len(outside):
        return None
    table = [[inside.sum(), (~inside).sum()], [outside.sum(), (~outside).sum()]]
    return float(stats.fisher_exact(table, alternative="less").pvalue)


def _holm(p_values: list[float | None]) -> list[float | None]:
    """Correct for the number of tests; what was not tested stays None."""
    corrected = iter(holm([p for p in p_values if p is not None]))
    return [None if p is None else next(corrected) for p in p_values]
