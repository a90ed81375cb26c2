"""Weights: how much each training picture counts in the loss, by a column of the source. Nothing else uses them."""

import math

import numpy as np

from components.classifier.errors import DataError
from components.ingest.checks import Check
from components.ingest.collection import Collection
from components.readers.listing import counted, quoted, some
from components.settings.ingest import IngestSettings

_USUAL = ("weight", "sample_weight")


def check_weights(collection: Collection, settings: IngestSettings) -> list[Check]:
    """Check that each value of `weight_column` is a number of 0 or more; a picture without a value counts 1.

    Raises DataError for a column that is not there, another value, and a class whose pictures all count 0.
    """
    column = settings.weight_column
    if not column:
        unused = [name for name in _USUAL if name in collection.columns]
        told = f"column {some(unused)} is not used in training; if it is a picture's weight in the loss, set weight_column={some(unused)}"
        return [Check("weights", False, told)] if unused else []
    if column not in collection.columns:
        raise DataError(f"there is no column {column!r} of weights; the columns are: {some(collection.columns) or 'none'}")
    values = collection.columns[column]
    weights = np.array([_number(value, name, column) for value, name in zip(values, collection.names, strict=True)])
    totals = np.bincount(collection.labels, weights, len(collection.classes))
    if not totals.all():
        empty = some(name for name, total in zip(collection.classes, totals, strict=True) if not total)
        raise DataError(f"all pictures of {empty} have weight 0 in column {column}; give some of them a weight, or remove the class")
    without = sum(not value for value in values)
    missing = f"; {counted(without, 'picture')} without a value count 1" if without else ""
    told = f"training pictures count {weights.min():g} to {weights.max():g} by column {column}{missing}; metrics count each picture once"
    return [Check("weights", True, told)]


def _number(value: str | None, name: str, column: str) -> float:
    try:
        number = float(value or 1)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise DataError(f"{quoted(name)} has {value!r} in column {column}; a weight is a number of 0 or more")
    return number
