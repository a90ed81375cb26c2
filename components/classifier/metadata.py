"""What lies beside the pixels of a picture and changes them: its turn (EXIF), its colour profile (ICC), and further pages."""

import io
import struct
from functools import lru_cache
from typing import Literal

from PIL import Image, ImageCms
from PIL.ImageCms import Flags, Intent

from components.classifier.depth import tag_of

_ORIENTATION = 0x0112
_SUBFILE, _COPY_OR_MASK = 254, 0b101
"""NewSubfileType of a TIFF's page, and its bits."""
_MAX_TAGS = 1000
"""Of a page: more are not looked through."""
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

Unread = Literal["orientation", "profile", "pages"]
UNREAD: dict[Unread, str] = {
    "orientation": "EXIF that cannot be read: a turn that it tells is not applied",
    "profile": "a colour profile that cannot be read: the colours are taken as sRGB",
    "pages": "more pages than one, of which the first is used",
}
"""What a picture may have beside its pixels that is not read and would change them, and what becomes of the picture then."""


def turned(image: Image.Image) -> tuple[Image.Image, set[Unread]]:
    """Apply the orientation tag, and say whether it cannot be read.

    Pillow's own functions fail where another tag is odd, and take a damaged block of EXIF for one without a turn.
    """
    found = tag_of(image, _ORIENTATION) or (1,) if image.format == "TIFF" else (_orientation(image.info.get("exif", b"")),)
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


def has_pages(image: Image.Image, data: bytes) -> bool:
    """Say whether a TIFF's second page is a picture by itself, not a smaller copy of the first or a mask."""
    at = int(getattr(getattr(image, "tag_v2", None), "next", 0))  # 0: there is none, or this is no TIFF
    if not 0 < at < len(data):
        return False
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    wide = 43 in data[2:4]  # BigTIFF
    head, entry = (8, 20) if wide else (2, 12)
    count = min(_MAX_TAGS, int.from_bytes(data[at : at + head], order))
    for place in range(at + head, at + head + entry * count, entry):
        if int.from_bytes(data[place : place + 2], order) == _SUBFILE:
            value = data[place + entry - (8 if wide else 4) : place + entry]
            return int.from_bytes(value, order) & _COPY_OR_MASK == 0
    return True


def to_srgb(image: Image.Image) -> tuple[Image.Image, set[Unread]]:
    """Bring colours to sRGB, and say whether there is a profile that cannot be read; the picture is loaded."""
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
