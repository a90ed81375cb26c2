"""From the bytes of a picture to its pixels at its own size: decoded in full, or refused by name.

1. The content decides the format, never the name: PNG, JPEG, BMP, GIF, WebP, TIFF, PPM, AVIF, JPEG 2000, and HEIC where
   pillow-heif is installed. Of several frames or pages the first is taken.
2. A picture is decoded in full or refused: one that is cut, fails its checksum or lacks its end is never filled up.
3. The camera's orientation tag (EXIF 0x0112) is applied. Other metadata, odd or damaged, changes nothing.
4. Colours of an embedded ICC profile (RGB and CMYK) are converted to sRGB, relative colorimetric with black point
   compensation; profiles of grey are passed over, as are gAMA, cHRM and cICP of a PNG.
   A picture whose EXIF or profile cannot be read is not damaged: it is used without, and `Picture.unread` says so.
5. Transparent pixels lie on white. A BMP whose alpha is 0 everywhere has no alpha, as all viewers show it.
6. 16-bit grey becomes 8-bit by v / 257, rounded; 16-bit colour by its high byte, which differs by 1 at most. Where `levels` says
   that files of 16 bits hold fewer, such as 12, both become 8-bit by 255 v / 4095, rounded. Pixels that the file itself stores in
   10, 12 or 32 bits, signed and floating point ones are refused: their scale is unknown.
7. Grey stays one channel; everything else (palettes, CMYK, YCbCr) becomes RGB.

Small plain pictures take the short way of plain.py to the same pixels. Rules 3 and 4 are in metadata.py, 5 and 6 in depth.py, and
what Pillow is known to misread is in misread.py. The work that a picture costs is known from its header:
`WORK` bounds the memory of all that is decoded at a time.
"""

import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from PIL import Image, UnidentifiedImageError

from components.classifier import depth
from components.classifier.contents import other_content, stand_in
from components.classifier.cpu import available_memory
from components.classifier.depth import Pixels as Pixels
from components.classifier.errors import ImageError, one_line
from components.classifier.metadata import Unread, has_pages, to_srgb, turned
from components.classifier.misread import check_loaded, check_misread, is_raw, mend_palette, repair, whole_jpeg2000
from components.classifier.plain import decode_plain

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
_LEFT_OUT = {b"tEXt", b"zTXt", b"iTXt", b"acTL", b"fcTL", b"fdAT", b"gAMA", b"cHRM", b"sRGB", b"pHYs"}
"""Chunks of a PNG that its first frame does without: text, what makes it move, and what Pillow calls the file damaged for."""
_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"TRNS", b"FDAT"}
_UNREAD_CHUNKS: dict[bytes, Unread] = {b"eXIf": "orientation", b"iCCP": "profile"}
_MAX_PROFILE = 2**20
"""Of an ICC profile in a PNG, packed and unpacked, in bytes: Pillow refuses files with larger ones."""
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_ZEROS = 32
"""No good compressed picture ends with this many zero bytes."""
_PIXELS_PER_ZERO = 4096
"""WebP only: the flat end of a good picture takes one zero byte for every 8,900 pixels and more (measured on pictures of one colour)."""


class CostlyPicture(ImageError):
    """A picture that takes longer to decode than the caller allows here; elsewhere it may be decoded."""


class WorkBudget:
    """Memory that all decoding of this process may take together, in bytes; a caller that does not fit in waits."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._changed: Any = threading.Condition()
        self._used: Any = [0]

    def share(self, changed: Any, used: Any) -> None:
        """Count together with other processes: `changed` is multiprocessing's Condition, `used` an array of one whole number."""
        self._changed, self._used = changed, used

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
            self._changed.wait_for(lambda: self._used[0] + size <= self.limit)
            self._used[0] += size
        try:
            yield
        finally:
            with self._changed:
                self._used[0] -= size
                self._changed.notify_all()


SMALL_WORK = 4 * 2**20
"""Pictures that need less are not counted: the number of threads bounds them, and the lock would cost more than decoding."""
WORK = WorkBudget(min(2 * 2**30, max(256 * 2**20, available_memory() // 2)))
"""Half of the memory that the container has, between 256 MiB and 2 GiB."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture."""

    pixels: Pixels
    """uint8 (H, W, 1) for grey and (H, W, 3) for RGB."""
    format: str
    """Pillow's name of the format that the content has, such as PNG."""
    peak: int | None = None
    """The largest sample that the file holds, 0 to 65,535; None where it has not 16 bits per sample."""
    unread: tuple[Unread, ...] = ()
    """What is not read beside the pixels that would change them: UNREAD has the words for it."""


def decode(data: bytes, max_pixels: int = MAX_PIXELS, max_cost: int | None = None, levels: int = 16) -> Pixels:
    """Decode a picture in full, at its own size; see `decode_picture`, which raises."""
    return decode_picture(data, max_pixels, max_cost, levels).pixels


def decode_picture(
    data: bytes, max_pixels: int = MAX_PIXELS, max_cost: int | None = None, levels: int = 16, then: Callable[[Pixels], Pixels] | None = None
) -> Picture:
    """Decode a picture in full, at its own size; in files of 16 bits 2**levels - 1 is the brightest value.

    The picture's pixels are what `then` makes of them, while its memory still counts: what it makes is mostly smaller. Waits where WORK
    has no memory left for it. Raises ImageError, and nothing else, when the bytes are not a picture, are cut or damaged, hold more than
    `max_pixels` pixels or values that do not fit into `levels` bits, or are of a kind that would be misread; CostlyPicture, before
    anything is decoded, when `cost` is above `max_cost`.
    """
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    try:
        if (plain := decode_plain(data, max_pixels if max_cost is None else min(max_pixels, max_cost))) is not None:
            return Picture(then(plain[0]) if then else plain[0], plain[1])
        _check_header(data, max_cost)
        data, left_out = _first_frame(data, max_cost)
        data = whole_jpeg2000(data)
        with _open(data) as image:
            _check_pixels(image, max_pixels)
            _check_work(image, data)
            check_misread(image, data)
            _check_cost(image, data, max_cost)
            mend_palette(image)
            with WORK.hold(work_bytes(image)):
                image.load()
                check_loaded(image, data)
                depth.check_depth(image)
                inverted, peak = depth.is_inverted(image), depth.peak(image) if depth.is_16_bit(image, data) else None
                if peak is not None and levels < 16:
                    depth.check_levels(image, peak, levels)
                    if image.mode == "RGB":
                        depth.stretch_colours(image, _open(data), levels)
                scale = 16 if peak is None else levels
                upright, turn = turned(image)
                coloured, profile = to_srgb(repair(upright, image.format or "", data))
                pages: set[Unread] = {"pages"} if has_pages(image, data) else set()
                unread = tuple(sorted({*left_out, *turn, *profile, *pages}))
                pixels = depth.to_uint8(coloured, inverted, scale)
                return Picture(then(pixels) if then else pixels, image.format or "", peak, unread)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(_unknown(data)) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"the picture has more pixels than the limit of {max_pixels}; make it smaller") from error
    except MemoryError as error:
        raise ImageError("the picture is too large to be decoded in memory; make it smaller") from error
    except Exception as error:  # what Pillow's decoders raise for damaged files has no common base
        reason = one_line(error, 120)
        if reason.lower().startswith("unsupported"):
            raise ImageError(f"the picture is of a kind that is not read ({reason}), or damaged; save it as PNG") from error
        raise ImageError(f"the picture is cut or damaged ({reason})") from error


def is_picture(data: bytes) -> bool:
    """Say whether bytes begin like a picture in a known format; they may still be cut or damaged. A camera's raw file is not one."""
    try:
        with _open(data) as image:
            return not is_raw(image, data)
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


def header_cost(data: bytes) -> int:
    """Estimate, without reading it, how long Pillow takes to read a picture's header; five times what `cost` would say.

    A header is read in Python, whose lock nobody else can have then, and holds as many comments and markers as the file has room for:
    700 kB of them take a quarter of a second.
    """
    if (header := _PPM_HEADER.match(data, 0, _MAX_PPM_HEADER)) is not None:
        return 50 * header.end()  # each byte is read by itself
    if data.startswith(b"\xff\xd8"):
        return 225 * (data.count(b"\xff") - data.count(b"\xff\0"))  # what is not a value of a pixel may be a marker
    if data.startswith(_TIFF) and len(data) >= 8:
        order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
        start = int.from_bytes(data[4:8], order)
        return 850 * int.from_bytes(data[start : start + 2], order)
    return 20 * len(data) if data.startswith(_READ_IN_BLOCKS) else 0


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
_PPM_HEADER, _MAX_PPM_HEADER = re.compile(rb"P[1-7fyF](?:[\s\d.-]++|#[^\r\n]*+[\r\n]?)*+"), 50_000
"""It may run on into pixels, which makes the estimate too high; of more bytes, the number does not matter."""
_READ_IN_BLOCKS = (b"GIF8", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
_CHUNK_COST = 675
"""Of a chunk of a PNG, as `header_cost` counts."""
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


def _unknown(data: bytes) -> str:
    if data.startswith(b"MM\0+"):
        return "the content is a big-endian BigTIFF, which is not read; convert it by tiffcp (of libtiff), or save it as PNG"
    if data.startswith(_TIFF):
        return "the content is a TIFF of a kind that cannot be read; save it as PNG, or as a classic TIFF of grey or RGB with 8 or 16 bits"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
        return "the content is a HEIC picture, which needs pillow-heif; install it (pip install 'penstock[heic]') or convert it to JPEG"
    told = stand_in(data) or other_content(data) or f"not a picture in a known format ({', '.join(FORMATS)})"
    return f"the content is {told}"


def _first_frame(data: bytes, max_cost: int | None) -> tuple[bytes, set[Unread]]:
    """Check a PNG's chunks, and leave out what its first frame does without: a good picture is not damaged by what lies beside it.

    Also returns what was left out that would change the pixels. Raises ImageError for a chunk of pixels whose checksum is wrong, a file
    without its end, and one of more than MAX_CHUNKS chunks; CostlyPicture when they cost more than `max_cost`.
    """
    unread = set[Unread]()
    if not data.startswith(_PNG):
        return data, unread
    left_out, at = list[tuple[int, int]](), 8
    view = memoryview(data)
    for number in range(MAX_CHUNKS):
        if max_cost is not None and number * _CHUNK_COST > max_cost:
            raise CostlyPicture(f"the picture has more than {number} chunks; save it again")
        if at + 12 > len(data):
            raise ImageError("the picture is cut or damaged (its end is missing)")
        (size,) = struct.unpack_from(">I", data, at)
        kind, end = data[at + 4 : at + 8], at + 12 + size
        if end > len(data):
            raise ImageError("the picture is cut or damaged (its end is missing)")
        damaged = zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]
        if damaged and not _is_metadata(kind):
            raise ImageError(f"the picture is cut or damaged (the checksum of its {kind.decode('latin-1')!r} chunk is wrong)")
        if damaged or kind in _LEFT_OUT or (kind == b"iCCP" and not _is_profile(data[at + 8 : end - 4])):
            left_out.append((at, end))
            if kind in _UNREAD_CHUNKS:
                unread.add(_UNREAD_CHUNKS[kind])
        if kind == b"IEND":
            break
        at = end
    else:
        raise ImageError(f"the picture has more than {MAX_CHUNKS} chunks; save it again")
    if not left_out:
        return data, unread
    kept, start = list[bytes](), 0
    for begin, end in left_out:
        kept.append(data[start:begin])
        start = end
    return b"".join([*kept, data[start:]]), unread


def _is_metadata(kind: bytes) -> bool:
    """Whether a chunk of a PNG may be passed over: its first letter is small, and its name is not that of a chunk of pixels, damaged."""
    return kind.isalpha() and kind[:1].islower() and kind.upper() not in _PIXEL_CHUNKS


def _is_profile(chunk: bytes) -> bool:
    """Whether the content of an iCCP chunk, a name and a packed profile, can be unpacked."""
    packed = chunk.partition(b"\0")[2]
    unpacking = zlib.decompressobj()
    try:
        return (
            packed[:1] == b"\0"
            and len(packed) <= _MAX_PROFILE
            and len(unpacking.decompress(packed[1:], _MAX_PROFILE)) > 0
            and unpacking.eof
        )
    except zlib.error:
        return False


def _check_pixels(image: Image.Image, limit: int) -> None:
    if image.width * image.height > limit:
        raise ImageError(f"the picture has {image.width}x{image.height} pixels, more than the limit of {limit}; make it smaller")


def _check_header(data: bytes, limit: int | None) -> None:
    if limit is not None and header_cost(data) > limit:
        raise CostlyPicture("the picture's header takes too long to read; save it again without comments and metadata")


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
