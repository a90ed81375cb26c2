"""NumPy's archives of arrays (`.npz`): each array is unpacked into a temporary file and mapped, and nothing is unpickled."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.classifier.errors import DataError, one_line
from components.readers import npy
from components.readers.members import MEMBER_ERRORS, check_limits, open_zip, refuse_full_disk
from components.readers.records import PassedOver, Reading, Record


def unpack(path: Path, name: str, folder: Path) -> dict[str, npt.NDArray[Any]]:
    """Unpack all arrays into `folder`; they come by their names in the order of the archive, mapped read-only.

    Raises DataError for an archive that is cut or damaged, or holds anything else than plain arrays, and UnsafeArchiveError beyond
    the limits.
    """
    found: dict[str, npt.NDArray[Any]] = {}
    with open_zip(path, name) as archive:
        members = archive.infolist()
        if not members:
            raise DataError(f"{name} holds no arrays; save it again with np.savez")
        check_limits(name, path.stat().st_size, sum(member.file_size for member in members), len(members))
        for number, member in enumerate(members):
            array, target = member.filename.removesuffix(".npy"), folder / f"{number}.npy"
            if array == member.filename or array in found:
                raise DataError(f"{name} holds {member.filename!r}, which is not an array of its own; save it again with np.savez")
            try:
                with archive.open(member) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
            except MEMBER_ERRORS as error:
                refuse_full_disk(error, name, folder)
                raise DataError(f"{name} is damaged at its array {array} ({one_line(error)}); copy or save it again") from error
            found[array] = npy.map_array(target, f"{name}/{array}")
    return found


def count(path: Path, name: str, _reading: Reading) -> None:
    """Refuse an archive that is cut, with DataError; how many pictures it holds, only reading tells."""
    open_zip(path, name).close()


def read(path: Path, name: str, reading: Reading, _start: int = 0, _stop: int | None = None) -> Iterator[Record]:
    """Yield the pictures of all arrays of three or four dimensions, named `FILE/ARRAY`; labels are passed over.

    Raises DataError as `unpack` does, and for arrays that are not pictures as npy.py does.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-npz-") as folder:
        arrays = unpack(path, name, Path(folder))
        if not any(array.ndim > 2 for array in arrays.values()):
            raise DataError(f"{name} holds no array of pictures (N, H, W, C); it has {npy.shapes(arrays)}")
        for array_name, array in arrays.items():
            if array.ndim > 2:
                yield from npy.blocks(npy.checked(array, f"{name}/{array_name}", reading), f"{name}/{array_name}")
            else:
                yield PassedOver(f"{name}/{array_name}", f"not pictures, but an array of shape {np.shape(array)}")
