"""JPEG 2000's codestream (ISO/IEC 15444-1, annex A): whether it is whole, what OpenJPEG does not read as Pillow calls it, and depths.

A codestream is a main header, the parts of its tiles, each with its length, and an end mark. OpenJPEG takes one that ends between two
parts, or behind the header of one, for a whole picture, and fills it up with grey.
"""

import struct

from PIL import Image

from components.classifier.errors import ImageError

_BOX, _START, _TILE_PART, _END = b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"\xff\x90", b"\xff\xd9"


def checked(data: bytes) -> bytes:
    """Return a picture's bytes, those of a JPEG 2000 so that it can be read; all other bytes are returned as they are.

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


def is_deep(image: Image.Image, data: bytes) -> bool:
    """Read the number of components, and each one's depth and sign, from the SIZ marker (A.5.1): True but for 8 bits, and grey of 16."""
    if image.format != "JPEG2000" or (at := data.find(_START) + 2) < 2:
        return False
    (components,) = struct.unpack_from(">H", data, at + 38)
    depths = {data[at + 40 + 3 * component] for component in range(components)}
    return depths != {7} and (components, depths) != (1, {15})
