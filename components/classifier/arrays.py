"""From arrays of numbers to the pixels that a model takes: one rule for live requests and batch scoring.

Pixels are whole numbers from 0 to 255. uint8 arrays are taken as they are; arrays of another dtype only when every value is such a
whole number. Floating point arrays in which no value is above 1 are refused, unless all are 0: they were scaled to 0..1, and
would be classified as black pictures.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from components.classifier.errors import ImageError
from components.classifier.images import ImageSpec, Pixels


def to_uint8(values: npt.NDArray[Any]) -> Pixels:
    """Turn an array of numbers, of any shape, into uint8.

    Raises ImageError for values that are not pixels; it names the first one and the expected scale.
    """
    if values.dtype == np.uint8:
        return values
    kind = values.dtype.kind
    if kind not in "iuf":
        raise ImageError("pixels must be numbers, whole ones from 0 to 255")
    if values.size == 0:
        return values.astype(np.uint8)
    if kind == "f":
        _check_scale(values)
    low, high = values.min(), values.max()
    if low < 0 or high > 255:
        raise ImageError(f"pixels must be whole numbers from 0 to 255, got {_text(low if low < 0 else high)}; scale them to 0..255")
    return values.astype(np.uint8)


def to_pictures(values: npt.NDArray[Any], spec: ImageSpec) -> Pixels:
    """Turn numbers of shape (N, H, W, C), or (N, H, W) where the model takes grey, into uint8 (N, H, W, C) of `spec`.

    Raises ImageError for another shape, and what `to_uint8` raises.
    """
    if values.ndim == 3 and spec.channels == 1:
        values = values[..., None]
    if values.ndim != 4 or values.shape[1:] != spec.shape:
        raise ImageError(f"expected an array of shape {shape_text(spec)}, got {list(values.shape)}")
    return to_uint8(values)


def shape_text(spec: ImageSpec) -> str:
    """Return the shapes that a batch may have, as text for messages."""
    full = f"[N, {spec.height}, {spec.width}, {spec.channels}]"
    return f"{full} or [N, {spec.height}, {spec.width}]" if spec.channels == 1 else full


def _check_scale(values: npt.NDArray[Any]) -> None:
    if not np.isfinite(values).all():
        raise ImageError("pixels must be whole numbers from 0 to 255, got NaN or infinity")
    fractions = values != np.floor(values)
    if fractions.any():
        raise ImageError(
            f"pixels must be whole numbers from 0 to 255, got {_text(values[fractions][0])}; "
            "scale them to 0..255 and round, as the model does the rest itself"
        )
    if 0 < values.max() <= 1 and values.min() >= 0:
        raise ImageError("no floating point pixel is above 1: scale them to 0..255, or send whole numbers as UINT8")


def _text(value: Any) -> str:
    return f"{float(value):g}"
