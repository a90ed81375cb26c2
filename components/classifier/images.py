"""From a picture's pixels to the array that a model takes: the only preprocessing there is.

Ingest, batch scoring and the predictor all decode by `decode.py` and then call `prepare`, so that a picture gives the same pixels by
every way in: it is read in full at its own size, then `prepare` turns colour to grey by ITU-R 601-2 luma where the model takes one
channel (grey is repeated where it takes three) and resizes bilinearly with antialiasing, without keeping the aspect ratio.

Arrays of numbers, in live requests and batch scoring, are taken by one rule (`to_uint8`): pixels are whole numbers from 0 to 255. uint8
arrays are taken as they are; arrays of another dtype only when every value is such a whole number. Floating point arrays in which no
value is above 1 are refused, unless all are 0: they were scaled to 0..1, and would be classified as black pictures.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.classifier.decode import MAX_PIXELS, decode
from components.classifier.decode import Pixels as Pixels  # the type of all pixels; most callers need it beside ImageSpec
from components.classifier.errors import ImageError

LARGE = 2_000_000
"""Pictures of more pixels are prepared, and made grey, in parts, so that this takes little memory beside them."""
_VALUES_AT_ONCE = 2**17
"""Values that are measured together: half a megabyte as float32, which stays in the processor's cache."""


@dataclass(frozen=True)
class ImageSpec:
    """What a model takes: height and width in pixels, 1 (grey) or 3 (RGB) channels, and how 16-bit files are read."""

    height: int
    width: int
    channels: int
    levels: int = 16
    """In files of 16 bits per sample the brightest value is 2**levels - 1."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (height, width, channels)."""
        return (self.height, self.width, self.channels)

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.channels}" + (f" (levels={self.levels})" if self.levels != 16 else "")


def prepare(pixels: Pixels, spec: ImageSpec) -> Pixels:
    """Convert decoded pixels, uint8 (H, W, 1 or 3), to the channels and size of `spec`; returns a contiguous array."""
    if pixels.shape == spec.shape:
        return np.ascontiguousarray(pixels)
    if pixels.shape[0] * pixels.shape[1] > LARGE:
        return _prepare_large(pixels, spec)
    image = as_image(pixels).convert("L" if spec.channels == 1 else "RGB")
    if image.size != (spec.width, spec.height):
        image = image.resize((spec.width, spec.height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8).reshape(spec.shape)


def _prepare_large(pixels: Pixels, spec: ImageSpec) -> Pixels:
    """The same in little memory beside the pixels: Pillow resizes each channel by itself, and would hold all of them once more."""
    pixels = grey(pixels) if spec.channels == 1 else pixels
    size = (spec.width, spec.height)
    planes = (Image.fromarray(np.ascontiguousarray(pixels[..., k])) for k in range(pixels.shape[2]))
    resized = [np.asarray(plane.resize(size, Image.Resampling.BILINEAR)) for plane in planes]
    return np.stack(resized if len(resized) == spec.channels else resized * spec.channels, axis=2)


def grey(pixels: Pixels) -> Pixels:
    """Pixels, uint8 (H, W, 1 or 3), as grey ones (H, W, 1), converted in strips."""
    if pixels.shape[2] == 1:
        return pixels
    result = np.empty((*pixels.shape[:2], 1), np.uint8)
    rows = max(1, LARGE // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        result[top : top + rows, :, 0] = as_image(pixels[top : top + rows]).convert("L")
    return result


def from_bytes(data: bytes, spec: ImageSpec, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode a picture and convert it to what the model takes, uint8 of `spec.shape`, for code that uses an exported model.

    Raises ImageError as `decode` does.
    """
    return prepare(decode(data, max_pixels, levels=spec.levels), spec)


def as_image(pixels: Pixels) -> Image.Image:
    """Return pixels, uint8 (H, W, 1 or 3), as Pillow's picture of mode L or RGB."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def encode_png(pixels: Pixels) -> bytes:
    """Encode pixels, uint8 (H, W, 1 or 3), as PNG, without loss."""
    buffer = io.BytesIO()
    as_image(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def brightness_and_contrast(pixels: Pixels) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the mean and standard deviation of the pixels of each picture, float32 (n,); `pixels` is uint8 (n, H, W, C).

    Evaluation stores them for the test split and scoring compares with them, so both must measure in the same way.
    """
    brightness, contrast = np.empty(len(pixels), np.float32), np.empty(len(pixels), np.float32)
    step = max(1, _VALUES_AT_ONCE // max(1, pixels[:1].size))
    for start in range(0, len(pixels), step):
        part = slice(start, start + step)
        rows = np.asarray(pixels[part], dtype=np.float32).reshape(len(pixels[part]), -1)
        brightness[part], contrast[part] = rows.mean(axis=1), rows.std(axis=1)
    return brightness, contrast


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
