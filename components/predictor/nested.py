"""Numbers in nested JSON lists, taken only when they have exactly the shape that is wanted: no ragged rows, no strings, no booleans."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

_INTEGERS = {int}
_NUMBERS = ({float}, {int, float})


def to_array(value: Any, shape: Sequence[int]) -> npt.NDArray[Any] | None:
    """Turn nested lists of numbers into an array of `shape`; None when they have another shape or hold other things.

    Whole numbers from 0 to 255 become uint8, anything else float64. numpy.array is not asked: it is slower, and of strings of
    unequal length it makes arrays of any size.
    """
    level = [value]
    try:
        for size in shape:
            level = _inner(level, size)
    except (TypeError, ValueError):
        return None
    kinds = set(map(type, level))
    if kinds == _INTEGERS:
        try:
            return np.frombuffer(bytes(level), np.uint8).reshape(shape)
        except ValueError:
            pass  # a number that is no byte: refused by the caller's rule, which names it
    elif kinds not in _NUMBERS:
        return None
    return np.array(level, np.float64).reshape(shape)


def _inner(level: list[Any], size: int) -> list[Any]:
    """What is in lists of `size` items each; TypeError or ValueError where they are none."""
    if size == 1:  # quicker, and what else can be unpacked has strings in it, which are no numbers
        return [item for (item,) in level]
    if set(map(type, level)) != {list} or set(map(len, level)) != {size}:
        raise ValueError
    return list(chain.from_iterable(level))


def outline(value: Any, depth: int = 6) -> list[int]:
    """Lengths along the first elements of nested lists, for messages."""
    lengths: list[int] = []
    while type(value) is list and len(lengths) < depth:
        lengths.append(len(value))
        value = value[0] if value else None
    return lengths
