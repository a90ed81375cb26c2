"""From the bytes of a picture to the array that a model takes: the only preprocessing there is.

Ingest, batch scoring and the predictor all call `from_bytes`, so that a picture gives the same pixels by every way in.
The rules, in this order:

1. The content decides the format, never the name: PNG, JPEG, BMP, GIF, WebP, TIFF, PPM. Of several frames the first is taken.
2. A picture is decoded in full or refused: one that is cut, fails its checksum or lacks its end is never filled up.
3. The camera's orientation tag (EXIF 0x0112) is applied.
4. Transparent pixels lie on white.
5. 16-bit grey becomes 8-bit by v / 257, rounded; 16-bit colour by its high byte, which differs by 1 at most. Pixels of 12 or
   32 bits and floating point ones are refused: their scale is unknown.
6. Grey stays one channel; everything else (palettes, CMYK, YCbCr) becomes RGB, without colour profiles.
7. `prepare` turns colour to grey by ITU-R 601-2 luma where the model takes one channel (grey is repeated where it takes
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

# Pillow warns of odd metadata, and of bombs, which are refused below. `catch_warnings` would not do: it is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

_ALPHA_MODES = {"RGBA", "LA", "PA", "La", "RGBa"}
_BITS_PER_SAMPLE = 258
"""The TIFF tag."""
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_ZEROS = 32
"""As many zero bytes do not end a compressed picture."""


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
    Raises ImageError, and nothing else, when the bytes are no picture, are cut or damaged, or hold more than `max_pixels` pixels.
    """
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_pixels(image, max_pixels)
            _check_whole(image.format or "", data)
            image.load()
            _check_depth(image)
            return _to_uint8(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"the content is no picture in a known format ({', '.join(FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"the picture has more pixels than the limit of {max_pixels}; make it smaller") from error
    except MemoryError as error:
        raise ImageError("the picture is too large to be decoded in memory; make it smaller") from error
    except Exception as error:  # what Pillow's decoders raise for damaged files has no common base
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


def encode_png(pixels: Pixels) -> bytes:
    """Encode pixels, uint8 (H, W, 1 or 3), as PNG, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def brightness_and_contrast(pixels: Pixels) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Measure how pictures look, uint8 (n, H, W, C): mean and standard deviation of each one's pixels, float32 (n,).

    Evaluation stores these for the test split and scoring compares with them, so both must measure alike.
    """
    rows = np.asarray(pixels, dtype=np.float32).reshape(len(pixels), -1)
    return rows.mean(axis=1), rows.std(axis=1)


def _check_pixels(image: Image.Image, limit: int) -> None:
    if image.width * image.height > limit:
        raise ImageError(f"the picture has {image.width}x{image.height} pixels, more than the limit of {limit}; make it smaller")


def _check_whole(kind: str, data: bytes) -> None:
    """Find damage that Pillow's decoders pass over and fill with grey or black: bad checksums, and ends overwritten by zeros."""
    if kind == "PNG":
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.verify()  # reads every chunk's checksum up to the end mark
    elif data.endswith(bytes(_ZEROS)) and (
        kind == "WEBP" or (kind in {"JPEG", "MPO"} and data.rfind(_END_OF_IMAGE) < data.rfind(_START_OF_SCAN))
    ):
        raise ImageError("the picture is cut or damaged (its end is overwritten by zeros)")


def _check_depth(image: Image.Image) -> None:
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, ())
    if bits and not {1, 2, 4, 8, 16, 32, 64}.issuperset(bits):
        raise ImageError(f"the picture has {bits[0]} bits a pixel; save it with 8 or 16 bits")
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):  # Pillow reads 16-bit PGM as I
        kind = "32-bit integer" if image.mode == "I" else "floating point"
        raise ImageError(f"the picture has {kind} pixels of unknown scale; save it with 8 or 16 bits")
    if image.mode in {"LAB", "HSV"}:
        raise ImageError(f"the picture has {image.mode} colours; save it as RGB or grey")


def _to_uint8(image: Image.Image) -> Pixels:
    mode = image.mode
    if mode.startswith("I"):
        return _from_16_bits(image)
    if mode == "La":  # premultiplied grey, which converts to LA only
        image, mode = image.convert("LA"), "LA"
    if "transparency" in image.info or mode in _ALPHA_MODES:
        grey = mode in {"L", "LA", "1"}
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba).convert("L" if grey else "RGB")
    elif mode in {"1", "L"}:
        image = image.convert("L")
    else:
        image = image.convert("RGB")
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _from_16_bits(image: Image.Image) -> Pixels:
    wide = np.asarray(image).astype(np.uint32)
    pixels = ((wide + 128) // 257).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        pixels[wide == transparent] = 255
    return pixels[:, :, None]
