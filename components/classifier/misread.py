"""What Pillow is known to misread: refused by the tag that shows it (MISREAD), or put right where a header tells (`repaired`)."""

import io
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from PIL import Image, ImageCms
from PIL.ImageCms import Flags, Intent

from components.classifier import jpeg2000
from components.classifier.errors import ImageError

_COMPRESSION, _WEBP = 259, 50001
_SUBFILE, _BITS, _PHOTOMETRIC, _PLANES, _SUB_IFDS, _SAMPLE_FORMAT, _DNG = 254, 258, 262, 284, 330, 339, 50706
_ORIENTATION = 0x0112
_LOSSLESS_OR_LAYERED = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}
"""Start-of-frame markers of JPEG's kinds that its decoder does not know (ISO/IEC 10918-1, table B.1)."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _tag(image: Image.Image, tag: int) -> tuple[Any, ...]:
    value = getattr(image, "tag_v2", {}).get(tag, ())
    return value if isinstance(value, tuple) else (value,)


def is_raw(image: Image.Image, data: bytes) -> bool:
    """A camera's raw file is a TIFF whose first page is a thumbnail of what it really holds."""
    if image.format != "TIFF":
        return False
    thumbnail = bool(_tag(image, _SUBFILE) and int(_tag(image, _SUBFILE)[0]) & 1)
    return bool(_tag(image, _DNG)) or data[8:10] == b"CR" or (thumbnail and (bool(_tag(image, _SUB_IFDS)) or _pages(image) > 1))


def _pages(image: Image.Image) -> int:
    return int(getattr(image, "n_frames", 1))


def _is_signed(image: Image.Image, _: bytes) -> bool:
    return 2 in _tag(image, _SAMPLE_FORMAT) and max(_tag(image, _BITS), default=1) <= 16


def _is_planar_16(image: Image.Image, _: bytes) -> bool:
    bits = _tag(image, _BITS)
    return _tag(image, _PLANES) == (2,) and len(bits) > 1 and 16 in bits


def _is_webp_in_tiff(image: Image.Image, _: bytes) -> bool:
    return _tag(image, _COMPRESSION) == (_WEBP,)


def _is_16_bit_rgb_with_key(image: Image.Image, data: bytes) -> bool:
    return image.format == "PNG" and data[24:26] == b"\x10\x02" and b"tRNS" in data[:1024] and "transparency" in image.info


def _is_lossless_jpeg(image: Image.Image, data: bytes) -> bool:
    if image.format != "JPEG":
        return False
    at = 2
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data) and data[at + 1] != 0xDA:
        if data[at + 1] in _LOSSLESS_OR_LAYERED:
            return True
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return False


MISREAD: dict[str, Callable[[Image.Image, bytes], bool]] = {
    "the content is a camera's raw file, of which only the thumbnail could be read; convert it to JPEG, PNG or TIFF": is_raw,
    "the TIFF holds signed numbers, of which the black level is unknown; save it with unsigned 8 or 16 bits": _is_signed,
    "the TIFF holds 16-bit colour in separate planes, which is not read; save it interleaved (chunky), or with 8 bits": _is_planar_16,
    "the TIFF is compressed as WebP, which is not read; save it with deflate or LZW": _is_webp_in_tiff,
    "the PNG holds 16-bit colour with a transparent colour; save it with an alpha channel, or with 8 bits": _is_16_bit_rgb_with_key,
    "the JPEG is lossless or in layers, which is not read; save it as PNG, or as a plain JPEG": _is_lossless_jpeg,
    "the JPEG 2000 has colours of more than 8 bits, or grey of neither 8 nor 16; save it with 8 bits": jpeg2000.is_deep,
}
"""Kinds that Pillow opens, and gives wrong pixels or a wrong cause for: the reason for the refusal, and what shows it in the header."""


def check_misread(image: Image.Image, data: bytes) -> None:
    """Raise ImageError for a picture that is opened, not yet loaded, and of a kind in MISREAD."""
    for reason, shows in MISREAD.items():
        if shows(image, data):
            raise ImageError(reason)


def check_depth(image: Image.Image) -> None:
    """Raise ImageError for pixels of unknown scale and for colours that are neither RGB nor grey; the picture is loaded."""
    bits = _tag(image, _BITS)
    if bits and not {1, 2, 4, 8, 16, 32, 64}.issuperset(bits):
        raise ImageError(f"the picture has {bits[0]} bits per pixel; save it with 8 or 16 bits")
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):  # Pillow reads 16-bit PGM as I
        kind = "32-bit integer" if image.mode == "I" else "floating point"
        raise ImageError(f"the picture has {kind} pixels of unknown scale; save it with 8 or 16 bits")
    if image.mode in {"LAB", "HSV"}:
        raise ImageError(f"the picture has {image.mode} colours; save it as RGB or grey")


def is_inverted(image: Image.Image) -> bool:
    """Say whether 0 is white in a TIFF ("WhiteIsZero"): Pillow turns 8 bits around, and not 16."""
    return _tag(image, _PHOTOMETRIC) == (0,)


def is_16_bit(image: Image.Image, data: bytes) -> bool:
    """Say whether a picture has 16 bits per sample, of which fewer may be used: PPM says itself what its brightest value is."""
    if image.format == "PNG":
        return data[24] == 16
    return set(_tag(image, _BITS)) == {16} or (image.format == "JPEG2000" and image.mode.startswith("I"))


def repaired(image: Image.Image, data: bytes) -> Image.Image:
    """Put right what Pillow leaves wrong and a header tells, and bring the colours to sRGB; the picture is loaded."""
    if image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")
    if image.format == "PNG":
        depth, colour_type = data[24], data[25]
        if colour_type == 0 and depth in {2, 4} and isinstance(image.info.get("transparency"), int):
            image.info["transparency"] *= 255 // (2**depth - 1)  # Pillow scales the pixels, and not the transparent grey
        if colour_type == 4 and image.mode == "RGBA":  # 16-bit grey with alpha
            return image.convert("LA")
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and image.mode in {"RGB", "RGBA", "CMYK"}:
        return _in_srgb(image, profile)
    return image


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    transform = _srgb_transform(profile, "CMYK" if image.mode == "CMYK" else "RGB")
    if transform is None:
        return image
    converted = transform.apply(image.convert("RGB") if image.mode == "RGBA" else image)
    if image.mode == "RGBA":
        converted.putalpha(image.getchannel("A"))
    converted.info.pop("icc_profile", None)
    return converted


@lru_cache(maxsize=16)
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The conversion of a profile's colours to sRGB; None for sRGB itself, for one of other channels, and for one that cannot be read."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        channels = source.profile.xcolor_space.strip()
        if channels != mode or "srgb" in (source.profile.profile_description or "").lower():
            return None
        return ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), mode, "RGB", Intent.RELATIVE_COLORIMETRIC, Flags.BLACKPOINTCOMPENSATION
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None


def turned(image: Image.Image) -> Image.Image:
    """Apply the orientation tag; ImageOps.exif_transpose would write all other tags again, and fails where one of them is odd."""
    if "exif" not in image.info and "Raw profile type exif" not in image.info and image.format != "TIFF":
        return image
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - damaged metadata of a good picture, in one of Pillow's many ways
        return image
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    if turn is None:
        return image
    upright = image.transpose(turn)
    upright.info = image.info
    return upright
