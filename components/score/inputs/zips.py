"""zip archives, read member by member and never unpacked to disk."""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from components.classifier.errors import DataError
from components.score.inputs.members import Members
from components.score.inputs.names import one_line
from components.score.inputs.records import Reading, Record


def count(path: Path, name: str, _reading: Reading) -> None:
    """Refuse a zip that is cut, and NumPy's own archives (npz); how many pictures it holds, only reading tells."""
    _open(path, name).close()


def read(path: Path, name: str, _reading: Reading, _start: int = 0, _stop: int | None = None) -> Iterator[Record]:
    """Yield all pictures in the order of the archive's directory; a damaged or locked member is Unreadable, in its place."""
    members = Members(name)
    with _open(path, name) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            try:
                with archive.open(member) as file:
                    records = list(members.take(member.filename, member.file_size, file))
            except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, ValueError, zlib.error, OSError) as error:
                # RuntimeError is zipfile's word for a missing password
                records = [members.unreadable(member.filename, f"the member cannot be read ({one_line(error)})")]
            yield from records
    yield from members.orphans()


def _open(path: Path, name: str) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise DataError(f"{name} is a cut or damaged zip archive ({one_line(error)}); copy it again") from error
    files = [member for member in archive.namelist() if not member.endswith("/")]
    if files and all(file.endswith(".npy") for file in files):
        archive.close()
        raise DataError(f"{name} is a NumPy archive (npz) of {len(files)} arrays; save one array with np.save, and score the .npy file")
    return archive
