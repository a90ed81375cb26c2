"""What Pillow is known to misread: refused by the tag that shows it (MISREAD), or put right where a header tells (`repair`)."""

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, Literal

from PIL import Image, ImageCms
from PIL.ImageCms import Flags, Intent

from components.classifier import jpeg2000
from components.classifier.errors import ImageError

_COMPRESSION, _WEBP = 259, 50001
_SUBFILE, _BITS, _PHOTOMETRIC, _PLANES, _SUB_IFDS, _SAMPLE_FORMAT, _DNG = 254, 258, 262, 284, 330, 339, 50706
_ORIENTATION = 0x0112
_AT_ONCE = 4096
"""Bytes of a PNG that are unpacked together: to 4 MiB at most."""
_LOSSLESS_OR_LAYERED = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}
"""Start-of-frame markers of JPEG's kinds that its decoder does not know (ISO/IEC 10918-1, table B.1)."""
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
"""Of the types that a tag's value may have."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


Unread = Literal["orientation", "profile"]
UNREAD: dict[Unread, str] = {
    "orientation": "EXIF that cannot be read: a turn that it tells is not applied",
    "profile": "a colour profile that cannot be read: the colours are taken as sRGB",
}
"""What a picture may have beside its pixels that is damaged and would change them, and what becomes of the picture then."""


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
    return image.format == "PNG" and data[24:26] == b"\x10\x02" and "transparency" in image.info


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


def check_rows(image: Image.Image, data: bytes) -> None:
    """Raise ImageError for a PNG, which is loaded, whose compressed pixels end too early: Pillow leaves its last rows black."""
    if image.format != "PNG" or (not data[28] and any(image.crop((0, image.height - 1, *image.size)).tobytes())):
        return
    bits = data[24] * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[data[25]]
    passes = _ADAM7 if data[28] else ((0, 0, 1, 1),)
    sizes = [(-(-(image.width - x) // across), -(-(image.height - y) // down)) for x, y, across, down in passes]
    if not has_all_rows(_compressed(data), sum(height * (1 + (width * bits + 7) // 8) for width, height in sizes if width > 0 < height)):
        raise ImageError("the picture is cut or damaged (its last rows are missing)")


_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of each pass of an interlaced PNG: its first column and row, and the steps from one to the next."""


def _compressed(data: bytes) -> Iterator[bytes]:
    at, kind = 8, b""
    while kind != b"IEND":
        size, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if kind == b"IDAT":
            yield data[at + 8 : at + 8 + size]
        at += 12 + size


def has_all_rows(compressed: Iterable[bytes], size: int) -> bool:
    """Say whether the `IDAT` chunks of a PNG hold `size` bytes when unpacked: its decoder leaves rows that are not there black."""
    unpacking, number = zlib.decompressobj(), 0
    for part in compressed:
        for at in range(0, len(part), _AT_ONCE):
            try:
                number += len(unpacking.decompress(part[at : at + _AT_ONCE]))
            except zlib.error:
                return False
            if number >= size:
                return True
    return False


def is_inverted(image: Image.Image) -> bool:
    """Say whether 0 is white in a TIFF ("WhiteIsZero"): Pillow turns 8 bits around, and not 16."""
    return _tag(image, _PHOTOMETRIC) == (0,)


def is_16_bit(image: Image.Image, data: bytes) -> bool:
    """Say whether a picture has 16 bits per sample, of which fewer may be used: PPM says itself what its brightest value is."""
    if image.format == "PNG":
        return data[24] == 16
    return set(_tag(image, _BITS)) == {16} or (image.format == "JPEG2000" and image.mode.startswith("I"))


def repair(image: Image.Image, kind: str, data: bytes) -> tuple[Image.Image, set[Unread]]:
    """Put right what Pillow leaves wrong and a header tells, and bring the colours to sRGB; the picture is loaded and turned.

    Also says whether there is a profile that cannot be read.
    """
    if kind == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB"), set()
    if kind == "PNG":
        depth, colour_type = data[24], data[25]
        if colour_type == 0 and depth in {2, 4} and isinstance(image.info.get("transparency"), int):
            image.info["transparency"] *= 255 // (2**depth - 1)  # Pillow scales the pixels, and not the transparent grey
        if colour_type == 4 and image.mode == "RGBA":  # 16-bit grey with alpha
            return image.convert("LA"), set()
    if image.mode not in {"RGB", "RGBA", "CMYK", "P"} or "icc_profile" not in image.info:
        return image, set()
    profile = image.info["icc_profile"]  # None where the parts of a JPEG's profile are not all there
    transform = _srgb_transform(profile, "CMYK" if image.mode == "CMYK" else "RGB") if isinstance(profile, bytes) else "unread"
    if transform == "unread":
        return image, {"profile"}
    return (image if transform is None else _in_srgb(image, transform)), set()


def _in_srgb(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    converted = transform.apply(image.convert("RGB") if image.mode == "RGBA" else image)
    if image.mode == "RGBA":
        converted.putalpha(image.getchannel("A"))
    return converted


@lru_cache(maxsize=16)
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | Literal["unread"] | None:
    """The conversion of a profile's colours to sRGB; None for sRGB itself, "unread" for one of other channels, or that cannot be read."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != mode:
            return "unread"
        if "srgb" in (source.profile.profile_description or "").lower():
            return None
        return ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), mode, "RGB", Intent.RELATIVE_COLORIMETRIC, Flags.BLACKPOINTCOMPENSATION
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return "unread"


def turned(image: Image.Image) -> tuple[Image.Image, set[Unread]]:
    """Apply the orientation tag, and say whether it cannot be read.

    Pillow's own functions fail where another tag is odd, and take a damaged block of EXIF for one without a turn.
    """
    found = _tag(image, _ORIENTATION) or (1,) if image.format == "TIFF" else (_orientation(image.info.get("exif", b"")),)
    turn = found[0] if len(found) == 1 else None
    if not isinstance(turn, int) or not 0 <= turn <= 8:
        return image, {"orientation"}
    if turn not in _TURNS:
        return image, set()
    upright = image.transpose(_TURNS[turn])
    upright.info = image.info
    return upright, set()


def _orientation(block: bytes) -> int | None:
    """Read the orientation of a block of EXIF: 1 where it has none, None where it cannot be read or says two things."""
    while block.startswith(b"Exif\0\0"):
        block = block[6:]
    if not block:
        return 1
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4], "")
    found = set[int | None]()
    try:
        (start,) = struct.unpack_from(f"{order or '<'}I", block, 4)
        (count,) = struct.unpack_from(f"{order or '<'}H", block, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(f"{order}HHI", block, at)
            if tag == _ORIENTATION:
                found.add(
                    struct.unpack_from(order + _WHOLE_NUMBERS[kind], block, at + 8)[0] if number == 1 and kind in _WHOLE_NUMBERS else None
                )
    except struct.error:
        return None
    return None if not order or len(found) > 1 else found.pop() if found else 1
