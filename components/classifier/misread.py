"""What Pillow is known to misread: refused by the tag that shows it (MISREAD), or put right where a header tells."""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator

from PIL import Image, ImagePalette

from components.classifier.depth import BITS, tag_of
from components.classifier.errors import ImageError

_COMPRESSION, _PLAIN, _WEBP = 259, 1, 50001
_PHOTOMETRIC, _YCBCR, _SUBSAMPLING = 262, 6, 530
_COLOUR_MAP, _EXTRA_SAMPLES = 320, 338
_SUBFILE, _PLANES, _SUB_IFDS, _SAMPLE_FORMAT, _DNG = 254, 284, 330, 339, 50706
_AT_ONCE = 4096
"""Compressed bytes of a PNG that are unpacked per call: they give 4 MiB at most."""
_LOSSLESS_OR_LAYERED = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}
"""Start-of-frame markers of JPEG's kinds that its decoder does not know (ISO/IEC 10918-1, table B.1)."""
_BOX, _START, _TILE_PART, _END = b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"\xff\x90", b"\xff\xd9"
"""Markers of JPEG 2000 (ISO/IEC 15444-1, annex A): a main header, the parts of its tiles, each with its length, and an end mark."""


def is_raw(image: Image.Image, data: bytes) -> bool:
    """A camera's raw file is a TIFF whose first page is a thumbnail of what it really holds."""
    if image.format != "TIFF":
        return False
    thumbnail = bool(tag_of(image, _SUBFILE) and int(tag_of(image, _SUBFILE)[0]) & 1)
    return bool(tag_of(image, _DNG)) or data[8:10] == b"CR" or (thumbnail and (bool(tag_of(image, _SUB_IFDS)) or _pages(image) > 1))


def _pages(image: Image.Image) -> int:
    return int(getattr(image, "n_frames", 1))


def _is_signed(image: Image.Image, _: bytes) -> bool:
    return 2 in tag_of(image, _SAMPLE_FORMAT) and max(tag_of(image, BITS), default=1) <= 16


def _is_planar_16(image: Image.Image, _: bytes) -> bool:
    bits = tag_of(image, BITS)
    return tag_of(image, _PLANES) == (2,) and len(bits) > 1 and 16 in bits


def _is_webp_in_tiff(image: Image.Image, _: bytes) -> bool:
    return tag_of(image, _COMPRESSION) == (_WEBP,)


def _is_plain_subsampled(image: Image.Image, _: bytes) -> bool:
    subsampled = tag_of(image, _SUBSAMPLING) or (2, 2)
    return tag_of(image, _PHOTOMETRIC) == (_YCBCR,) and tag_of(image, _COMPRESSION) in {(), (_PLAIN,)} and subsampled != (1, 1)


def _is_packed_for_iphones(_: Image.Image, data: bytes) -> bool:
    return data[12:16] == b"CgBI"


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


def _is_deep_jpeg2000(image: Image.Image, data: bytes) -> bool:
    """Read the number of components, and each one's depth and sign, from the SIZ marker (A.5.1): True but for 8 bits, and grey of 16."""
    if image.format != "JPEG2000" or (at := data.find(_START) + 2) < 2:
        return False
    (components,) = struct.unpack_from(">H", data, at + 38)
    depths = {data[at + 40 + 3 * component] for component in range(components)}
    return depths != {7} and (components, depths) != (1, {15})


MISREAD: dict[str, Callable[[Image.Image, bytes], bool]] = {
    "the content is a camera's raw file, of which only the thumbnail could be read; convert it to JPEG, PNG or TIFF": is_raw,
    "the TIFF holds signed numbers, of which the black level is unknown; save it with unsigned 8 or 16 bits": _is_signed,
    "the TIFF holds 16-bit colour in separate planes, which is not read; save it interleaved (chunky), or with 8 bits": _is_planar_16,
    "the TIFF is compressed as WebP, which is not read; save it with deflate or LZW": _is_webp_in_tiff,
    "the TIFF holds YCbCr with fewer colours than pixels and no compression, which is not read; save it as RGB": _is_plain_subsampled,
    "the PNG is packed for iPhones (CgBI), which is not read; convert it by pngcrush -revert-iphone-optimizations": _is_packed_for_iphones,
    "the PNG holds 16-bit colour with a transparent colour; save it with an alpha channel, or with 8 bits": _is_16_bit_rgb_with_key,
    "the JPEG is lossless or in layers, which is not read; save it as PNG, or as a plain JPEG": _is_lossless_jpeg,
    "the JPEG 2000 has colours of more than 8 bits, or grey of neither 8 nor 16; save it with 8 bits": _is_deep_jpeg2000,
}
"""Kinds that Pillow opens, and gives wrong pixels or a wrong cause for: the reason for the refusal, and what shows it in the header."""


def check_misread(image: Image.Image, data: bytes) -> None:
    """Raise ImageError for a picture that is opened, not yet loaded, and of a kind in MISREAD."""
    for reason, shows in MISREAD.items():
        if shows(image, data):
            raise ImageError(reason)


def whole_jpeg2000(data: bytes) -> bytes:
    """Return a picture's bytes, those of a JPEG 2000 so that it can be read; all other bytes are returned as they are.

    OpenJPEG takes a codestream that ends between two parts, or behind the header of one, for a whole picture, and fills it up with grey.
    Where a tile has more parts than its headers count, as some encoders write it, the counts are left open (0): OpenJPEG puts them right
    only where it can seek, which Pillow does not let it do. Raises ImageError for a codestream that is cut between two of its parts.
    """
    if not data.startswith((_BOX, _START)) or (at := data.find(_START) + 2) < 2:
        return data
    while data[at : at + 1] == b"\xff" and data[at : at + 2] != _TILE_PART:  # the main header's markers
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    counts, wrong = list[int](), False
    while data[at : at + 2] == _TILE_PART and at + 12 <= len(data):
        size, part, count = struct.unpack_from(">IBB", data, at + 6)
        counts.append(at + 11)
        wrong |= part >= count > 0
        if not size:  # as long as the codestream
            at = data.rfind(_END, at)
            break
        at += size
    if at < 0 or data[at : at + 2] != _END:
        raise ImageError("the picture is cut or damaged (its end is missing)")
    if not wrong:
        return data
    changed = bytearray(data)
    for place in counts:
        changed[place] = 0
    return bytes(changed)


def mend_palette(image: Image.Image) -> None:
    """Read a TIFF's palette of 8 bits, which some write where 16 belong, as such: Pillow takes the high byte, and has black for all."""
    colours = tag_of(image, _COLOUR_MAP)
    if image.mode == "P" and colours and max(colours) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))


def check_loaded(image: Image.Image, data: bytes) -> None:
    """Raise ImageError for a loaded picture whose pixels show that it is misread.

    That is a TIFF with a fourth sample that may be transparency or a colour, which nothing says, and a PNG whose compressed pixels end
    too early: Pillow leaves its last rows black.
    """
    unsaid = image.format == "TIFF" and image.mode == "RGBA" and not tag_of(image, _EXTRA_SAMPLES)
    if unsaid and image.getchannel("A").getextrema() != (255, 255):
        raise ImageError("the TIFF does not say what its fourth sample is (ExtraSamples); save it as RGB, or as RGBA with that tag")
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


def repair(image: Image.Image, kind: str, data: bytes) -> Image.Image:
    """Put right what Pillow leaves wrong and a header tells; the picture is loaded and turned."""
    if kind == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")
    extent = getattr(image, "dispose_extent", None)
    if kind == "GIF" and extent and extent != (0, 0, *image.size) and "transparency" not in image.info:
        whole = Image.new("LA" if image.mode == "L" else "RGBA", image.size)  # Pillow has the palette's first colour around the frame
        whole.paste(image.crop(extent).convert(whole.mode), extent)
        return whole
    if kind == "PNG":
        depth, colour_type = data[24], data[25]
        if colour_type == 0 and depth in {2, 4} and isinstance(image.info.get("transparency"), int):
            image.info["transparency"] *= 255 // (2**depth - 1)  # Pillow scales the pixels, and not the transparent grey
        if colour_type == 4 and image.mode == "RGBA":  # 16-bit grey with alpha
            return image.convert("LA")
    return image
