"""The input tensor of the V2 protocol, by HTTP or gRPC: numbers or encoded pictures, and what may be wrong with them."""

import math
import struct
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from components.classifier.arrays import shape_text, to_pictures
from components.classifier.errors import ImageError, RequestError
from components.classifier.images import ImageSpec, Pixels
from components.predictor.nested import outline, to_array
from components.predictor.pictures import PictureReader, decode_base64
from components.predictor.question import Original, check_count, most_images
from components.predictor.settings import Settings

NUMPY: dict[str, np.dtype[Any]] = {
    **{f"{sign}INT{bits}": np.dtype(f"<{'u' if sign else 'i'}{bits // 8}") for sign in ("U", "") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
"""Datatypes of numbers; UINT8 is the model's own, the others are taken by the rule of components.classifier.arrays."""
DATATYPES = (*NUMPY, "BYTES")
_MAX_DIMENSIONS = 8
_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input as it came: `data` from JSON or gRPC, or `raw` bytes (BYTES with a 4-byte length before each element).

    Its name is not kept: the model has one input, and clients call it what they like.
    """

    datatype: str
    shape: list[int]
    data: Any = None
    raw: bytes | None = None


def pictures(tensor: Tensor, spec: ImageSpec, settings: Settings) -> tuple[Pixels, list[Original]]:
    """Turn a tensor into pictures, uint8 (N, H, W, C), and the bytes they came in where they were encoded.

    Numbers have shape [N, H, W, C], or [N, H, W] where the model takes grey; encoded pictures [N] or [N, 1], where N may be
    -1 for as many as come. Raises RequestError.
    """
    shape = tensor.shape
    if not 0 < len(shape) <= _MAX_DIMENSIONS or not all(type(size) is int and size >= _UNKNOWN for size in shape):
        raise RequestError("inputs[0].shape must be a list of whole numbers that are not negative")
    if tensor.datatype == "BYTES":
        return _encoded_pictures(tensor, spec, settings)
    if tensor.datatype not in NUMPY:
        raise RequestError(f"inputs[0].datatype must be UINT8, BYTES or another of {', '.join(NUMPY)}")
    grey = spec.channels == 1 and shape[1:] == list(spec.shape[:2])
    if (not grey and shape[1:] != list(spec.shape)) or shape[0] == _UNKNOWN:
        raise RequestError(f"inputs[0].shape must be {shape_text(spec)}, got {shape}")
    check_count(shape[0], spec, settings)
    try:
        images = to_pictures(_numbers(tensor).reshape(shape), spec)
    except ImageError as error:
        raise RequestError(f"inputs[0]: {error}") from error
    return images, [None] * len(images)


def _numbers(tensor: Tensor) -> npt.NDArray[Any]:
    """Flat or shaped array of a tensor's numbers, as many as its shape says."""
    dtype, number = NUMPY[tensor.datatype], math.prod(tensor.shape)
    if tensor.raw is not None:
        if len(tensor.raw) != number * dtype.itemsize:
            raise RequestError(
                f"{tensor.datatype} of shape {tensor.shape} needs {number * dtype.itemsize} bytes of binary data, got {len(tensor.raw)}"
            )
        return np.frombuffer(tensor.raw, dtype)
    values = to_array(tensor.data, [number])
    if values is None:
        values = to_array(tensor.data, tensor.shape)
    if values is None:
        raise RequestError(
            f"inputs[0].data must be a list of {number} numbers, or nested as shape {tensor.shape} says; "
            f"got {outline(tensor.data)} or other content"
        )
    return values.astype(np.float64) if dtype.kind == "f" else values  # 0 and 1 as FP32 are as dubious as 0.0 and 1.0


def _encoded_pictures(tensor: Tensor, spec: ImageSpec, settings: Settings) -> tuple[Pixels, list[Original]]:
    shape = tensor.shape
    if shape not in ([shape[0]], [shape[0], 1]):
        raise RequestError(f"inputs[0].shape must be [N] for encoded pictures, got {shape}")
    if shape[0] != _UNKNOWN:
        check_count(shape[0], spec, settings)
    most = most_images(spec, settings) if shape[0] == _UNKNOWN else shape[0]
    elements = _elements(tensor, most)
    if shape[0] == _UNKNOWN:
        check_count(len(elements), spec, settings)
    elif len(elements) != shape[0]:
        raise RequestError(f"inputs[0].shape says {shape[0]} elements, but {'more' if len(elements) > shape[0] else len(elements)} came")
    reader = PictureReader(spec, settings.max_pixels)
    images = np.empty((len(elements), *spec.shape), np.uint8)
    for index, element in enumerate(elements):
        images[index] = reader.read(element, f"inputs[0], element {index}")
    return images, list(elements)


def _elements(tensor: Tensor, most: int) -> list[bytes]:
    """The elements of a BYTES tensor, one more than `most` at most."""
    if tensor.raw is not None:
        return _split(tensor.raw, most)
    data = tensor.data
    if type(data) is not list:
        raise RequestError("inputs[0].data must be a list of base64 strings")
    flat = list(chain.from_iterable(data)) if data and all(type(item) is list for item in data) else data
    return [
        item if type(item) is bytes else decode_base64(item, f"inputs[0], element {index}") for index, item in enumerate(flat[: most + 1])
    ]


def _split(raw: bytes, most: int) -> list[bytes]:
    """Split binary BYTES data: each element has its length before it, 4 bytes, little-endian."""
    wanted = "BYTES data must have a 4-byte length before each element"
    elements: list[bytes] = []
    offset = 0
    while offset < len(raw) and len(elements) <= most:
        left = len(raw) - offset - 4
        if left < 0:
            raise RequestError(f"{wanted}; {left + 4} bytes are left over")
        (length,) = struct.unpack_from("<I", raw, offset)
        if length > left:
            raise RequestError(f"{wanted}; element {len(elements)} says {length} bytes, {left} are left")
        elements.append(raw[offset + 4 : offset + 4 + length])
        offset += 4 + length
    return elements
