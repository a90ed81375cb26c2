"""Small plain pictures: read without Pillow's reading of headers, which takes longer than decoding them.

Plain is a PNG of 8 bits, grey or RGB, with or without alpha, and a baseline JPEG, grey or colour, without palette, interlacing, transparent
colour, profile, orientation or animation. Pillow's own decoder gets the compressed pixels of such a picture (`Image.frombytes`), so
they are the same to the byte as by the way of all others in decode.py. What is not plain is left to that way, and so is everything
that is damaged: it is decoded, or refused by name, there.
"""

import struct
from binascii import crc32

import numpy as np
from PIL import Image

from components.classifier import depth
from components.classifier.depth import Pixels
from components.classifier.misread import has_all_rows

MAX_PIXELS, MAX_BYTES = 240_000, 2**20
"""Decoding and converting so much takes less than SMALL_WORK; with more, what a header costs no longer matters."""
_MAX_PARTS = 64
"""Chunks of a PNG, segments of a JPEG."""
_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_MODES = {bytes((8, colour, 0, 0, 0)): mode for colour, mode in ((0, "L"), (2, "RGB"), (4, "LA"), (6, "RGBA"))}
"""By depth, colour type, compression, filters and interlacing."""
_PNG_BESIDE = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9}
"""Chunks that change no pixel, and their lengths."""
_PNG_PASSED_OVER = {b"tEXt", b"zTXt", b"iTXt", b"tIME", b"bKGD"}
"""And those that are not looked into."""
_PNG_CHUNK, _SIZE = struct.Struct(">I4s"), struct.Struct(">II")
_JPEG_FRAME, _JPEG_SCAN, _JPEG_END = b"\xff\xc0", b"\xff\xda", b"\xff\xd9"
_JPEG_BESIDE = {b"\xff\xc4", b"\xff\xdb", b"\xff\xdd", b"\xff\xfe"}
"""Huffman tables, quantization tables, restart intervals, comments."""
_JFIF, _JPEG_MODES = b"\xff\xe0\0\x10JFIF\0", {1: "L", 3: "RGB"}


def decode_plain(data: bytes, limit: int) -> tuple[Pixels, str] | None:
    """Return the pixels and the format of a plain picture that costs at most as much as a PNG of `limit` pixels; None for all others.

    The pixels are uint8 (H, W, 1) for grey and (H, W, 3) for RGB, on white where the picture is transparent.
    """
    if len(data) > MAX_BYTES:
        return None
    try:
        if data.startswith(_PNG_START):
            return _png(data, min(limit, MAX_PIXELS))
        return _jpeg(data, min(limit, MAX_PIXELS)) if data.startswith(b"\xff\xd8") else None
    except (ValueError, struct.error):  # damaged, or cut
        return None


def _png(data: bytes, limit: int) -> tuple[Pixels, str] | None:
    mode = _PNG_MODES.get(data[24:29])
    width, height = size = _SIZE.unpack_from(data, 16)
    if mode is None or not 0 < width * height <= limit:
        return None
    parts, ended, at = list[bytes](), False, 8
    for number in range(_MAX_PARTS):
        length, kind = _PNG_CHUNK.unpack_from(data, at)
        end = at + 8 + length
        if data[end : end + 4] != crc32(data[at + 4 : end]).to_bytes(4):
            return None
        if kind == b"IDAT":
            if ended:
                return None
            parts.append(data[at + 8 : end])
        elif kind == b"IEND":
            break
        elif number:
            if _PNG_BESIDE.get(kind) != length and kind not in _PNG_PASSED_OVER:
                return None
            ended = bool(parts)
        at = end + 4
    else:
        return None
    image = Image.frombytes(mode, size, parts[0] if len(parts) == 1 else b"".join(parts), "zip", mode)
    samples, row = image.tobytes(), width * len(mode)
    if samples.endswith(bytes(row)) and not has_all_rows(parts, height * (1 + row)):
        return None
    if "A" in mode:
        return depth.to_uint8(image), "PNG"
    return np.frombuffer(samples, np.uint8).reshape(height, width, len(mode)), "PNG"


def _jpeg(data: bytes, limit: int) -> tuple[Pixels, str] | None:
    if not data.endswith(_JPEG_END) or data.count(_JPEG_SCAN) != 1:
        return None
    at, frame = 2, b""
    for _ in range(_MAX_PARTS):
        marker, length = data[at : at + 2], int.from_bytes(data[at + 2 : at + 4])
        if marker == _JPEG_SCAN:
            break
        if marker == _JPEG_FRAME and not frame:
            frame = data[at + 4 : at + 2 + length]
        elif length < 2 or (marker not in _JPEG_BESIDE and not data.startswith(_JFIF, at)):
            return None
        at += 2 + length
    else:
        return None
    bits, height, width, channels = struct.unpack_from(">BHHB", frame)
    mode = _JPEG_MODES.get(channels)
    if mode is None or bits != 8 or len(frame) != 6 + 3 * channels or not 0 < 11 * width * height <= 10 * limit:
        return None
    samples = Image.frombytes(mode, (width, height), data, "jpeg", mode, "").tobytes()
    return np.frombuffer(samples, np.uint8).reshape(height, width, channels), "JPEG"
