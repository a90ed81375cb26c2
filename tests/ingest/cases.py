"""Real files for the tests of ingest: pictures, IDX files, archives, and the folders that users have."""

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]


def pixels(kind: int, seed: int = 0, size: tuple[int, int] = (16, 16), channels: int = 3) -> Array:
    """Noise, with a bright block whose place tells the class."""
    height, width = size
    picture = np.random.default_rng(1000 * kind + seed).integers(0, 60, (height, width, 3), dtype=np.uint8)
    row, column = (kind // 4 % 4) * height // 4, (kind % 4) * width // 4
    picture[row : row + height // 4, column : column + width // 4] = 240
    return picture if channels == 3 else picture[..., 0]


def encode(picture: Array | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file's bytes."""
    out = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(out, kind, **options)
    return out.getvalue()


def put(path: Path, data: bytes | str = b"") -> Path:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def folder(root: Path, classes: Mapping[str, int] | Iterable[str], seed: int = 0, **how: Any) -> Path:
    """An image folder: per class so many (or 6) different pictures NAME_000.png."""
    counts = dict(classes) if isinstance(classes, Mapping) else dict.fromkeys(classes, 6)
    for kind, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            put(root / name / f"{name}_{k:03d}.png", encode(pixels(kind, seed + k, **how)))
    return root


def files(root: Path) -> dict[str, bytes]:
    """All files below a folder by relative path."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def zip_of(path: Path, members: Mapping[str, bytes] | Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    """A zip of members in the order given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items() if isinstance(members, Mapping) else members:
            archive.writestr(name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return path


def zip_in(path: Path, members: Mapping[str, bytes], encoding: str, unicode_path: bool = False, system: int = 3) -> Path:
    """A zip whose names are in a code page and do not say so; with `unicode_path` Info-ZIP's field has them in UTF-8 too.

    `system` is 3 for Unix and macOS, 0 for Windows.
    """

    class Unmarked(zipfile.ZipInfo):
        def _encodeFilenameFlags(self) -> tuple[bytes, int]:
            return self.filename.encode(encoding), self.flag_bits & ~0x800

    entries: list[tuple[str | zipfile.ZipInfo, bytes]] = []
    for name, data in members.items():
        entry = Unmarked(name)
        entry.create_system = system
        if unicode_path:
            field = name.encode()
            entry.extra = struct.pack("<HHBI", 0x7075, 5 + len(field), 1, zlib.crc32(name.encode(encoding))) + field
        entries.append((entry, data))
    return zip_of(path, entries)


def tar_of(path: Path, members: Mapping[str, bytes] | Iterable[tuple[str, bytes] | tarfile.TarInfo], mode: str = "w") -> Path:
    """A tar of members in the order given; `mode` as tarfile's ("w:gz")."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for member in members.items() if isinstance(members, Mapping) else members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def tar_entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A member that is no file: a link, device or pipe."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def idx(array: Array, code: int = 8) -> bytes:
    """An array as an IDX file."""
    return struct.pack(">HBB", 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + np.ascontiguousarray(array).tobytes()


def idx_pair(labels: Iterable[int], per_label: int, seed: int = 0, size: tuple[int, int] = (12, 12)) -> tuple[Array, Array]:
    """Pictures uint8 (N, H, W), all different, and their labels uint8 (N,), shuffled."""
    marks = np.repeat(np.array(list(labels), np.uint8), per_label)
    pictures = np.stack([pixels(int(mark), seed + k, size, channels=1) for k, mark in enumerate(marks)])
    order = np.random.default_rng(seed).permutation(len(marks))
    return pictures[order], marks[order]


def idx_set(root: Path, labels: Iterable[int] = range(10), size: tuple[int, int] = (12, 12)) -> Path:
    """The four files of an MNIST-like set: 4 training and 2 test pictures a label."""
    labels = list(labels)
    for prefix, count, seed in (("train", 4, 1), ("t10k", 2, 9000)):
        pictures, marks = idx_pair(labels, count, seed, size)
        put(root / f"{prefix}-images-idx3-ubyte", idx(pictures))
        put(root / f"{prefix}-labels-idx1-ubyte", idx(marks))
    return root


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, color: int, rows: Iterable[bytes], extra: bytes = b"") -> bytes:
    """A PNG of any depth and colour type from its raw rows, as Pillow cannot write it."""
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + extra + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def png_bomb(side: int) -> bytes:
    """A square 1-bit PNG of zeros: small as a file, huge when decoded."""
    packer, rows = zlib.compressobj(9), bytes(100 * (1 + (side + 7) // 8))
    body = b"".join(packer.compress(rows) for _ in range(0, side, 100)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
