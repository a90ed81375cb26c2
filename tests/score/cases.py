"""Pictures and files as users have them, built here."""

import io
import struct
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests import tiny


def digit(number: int) -> np.ndarray:
    """One of scikit-learn's digits, uint8 (8, 8)."""
    return tiny.digits()[0][number][:, :, 0]


def digits(count: int) -> np.ndarray:
    """The first ones, uint8 (count, 8, 8, 1)."""
    return tiny.digits()[0][:count]


def encoded(picture: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    data = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(data, kind, **options)
    return data.getvalue()


def png(number: int) -> bytes:
    return encoded(digit(number))


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def folder(root: Path, count: int) -> Path:
    """`count` pictures named 0.png, 1.png, … as people name them: 10.png sorts before 2.png."""
    for number in range(count):
        put(root / f"{number}.png", png(number))
    return root


def tar(path: Path, members: Sequence[tuple[str, bytes]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def idx(array: np.ndarray, code: int = 8) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()
