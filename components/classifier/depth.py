"""From a decoded picture of any mode and depth to uint8, grey or RGB on white; depths of unknown scale are refused."""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.classifier.errors import ImageError

Pixels = npt.NDArray[np.uint8]
BITS, _PHOTOMETRIC = 258, 262
"""Tags of a TIFF."""

_ALPHA_MODES = {"RGBA", "LA", "PA", "La", "RGBa"}
_STRIP_PIXELS = 1_000_000
"""Pixels that are converted at a time, so that a conversion needs little beside the picture itself."""
_OTHER_BYTE = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


def tag_of(image: Image.Image, number: int) -> tuple[Any, ...]:
    """Return the values of a TIFF's tag; none where there is no such tag, as in all other formats."""
    value = getattr(image, "tag_v2", {}).get(number, ())
    return value if isinstance(value, tuple) else (value,)


def is_16_bit(image: Image.Image, data: bytes) -> bool:
    """Say whether a picture has 16 bits per sample, of which fewer may be used: PPM says itself what its brightest value is."""
    if image.format == "PNG":
        return data[24] == 16
    return set(tag_of(image, BITS)) == {16} or (image.format == "JPEG2000" and image.mode.startswith("I"))


def is_inverted(image: Image.Image) -> bool:
    """Say whether 0 is white in a TIFF ("WhiteIsZero"): Pillow turns 8 bits around, and not 16."""
    return tag_of(image, _PHOTOMETRIC) == (0,)


def check_depth(image: Image.Image) -> None:
    """Raise ImageError for pixels of unknown scale and for colours that are neither RGB nor grey; the picture is loaded."""
    bits = tag_of(image, BITS)
    if bits and not {1, 2, 4, 8, 16, 32, 64}.issuperset(bits):
        raise ImageError(f"the picture has {bits[0]} bits per pixel; save it with 8 or 16 bits")
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):  # Pillow reads 16-bit PGM as I
        kind = "32-bit integer" if image.mode == "I" else "floating point"
        raise ImageError(f"the picture has {kind} pixels of unknown scale; save it with 8 or 16 bits")
    if image.mode in {"LAB", "HSV"}:
        raise ImageError(f"the picture has {image.mode} colours; save it as RGB or grey")


def peak(image: Image.Image) -> int:
    """The largest sample of a loaded picture of 16 bits: itself for grey, the largest that its high byte may stand for in colour."""
    if image.mode.startswith("I"):
        return int(np.asarray(image).max())
    return 256 * max(int(image.getchannel(band).getextrema()[1]) for band in image.getbands() if band != "A") + 255  # type: ignore[arg-type]


def check_levels(image: Image.Image, largest: int, levels: int) -> None:
    """Raise ImageError for a picture that does not fit into fewer than 16 bits: by its values, or with transparency or CMYK."""
    if largest >> levels:
        raise ImageError(
            f"the picture holds values up to {largest:,}, above the {2**levels - 1:,} of levels={levels}; give the levels that it has"
        )
    if image.mode != "RGB" and not image.mode.startswith("I"):
        raise ImageError(
            f"the picture has {image.mode} of 16 bits, which levels={levels} cannot scale; save it as grey or RGB without transparency"
        )


def stretch_colours(image: Image.Image, again: Image.Image, levels: int) -> None:
    """Replace the pixels of a loaded RGB picture of 16 bits by 255 v / (2**levels - 1), rounded; `again` is the file opened anew.

    Pillow keeps the high byte of each sample only. Read in the other byte order, the same file gives the low one.
    """
    with again:
        again.tile = [tile._replace(args=_other_byte(tile.args)) for tile in again.tile]  # type: ignore[attr-defined]
        again.load()
        rows, full = max(1, _STRIP_PIXELS // image.width), 2**levels - 1
        for top in range(0, image.height, rows):
            box = (0, top, image.width, min(image.height, top + rows))
            values = np.asarray(image.crop(box)).astype(np.uint32) << 8 | np.asarray(again.crop(box))
            image.paste(Image.fromarray(_narrow(values, full)), box)


def _other_byte(args: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """What Pillow's decoders are given, with the raw mode of the other byte order: RGB;16B for RGB;16L."""
    if isinstance(args, str):
        return args[:-1] + _OTHER_BYTE[args[-1]]
    return (args[0][:-1] + _OTHER_BYTE[args[0][-1]], *args[1:])


def _narrow(values: npt.NDArray[np.uint32], full: int) -> Pixels:
    return ((values * 255 + full // 2) // full).astype(np.uint8)


def to_uint8(image: Image.Image, inverted: bool = False, levels: int = 16) -> Pixels:
    """Convert a loaded picture: uint8 (H, W, 1) for grey and (H, W, 3) for everything else, on white.

    Of 16-bit grey 2**levels - 1 is the brightest value; `inverted` says that 0 is white in it.
    """
    if image.mode.startswith("I"):
        return _from_16_bits(image, inverted, 2**levels - 1)
    transparent = "transparency" in image.info or image.mode in _ALPHA_MODES
    grey = image.mode in {"1", "L", "LA", "La"}
    convert = _on_white if transparent else _plain
    rows = max(1, _STRIP_PIXELS // image.width)
    if rows >= image.height:
        return convert(image, grey)
    result = np.empty((image.height, image.width, 1 if grey else 3), np.uint8)
    for top in range(0, image.height, rows):
        bottom = min(image.height, top + rows)
        strip = image.crop((0, top, image.width, bottom))
        strip.info = image.info
        result[top:bottom] = convert(strip, grey)
    return result


def _plain(image: Image.Image, grey: bool) -> Pixels:
    mode = "L" if grey else "RGB"
    pixels = np.asarray(image if image.mode == mode else image.convert(mode), dtype=np.uint8)
    return pixels[:, :, None] if grey else pixels


def _on_white(image: Image.Image, grey: bool) -> Pixels:
    if image.mode in {"La", "RGBa"}:  # premultiplied: the colour is there already, white comes through where it is not
        parts = np.asarray(image, dtype=np.uint8).astype(np.uint16)
        result: Pixels = np.minimum(parts[..., :-1] + (255 - parts[..., -1:]), 255).astype(np.uint8)
        return result
    rgba = image.convert("RGBA")
    return _plain(Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba), grey)


def _from_16_bits(image: Image.Image, inverted: bool, full: int) -> Pixels:
    wide = np.asarray(image)
    transparent = image.info.get("transparency")
    pixels = np.empty((*wide.shape, 1), np.uint8)
    rows = max(1, _STRIP_PIXELS // max(1, wide.shape[1]))
    for top in range(0, len(wide), rows):
        strip = wide[top : top + rows].astype(np.uint32)
        narrow = _narrow(strip, full)
        if inverted:
            narrow = 255 - narrow
        if isinstance(transparent, int):
            narrow[strip == transparent] = 255
        pixels[top : top + rows, :, 0] = narrow
    return pixels
