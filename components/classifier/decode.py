"""From the bytes of a picture to its pixels at its own size: decoded in full, or refused by name.

1. The content decides the format, never the name: PNG, JPEG, BMP, GIF, WebP, TIFF, PPM, AVIF, JPEG 2000, and HEIC where
   pillow-heif is installed. Of several frames or pages the first is taken.
2. A picture is decoded in full or refused: one that is cut, fails its checksum or lacks its end is never filled up.
3. The camera's orientation tag (EXIF 0x0112) is applied. Other metadata, odd or damaged, changes nothing.
4. Colours of an embedded ICC profile (RGB and CMYK) are converted to sRGB, relative colorimetric with black point
   compensation; a profile that cannot be read and profiles of grey are passed over.
5. Transparent pixels lie on white. A BMP whose alpha is 0 everywhere has no alpha, as all viewers show it.
6. 16-bit grey becomes 8-bit by v / 257, rounded; 16-bit colour by its high byte, which differs by 1 at most. Pixels of 10, 12
   or 32 bits, signed and floating point ones are refused: their scale is unknown.
7. Grey stays one channel; everything else (palettes, CMYK, YCbCr) becomes RGB.

What Pillow is known to misread is listed in MISREAD and refused by the tag that shows it, or put right in `_repaired`. The
work that a picture costs is known from its header: `WORK` bounds the memory of all that is decoded at a time.
"""

import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.ImageCms import Flags, Intent

from components.classifier.cpu import available_memory
from components.classifier.errors import ImageError

Pixels = npt.NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
MAX_PIXELS = 64_000_000
"""Largest picture that is decoded, in pixels."""
MAX_SCANS = 100
"""Of a progressive JPEG: each costs a pass over the whole picture, however few bytes it has. Cameras write about 10."""
MAX_CHUNKS = 100_000
"""Chunks of a PNG, comment lines of a PPM."""
MAX_RUN_LENGTH_BYTES = 4 * 2**20
"""Largest run-length coded BMP: Pillow decodes these in Python."""

# Pillow warns of odd metadata, and of bombs, which are refused below. `catch_warnings` would not do: it is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

_PNG, _TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ANCILLARY_TEXT = {b"tEXt", b"zTXt", b"iTXt"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_ALPHA_MODES = {"RGBA", "LA", "PA", "La", "RGBa"}
_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC, _PLANES, _TILE_WIDTH, _TILE_HEIGHT, _SUB_IFDS, _SAMPLE_FORMAT, _DNG = (
    254, 258, 259, 262, 284, 322, 323, 330, 339, 50706,
)  # fmt: skip
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_ZEROS = 32
"""As many zero bytes do not end a compressed picture."""
_PIXELS_PER_ZERO = 4096
"""But in WebP: the flat end of a good picture takes one zero byte for every 8,900 pixels and more (measured on pictures of one colour)."""
_STRIP_PIXELS = 1_000_000
"""Pixels that are converted at a time, so that a conversion needs little beside the picture itself."""


class CostlyPicture(ImageError):
    """A picture that takes longer to decode than the caller allows here; elsewhere it may be decoded."""


class WorkBudget:
    """Memory that all decoding of this process may take together, in bytes; who does not fit in waits."""

    def __init__(self, limit: int) -> None:
        self.limit, self._used, self._changed = limit, 0, threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Hold `size` bytes while a picture is decoded. Raises ImageError for one that never fits."""
        if size > self.limit:
            raise ImageError(
                f"the picture needs {size / 2**20:,.0f} MiB to be decoded, more than the {self.limit / 2**20:,.0f} MiB that this "
                "process allows; make it smaller, or give the process more memory"
            )
        if size <= SMALL_WORK:
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: self._used + size <= self.limit)
            self._used += size
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()


SMALL_WORK = 4 * 2**20
"""Pictures that need less are not counted: threads bound them, and asking would cost more than decoding."""
WORK = WorkBudget(min(2 * 2**30, max(256 * 2**20, available_memory() // 2)))
"""Half of the memory that the container has, between 256 MiB and 2 GiB."""


def decode(data: bytes, max_pixels: int = MAX_PIXELS, max_cost: int | None = None) -> Pixels:
    """Decode a picture in full, at its own size.

    Returns uint8 (H, W, 1) for grey and (H, W, 3) for RGB. Waits where WORK has no memory left for it.
    Raises ImageError, and nothing else, when the bytes are not a picture, are cut or damaged, hold more than `max_pixels`
    pixels, or are of a kind that would be misread; CostlyPicture, before anything is decoded, when `cost` is above `max_cost`.
    """
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    try:
        data = _without_large_metadata(data)
        with _open(data) as image:
            _check_pixels(image, max_pixels)
            _check_work(image, data)
            _check_misread(image, data)
            _check_cost(image, data, max_cost)
            with WORK.hold(work_bytes(image)):
                image.load()
                _check_depth(image)
                return _to_uint8(_turned(_repaired(image, data)))
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(_unknown(data)) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"the picture has more pixels than the limit of {max_pixels}; make it smaller") from error
    except MemoryError as error:
        raise ImageError("the picture is too large to be decoded in memory; make it smaller") from error
    except Exception as error:  # what Pillow's decoders raise for damaged files has no common base
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"the picture is cut or damaged ({reason[:120]})") from error


def is_picture(data: bytes) -> bool:
    """Say whether bytes begin like a picture in a known format; they may still be cut or damaged. A camera's raw file is not one."""
    try:
        with _open(data) as image:
            return not _is_raw(image, data)
    except UnidentifiedImageError:
        return False
    except Exception:  # noqa: BLE001 - recognised, and damaged in one of Pillow's many ways: decode says how
        return True


def work_bytes(image: Image.Image) -> int:
    """Estimate from the header how many bytes decoding and conversion take at their peak."""
    width, height = image.size
    per_pixel = 2 * _BYTES_PER_PIXEL.get(image.mode, 4) + 3 + _CODEC_BYTES.get(image.format or "", 2)
    tags = getattr(image, "tag_v2", {})
    tile = int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_HEIGHT, 0)) * 8
    return width * height * per_pixel + tile


def cost(image: Image.Image, data: bytes) -> int:
    """Estimate from the header how long decoding takes, as the number of pixels of a PNG that takes as long (25 ns each)."""
    kind, pixels = image.format or "", image.width * image.height
    if kind in {"JPEG", "MPO"}:
        return pixels * (10 + data.count(_START_OF_SCAN)) // 10
    if kind == "PPM" and data[:2] in _PLAIN_PPM:  # decoded in Python
        return 30 * pixels * len(image.getbands()) + 400 * data.count(b"#")
    if kind == "BMP" and _is_run_length(image):
        return pixels + 20 * len(data)
    return pixels * _COST.get(kind, 1)


_COST = {"WEBP": 2, "AVIF": 2, "JPEG2000": 8}
"""Measured at 25 megapixels. JPEG 2000 holds Python's lock all the time, so that nothing else runs."""
_PLAIN_PPM = {b"P1", b"P2", b"P3"}
_BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}
"""How Pillow keeps a pixel; 4 for all other modes."""
_CODEC_BYTES = {"WEBP": 12, "AVIF": 6, "JPEG2000": 12, "JPEG": 6, "MPO": 6}
"""What a codec takes beside the picture, per pixel (measured at 25 megapixels, rounded up)."""


def _open(data: bytes) -> Image.Image:
    formats: tuple[str, ...] = FORMATS
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS and _heic_registered():
        formats = (*FORMATS, "HEIF")
    return Image.open(io.BytesIO(data), formats=formats)


@lru_cache(maxsize=1)
def _heic_registered() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


_NOT_PICTURES = {
    re.compile(rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype html|html|head|body|meta|title|script)\b", re.IGNORECASE | re.DOTALL): (
        "an HTML page, not a picture; a download may have given a login or error page"
    ),
    re.compile(rb"version https://git-lfs"): "a git-lfs pointer, not the picture itself; run `git lfs pull`",
    re.compile(rb"L\0\0\0\x01\x14\x02\0"): "a Windows shortcut, not the picture itself; copy the file that it points to",
    re.compile(rb"(<\?xml[^>]*>\s*)?<Error>"): "an error message of a store, not the picture itself; download it again",
    re.compile(rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*|<!doctype svg[^>]*>\s*)*<svg\b", re.IGNORECASE | re.DOTALL): (
        "an SVG drawing, which has no pixels; save it as PNG"
    ),
}
"""What lies under pictures' names now and then, by how it begins."""


def _unknown(data: bytes) -> str:
    if data.startswith(_TIFF):
        return "the content is a TIFF of a kind that cannot be read; save it as grey or RGB with 8 or 16 bits without compression"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
        return "the content is a HEIC picture, which needs pillow-heif; install it (pip install pillow-heif) or convert it to JPEG"
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")
    for kind, told in _NOT_PICTURES.items():
        if kind.match(head):
            return f"the content is {told}"
    return f"the content is not a picture in a known format ({', '.join(FORMATS)})"


def _without_large_metadata(data: bytes) -> bytes:
    """Check a PNG's chunks, and leave out text that is larger than Pillow takes: a good picture is not damaged by its metadata.

    Raises ImageError for a chunk whose checksum is wrong, a file without its end, and one of more than MAX_CHUNKS chunks.
    """
    if not data.startswith(_PNG):
        return data
    left_out, at = list[tuple[int, int]](), 8
    view = memoryview(data)
    for _ in range(MAX_CHUNKS):
        if at + 12 > len(data):
            raise ImageError("the picture is cut or damaged (its end is missing)")
        (size,) = struct.unpack_from(">I", data, at)
        kind, end = data[at + 4 : at + 8], at + 12 + size
        if end > len(data):
            raise ImageError("the picture is cut or damaged (its end is missing)")
        if zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise ImageError(f"the picture is cut or damaged (the checksum of its {kind.decode('latin-1')!r} chunk is wrong)")
        if kind in _ANCILLARY_TEXT or (kind == b"iCCP" and size > 2**20):
            left_out.append((at, end))
        if kind == b"IEND":
            break
        at = end
    else:
        raise ImageError(f"the picture has more than {MAX_CHUNKS} chunks; save it again")
    if not left_out:
        return data
    kept, start = list[bytes](), 0
    for begin, end in left_out:
        kept.append(data[start:begin])
        start = end
    return b"".join([*kept, data[start:]])


def _check_pixels(image: Image.Image, limit: int) -> None:
    if image.width * image.height > limit:
        raise ImageError(f"the picture has {image.width}x{image.height} pixels, more than the limit of {limit}; make it smaller")


def _check_cost(image: Image.Image, data: bytes, limit: int | None) -> None:
    if limit is not None and cost(image, data) > limit:
        raise CostlyPicture(f"the picture takes longer to decode than a PNG of {limit} pixels; make it smaller")


def _check_work(image: Image.Image, data: bytes) -> None:
    """Refuse what costs much time for few bytes, and ends that are overwritten by zeros, which decoders fill with grey."""
    kind = image.format or ""
    if kind in {"JPEG", "MPO"} and data.count(_START_OF_SCAN) > MAX_SCANS:
        raise ImageError(f"the JPEG has more than {MAX_SCANS} scans; save it again")
    if kind == "PPM" and data[:2] in _PLAIN_PPM and data.count(b"#") > MAX_CHUNKS:
        raise ImageError(f"the PPM has more than {MAX_CHUNKS} comments; save it again")
    if kind == "BMP" and len(data) > MAX_RUN_LENGTH_BYTES and _is_run_length(image):
        raise ImageError(f"a run-length coded BMP of more than {MAX_RUN_LENGTH_BYTES >> 20} MiB takes too long to decode; save it as PNG")
    blank = image.width * image.height // _PIXELS_PER_ZERO if kind == "WEBP" else 0
    if data.endswith(bytes(_ZEROS + blank)) and (
        kind == "WEBP" or (kind in {"JPEG", "MPO"} and data.rfind(_END_OF_IMAGE) < data.rfind(_START_OF_SCAN))
    ):
        raise ImageError("the picture is cut or damaged (its end is overwritten by zeros)")


def _is_run_length(image: Image.Image) -> bool:
    return any(tile.codec_name == "bmp_rle" for tile in getattr(image, "tile", ()))


# --- what Pillow is known to misread


def _tag(image: Image.Image, tag: int) -> tuple[Any, ...]:
    value = getattr(image, "tag_v2", {}).get(tag, ())
    return value if isinstance(value, tuple) else (value,)


def _is_raw(image: Image.Image, data: bytes) -> bool:
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


def _is_16_bit_rgb_with_key(image: Image.Image, data: bytes) -> bool:
    return image.format == "PNG" and data[24:26] == b"\x10\x02" and b"tRNS" in data[:1024] and "transparency" in image.info


def _is_deep_jpeg2000(image: Image.Image, data: bytes) -> bool:
    """Read the SIZ marker of the codestream (ISO/IEC 15444-1, A.5.1): the number of components, and each one's depth and sign."""
    at = data.find(b"\xff\x4f\xff\x51") + 2
    if image.format != "JPEG2000" or at < 2:
        return False
    (components,) = struct.unpack_from(">H", data, at + 38)
    depths = {data[at + 40 + 3 * component] for component in range(components)}
    return depths != {7} and (components, depths) != (1, {15})


MISREAD: dict[str, Callable[[Image.Image, bytes], bool]] = {
    "the content is a camera's raw file, of which only the thumbnail could be read; convert it to JPEG, PNG or TIFF": _is_raw,
    "the TIFF holds signed numbers, of which the black level is unknown; save it with unsigned 8 or 16 bits": _is_signed,
    "the TIFF holds 16-bit colour in separate planes, which is not read; save it interleaved (chunky), or with 8 bits": _is_planar_16,
    "the PNG holds 16-bit colour with a transparent colour; save it with an alpha channel, or with 8 bits": _is_16_bit_rgb_with_key,
    "the JPEG 2000 has colours of more than 8 bits, or grey of neither 8 nor 16; save it with 8 bits": _is_deep_jpeg2000,
}
"""Kinds that Pillow opens and gives wrong pixels for: the reason for the refusal, and what shows it in the header."""


def _check_misread(image: Image.Image, data: bytes) -> None:
    for reason, shows in MISREAD.items():
        if shows(image, data):
            raise ImageError(reason)


def _check_depth(image: Image.Image) -> None:
    bits = _tag(image, _BITS)
    if bits and not {1, 2, 4, 8, 16, 32, 64}.issuperset(bits):
        raise ImageError(f"the picture has {bits[0]} bits per pixel; save it with 8 or 16 bits")
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):  # Pillow reads 16-bit PGM as I
        kind = "32-bit integer" if image.mode == "I" else "floating point"
        raise ImageError(f"the picture has {kind} pixels of unknown scale; save it with 8 or 16 bits")
    if image.mode in {"LAB", "HSV"}:
        raise ImageError(f"the picture has {image.mode} colours; save it as RGB or grey")


def _repaired(image: Image.Image, data: bytes) -> Image.Image:
    """Put right what Pillow leaves wrong and a header tells."""
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


def _turned(image: Image.Image) -> Image.Image:
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
    turned = image.transpose(turn)
    turned.info = image.info
    return turned


# --- to 8 bits


def _to_uint8(image: Image.Image) -> Pixels:
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    transparent = "transparency" in image.info or image.mode in _ALPHA_MODES
    grey = image.mode in {"1", "L", "LA", "La"}
    if not transparent and image.mode in {"L", "RGB"}:
        pixels = np.asarray(image, dtype=np.uint8)
        return pixels[:, :, None] if grey else pixels
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
    pixels = np.asarray(image.convert("L" if grey else "RGB"), dtype=np.uint8)
    return pixels[:, :, None] if grey else pixels


def _on_white(image: Image.Image, grey: bool) -> Pixels:
    if image.mode in {"La", "RGBa"}:  # premultiplied: the colour is there already, white comes through where it is not
        parts = np.asarray(image, dtype=np.uint8).astype(np.uint16)
        result: Pixels = np.minimum(parts[..., :-1] + (255 - parts[..., -1:]), 255).astype(np.uint8)
        return result
    rgba = image.convert("RGBA")
    return _plain(Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba), grey)


def _from_16_bits(image: Image.Image) -> Pixels:
    wide = np.asarray(image)
    transparent = image.info.get("transparency")
    inverted = _tag(image, _PHOTOMETRIC) == (0,)  # "0 is white": Pillow turns 8 bits around, and not 16
    pixels = np.empty((*wide.shape, 1), np.uint8)
    rows = max(1, _STRIP_PIXELS // max(1, wide.shape[1]))
    for top in range(0, len(wide), rows):
        strip = wide[top : top + rows].astype(np.uint32)
        narrow = (strip + 128) // 257
        if inverted:
            narrow = 255 - narrow
        if isinstance(transparent, int):
            narrow[strip == transparent] = 255
        pixels[top : top + rows, :, 0] = narrow
    return pixels
