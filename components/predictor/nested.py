"""Numbers in nested JSON lists, taken only when they have exactly the shape that is wanted: no ragged rows, no strings, no booleans."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

_NUMBERS = ({int}, {float}, {int, float})


def to_array(value: Any, shape: Sequence[int]) -> npt.NDArray[Any] | None:
    """Turn nested lists of numbers into an array of `shape`; None when they have another shape or hold other things.

    Whole numbers from 0 to 255 become uint8, anything else float64. numpy.array is not asked: of strings of unequal length
    it makes arrays of any size.
    """
    level = [value]
    for size in shape:
        if not all(type(item) is list and len(item) == size for item in level):
            return None
        level = list(chain.from_iterable(level))
    kinds = set(map(type, level))
    if kinds not in _NUMBERS:
        return None
    if kinds == {int}:
        try:
            return np.frombuffer(bytes(level), np.uint8).reshape(shape)
        except ValueError:
            pass  # a number that is no byte: refused by the caller's rule, which names it
    return np.array(level, np.float64).reshape(shape)


def outline(value: Any, depth: int = 6) -> list[int]:
    """Lengths along the first elements of nested lists, for messages."""
    lengths = []
    while type(value) is list and len(lengths) < depth:
        lengths.append(len(value))
        value = value[0] if value else None
    return lengths
