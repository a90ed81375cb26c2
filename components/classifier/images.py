"""From the bytes of a picture to the array that a model takes: the only preprocessing there is.

Ingest, batch scoring and the predictor all call `from_bytes`, so that a picture gives the same pixels by every way in.
The rules, in this order:

1. The content decides the format, never the name: PNG, JPEG, BMP, GIF, WebP, TIFF, PPM. Of several frames the first is taken.
2. The camera's orientation tag (EXIF 0x0112) is applied.
3. Transparent pixels lie on white.
4. 16-bit grey becomes 8-bit by v / 257, rounded. 32-bit integer and floating point pictures are refused: their scale is unknown.
5. Grey stays one channel; everything else becomes RGB.
6. `prepare` turns colour to grey by ITU-R 601-2 luma where the model takes one channel (grey is repeated where it takes
   three) and resizes bilinearly with antialiasing, without keeping the aspect ratio.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from components.classifier.errors import ImageError

Pixels = npt.NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MAX_PIXELS = 64_000_000
"""Largest picture that is decoded, in pixels: about 190 MB as RGB."""

_GREY_MODES = {"1", "L"}


@dataclass(frozen=True)
class ImageSpec:
    """What a model takes: height and width in pixels, and 1 (grey) or 3 (RGB) channels."""

    height: int
    width: int
    channels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return (self.height, self.width, self.channels)

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.channels}"


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode a picture in full, at its own size.

    Returns uint8 (H, W, 1) for grey and (H, W, 3) for RGB.
    Raises ImageError when the bytes are no picture, are cut or damaged, or hold more than `max_pixels` pixels.
    """
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of bombs; the latter are refused below
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise ImageError(
                        f"the picture has {image.width}x{image.height} pixels, more than the limit of {max_pixels}; make it smaller"
                    )
                image.load()
                upright = ImageOps.exif_transpose(image)
                return _to_uint8(upright)
    except UnidentifiedImageError as error:
        raise ImageError(f"the content is no picture in a known format ({', '.join(FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"the picture has more pixels than the limit of {max_pixels}; make it smaller") from error
    except MemoryError as error:
        raise ImageError("the picture is too large to be decoded in memory; make it smaller") from error
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError, IndexError, TypeError, KeyError, AttributeError) as error:
        # What Pillow's decoders raise for damaged files is open; these are the kinds that fuzzing brought up.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"the picture is cut or damaged ({reason[:120]})") from error


def is_picture(data: bytes) -> bool:
    """Say whether bytes begin like a picture in a known format; they may still be cut or damaged."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS):
            return True
    except UnidentifiedImageError:
        return False
    except Exception:  # noqa: BLE001 - recognised, and damaged in one of Pillow's many ways: decode says how
        return True


def prepare(pixels: Pixels, spec: ImageSpec) -> Pixels:
    """Bring decoded pixels to the channels and the size of `spec`.

    Takes uint8 (H, W, 1 or 3), returns a contiguous uint8 array of `spec.shape`.
    """
    grey = pixels.shape[2] == 1
    if pixels.shape == spec.shape:
        return np.ascontiguousarray(pixels)
    image = Image.fromarray(pixels[:, :, 0] if grey else pixels)
    image = image.convert("L" if spec.channels == 1 else "RGB")
    if image.size != (spec.width, spec.height):
        image = image.resize((spec.width, spec.height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8).reshape(spec.shape)


def from_bytes(data: bytes, spec: ImageSpec, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode a picture and bring it to what the model takes: uint8 of `spec.shape`.

    Raises ImageError as `decode` does.
    """
    return prepare(decode(data, max_pixels), spec)


def _to_uint8(image: Image.Image) -> Pixels:
    mode = image.mode
    if mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        return ((wide + 128) // 257).astype(np.uint8)[:, :, None]
    if mode in {"I", "F"}:
        raise ImageError(
            f"the picture has {'32-bit integer' if mode == 'I' else 'floating point'} pixels of unknown scale; save it with 8 or 16 bits"
        )
    if "transparency" in image.info or mode in {"RGBA", "LA", "PA", "La", "RGBa"}:
        grey = mode in {"L", "LA", "La", "1"}
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba).convert("L" if grey else "RGB")
    elif mode in _GREY_MODES:
        image = image.convert("L")
    else:
        image = image.convert("RGB")
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
