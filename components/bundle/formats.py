"""How files of a model version are read and written: typed, and refused with one form of error.

FILE cannot be read (CAUSE); REMEDY
FILE is not what this release writes (FIELD: MESSAGE); REMEDY
"""

import zlib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar
from zipfile import BadZipFile, ZipFile

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.classifier.errors import EvaluationError, IntegrityError, PenstockError, remedy_for, validation_problems

Model = TypeVar("Model", bound=BaseModel)
REMEDIES: dict[type[PenstockError], str] = {
    EvaluationError: "evaluate the model again",
    IntegrityError: "publish the model version again",
}


Share = Annotated[float, Field(ge=0, le=1)]
"""A share of a whole, from 0 to 1; never per cent."""
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]


class Strict(BaseModel):
    """Frozen; no unknown field, no text in place of a number, no NaN or Infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class JsonFile(BaseModel):
    """One JSON file of a model version, `FILE`; `ERROR` is raised where it cannot be read."""

    FILE: ClassVar[str]
    ERROR: ClassVar[type[PenstockError]] = EvaluationError

    def save(self, directory: str | Path) -> None:
        """Write the file into a directory."""
        (Path(directory) / self.FILE).write_text(self.model_dump_json(indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Read the file of a directory; raises `ERROR` naming the field that is not what it must be."""
        path = Path(directory) / cls.FILE
        try:
            text = path.read_bytes()
        except OSError as error:
            raise unreadable(path, error.strerror or str(error), cls.ERROR) from error
        return parsed(cls, text, str(path), REMEDIES[cls.ERROR], cls.ERROR)


def parsed(kind: type[Model], text: bytes, place: str, remedy: str, error: type[PenstockError]) -> Model:
    """Read JSON as a model; raises `error`, naming the place and the field, for what is not of its form."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as cause:
        raise error(f"{place} is not what this release writes ({validation_problems(cause)[0]}); {remedy_for(cause, remedy)}") from cause


def read_arrays(path: Path, error: type[PenstockError], limit: int | None = None) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an .npz file, none of them pickled.

    Raises `error` when it is missing or damaged, or would unpack to more than `limit` bytes: then nothing is unpacked.
    """
    try:
        if limit is not None:
            with ZipFile(path) as zipped:
                size = sum(member.file_size for member in zipped.infolist())
            if size > limit:
                raise unreadable(path, f"it unpacks to {size:,} bytes, {limit:,} are allowed", error)
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, EOFError, ValueError, TypeError, AttributeError, MemoryError, BadZipFile, zlib.error) as cause:
        raise unreadable(path, cause, error) from cause


def unreadable(path: Path, cause: object, error: type[PenstockError]) -> PenstockError:
    """The error for a file that is missing or damaged."""
    return error(f"{path} cannot be read ({cause}); {REMEDIES[error]}")
