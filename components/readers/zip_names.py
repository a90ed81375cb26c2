"""The names of a zip's members: zip has three ways to write one that is not ASCII, and only two of them say which encoding it is.

In this order, for each member: the flag for UTF-8 (APPNOTE 4.4.4, bit 11), the Unicode Path field (APPNOTE 4.6.9, written by
Info-ZIP, WinRAR and 7-Zip; it counts only while it belongs to the name beside it), the encoding that the user names, and UTF-8,
which macOS writes without the flag, where the names of all members are valid UTF-8. All others are refused by name, and so are few short
names of a zip of Windows that are valid UTF-8 by chance: in GBK, 猫 has the bytes of è. The old rule that they are in code page 437
is followed by no system that writes such names today.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator

USUAL = ("utf-8", "cp932", "gbk", "cp949", "cp866", "cp1252", "cp437")
"""Encodings of names that are met most: of macOS, of Windows in Japan, China, Korea, Russia and the West, and the oldest rule."""

_WINDOWS = frozenset([0, 10, 11, 14])
"""Systems of the members (APPNOTE 4.4.2) whose names are in the code page of the country, where they do not say theirs."""
_PAIRS = ("gbk", "cp949", "cp932")
"""Encodings in which a letter of two bytes may be one of two bytes in UTF-8."""
_ENOUGH = 4
"""So many different letters are valid UTF-8 by chance once in 2,800 times: of GB2312's 6,763 letters 930 are."""
_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075


def names_of(members: Iterable[zipfile.ZipInfo], encoding: str = "") -> Iterator[tuple[zipfile.ZipInfo, str | None, bytes]]:
    """Yield each member with its name, None where nothing tells it, and the name's bytes.

    `encoding` is that of the names that do not say theirs ("": UTF-8 where all of them are, for which the members are gone through twice).
    """
    unmarked = (info for info in members if not info.orig_filename.isascii() and _marked(info) is None)
    known = encoding or ("utf-8" if _are_utf8(unmarked) else "ascii")
    for info in members:
        name, raw = _marked(info), _raw(info)
        yield info, name if name is not None else _decoded(raw, known), raw


def _are_utf8(members: Iterable[zipfile.ZipInfo]) -> bool:
    """Say whether names are in UTF-8: all are valid, and not by chance."""
    letters, by_chance = set[str](), True
    for info in members:
        raw = _raw(info)
        name = _decoded(raw, "utf-8")
        if name is None:
            return False
        letters.update(letter for letter in name if not letter.isascii())
        by_chance = by_chance and info.create_system in _WINDOWS and any(_decoded(raw, pairs) is not None for pairs in _PAIRS)
    return not letters or not by_chance or len(letters) >= _ENOUGH or max(letters) > "\u07ff"


def readings(raw: bytes) -> list[str]:
    """Return how a name reads in the usual encodings, such as `names=gbk reads '猫/1.png'`."""
    return [f"names={encoding} reads {name!r}" for encoding in USUAL if (name := _decoded(raw, encoding)) is not None]


def _raw(info: zipfile.ZipInfo) -> bytes:
    """The bytes of a name as the archive holds them, up to a zero: zipfile has decoded them by code page 437, which loses nothing."""
    return info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8_FLAG else "cp437").partition(b"\0")[0]


def _marked(info: zipfile.ZipInfo) -> str | None:
    """The name of a member that says how it is encoded."""
    raw = _raw(info)
    if info.flag_bits & _UTF8_FLAG:
        return raw.decode("utf-8")
    extra = info.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and len(field) > 5 and field[0] == 1 and struct.unpack_from("<I", field, 1)[0] == zlib.crc32(raw):
            return _decoded(field[5:], "utf-8")
    return None


def _decoded(raw: bytes, encoding: str) -> str | None:
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        return None
