"""What a file's name and its first bytes say: hidden or a system's own, a picture or not, and how it goes into the output."""

import os

PICTURE_SUFFIXES = frozenset(
    [
        ".png",
        ".apng",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".bmp",
        ".dib",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".avif",
        ".heic",
        ".heif",
        ".jp2",
        ".svg",
        ".ico",
        ".tga",
    ]
)
"""Names that promise a picture: when the content is none, the file is a dead letter and not just passed over."""

_SYSTEM_NAMES = frozenset(
    [
        "thumbs.db",
        "ehthumbs.db",
        "_success",
        "desktop.ini",
        "icon\r",
        "@eadir",
        "#recycle",
        "$recycle.bin",
        "lost+found",
        "__macosx",
        "__pycache__",
        "system volume information",
        "temporary items",
        "network trash folder",
        "network_trash_folder",
    ]
)
_PICTURE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")


def display(name: str) -> str:
    """Return a name as it goes into the output: itself, every character kept; bytes that are no UTF-8 become `\\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_hidden(path: str) -> bool:
    """Say whether a part of a path is hidden or a leaving of Finder, Explorer, notebooks or storage boxes."""
    return any(part.startswith(".") or part.casefold() in _SYSTEM_NAMES or "@Syno" in part for part in path.split("/") if part)


def suffix(name: str) -> str:
    """Return the lower-case ending of a file's name with its dot, or ""."""
    stem, dot, end = name.rpartition("/")[2].rpartition(".")
    return f".{end.lower()}" if dot and stem else ""


def named_as_picture(name: str) -> bool:
    """Say whether a name promises a picture."""
    return suffix(name) in PICTURE_SUFFIXES


def begins_as_picture(head: bytes) -> bool:
    """Say whether bytes begin like a picture that Penstock decodes."""
    return head.startswith(_PICTURE_STARTS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def is_record(name: str, head: bytes) -> bool:
    """Say whether a file counts as a picture: its bytes begin like one, or its name promises one or has no ending.

    Anything else beside the pictures (`labels.csv`, `003.json`) is passed over, and reported.
    """
    return begins_as_picture(head) or named_as_picture(name) or not suffix(name)


def one_line(error: BaseException, limit: int = 160) -> str:
    """Return an error's message in one line, its class' name when it has none."""
    return " ".join(str(error).split())[:limit] or type(error).__name__
