"""Arrays of pictures with arrays of labels beside them: IDX files (MNIST, EMNIST and their kin), NumPy's `.npy` and `.npz`, CSVs of pixels.

Bytes decide whether a file holds pictures (3 or 4 dimensions) or labels (1). The name only says which split it belongs to:
train, t10k or test, val. Pictures keep the orientation that the file has (EMNIST's are transposed).
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.bundle.dataset import SplitName
from components.classifier.errors import DataError, ImageError
from components.ingest.collection import SPLIT_CODE, Collection, from_arrays, natural
from components.readers import HEAD, idx, kind_of, npy, npz, pixel_table
from components.readers.listing import Listing, SourceFile, holds_pictures, looks_like_picture, some, suffix
from components.readers.places import InputSource
from components.readers.processes import load as load_bytes
from components.readers.records import Encoded
from components.readers.table import SPLIT_NAMES

MAX_FILES = 64
"""More files than that with IDX-like names are not an IDX set."""
STRAY_SHARE, STRAY_COUNT = 0.1, 3
"""A label after a gap is an error if it occurs less often than this share of the average, or fewer times than this."""
_INT64_DIGITS = 19
"""A whole number of fewer digits fits into 64 bits."""

_IDX, _TABLES = frozenset(["idx", "labels"]), frozenset(["pixels"])
_CANDIDATE = re.compile(r"idx|ubyte|images|labels", re.IGNORECASE)
_CLAIM = re.compile(r"idx[1-4]|-ubyte", re.IGNORECASE)
_LABELS = re.compile(r"(?:^|_)(?:y|labels?|targets?|classes)(?:_|$)", re.IGNORECASE)
_PICTURES = re.compile(r"(?:^|_)(?:x|images?|imgs?|pictures|data)(?:_|$)", re.IGNORECASE)
_AFTER = "(?=[a-z]?(?![a-z])|ing|id|val|set|data|ima|img|lab|pic|target|class|batch|split|part|shard|file|dir|fold|rec)"
"""What may follow the word of a split: nothing, one letter, or another word of files."""
_SPLIT_WORDS: list[tuple[re.Pattern[str], SplitName]] = [
    (re.compile(rf"t10k|(?<!la)(?<!con)(?<!grea)(?<!fas)(?<!pro)(?<!de)test{_AFTER}"), "test"),
    (re.compile(rf"(?<!s)train{_AFTER}"), "train"),
    (re.compile(rf"(?<![a-z])[xy]?val{_AFTER}"), "validation"),
]
"""These words do not match: latest, intestine, strain, trainer, medieval, value."""


@dataclass(frozen=True)
class _File:
    name: str
    split: SplitName | None
    array: npt.NDArray[Any]
    kind: str
    """"IDX", "npy" or "CSV"."""
    rows: npt.NDArray[np.intp] | None = None
    """Which rows of the file these are; None: all."""


def find(source: InputSource, listing: Listing) -> list[SourceFile]:
    """The files that are IDX: by content where a name has images or labels in it, or by a name such as x-idx3-ubyte.

    A file with such a name and another content is taken as well, so that `load` refuses it by name. Where there are none, and
    nothing is named as a picture: the files of NumPy and the tables of pixels.
    """
    candidates = listing.files.where(lambda name: _CANDIDATE.search(name.rpartition("/")[2]) and not looks_like_picture(name))
    if len(candidates) <= MAX_FILES:
        found = [f for f in candidates if _CLAIM.search(f.name.rpartition("/")[2]) or _begins_as(source, f, _IDX)]
        if found:
            return found
    if holds_pictures(listing):
        return []
    return [file for file in listing.files if suffix(file.name) in {".npy", ".npz"} or _begins_as(source, file, _TABLES)]


def split_of(name: str) -> SplitName | None:
    """The split that a file's name speaks of, that of its folders where it does not: `train-images`, `test/images.npy`."""
    words = name.lower()
    return next((split for text in (words.rpartition("/")[2], words) for word, split in _SPLIT_WORDS if word.search(text)), None)


def load(source: InputSource, files: list[SourceFile], workspace: Path) -> Collection:
    """Read the pictures and labels of the files that `find` found; `workspace` takes what is unpacked.

    Raises DataError when a file is damaged, has no partner, or does not fit its partner.
    """
    pairs = _pairs([array for file in files for array in _read(source, file, workspace)])
    images, marks, given, names = [], [], [], []
    for split, (pictures, labels) in pairs.items():
        _check_pair(pictures, labels)
        images.append(_pixels(pictures))
        marks.append(_whole_or_text(labels))
        given.append(np.full(len(marks[-1]), SPLIT_CODE[split], np.int8))
        names += [f"{pictures.name}#{k}" for k in (range(len(marks[-1])) if pictures.rows is None else pictures.rows)]
    shapes = {pictures.name: image.shape[1:] for (pictures, _), image in zip(pairs.values(), images, strict=True)}
    if len(set(shapes.values())) > 1:
        raise DataError(f"the pictures of {some(f'{n} ({s})' for n, s in shapes.items())} differ in size; use files of one set")
    if all(array.dtype.kind == "i" for array in marks):
        _check_range(pairs)
    texts = np.concatenate([array.astype(str) for array in marks])
    classes = natural(sorted(set(texts.tolist())))
    index = {name: k for k, name in enumerate(classes)}
    labels_ = np.array([index[text] for text in texts.tolist()], np.int64)
    return from_arrays(images[0] if len(images) == 1 else np.concatenate(images), labels_, classes, np.concatenate(given), names)


def _begins_as(source: InputSource, file: SourceFile, kinds: frozenset[str]) -> bool:
    try:
        return kind_of(file.name, source.head(file, HEAD)) in kinds
    except (OSError, ImageError):
        return False


def _read(source: InputSource, file: SourceFile, workspace: Path) -> list[_File]:
    """The arrays of one file."""
    if suffix(file.name) == ".npy":
        return [_numpy(file.name, npy.map_array(source.local(file.key), file.name))]
    if suffix(file.name) == ".npz":
        folder = Path(tempfile.mkdtemp(dir=workspace))
        arrays = [_numpy(f"{file.name}/{name}", array) for name, array in npz.unpack(source.local(file.key), file.name, folder).items()]
        return _usual(arrays, _LABELS, {1}) + _usual(arrays, _PICTURES, {3, 4})
    if not _begins_as(source, file, _IDX) and not _CLAIM.search(file.name.rpartition("/")[2]):
        return _from_table(file.name, pixel_table.read_table(source.local(file.key), file.name))
    try:
        data = load_bytes(Encoded(file.name, 0, source.loader(file)))
    except ImageError as error:
        raise DataError(f"{file.name} cannot be read: {error}") from error
    return [_File(file.name, split_of(file.name), idx.parse(data, file.name), "IDX")]


def _numpy(name: str, array: npt.NDArray[Any]) -> _File:
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "backslashreplace")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]  # as Keras and MedMNIST leave labels
    if array.ndim == 2:
        raise DataError(
            f"{name} has shape {array.shape}, neither pictures (N, H, W, C) nor labels (N,): for pictures use a.reshape(N, height, width), "
            "for labels one number or text per picture, such as a.argmax(axis=1)"
        )
    if array.ndim not in {1, 3, 4}:
        raise DataError(f"{name} has shape {array.shape}, neither pictures (N, H, W, C) nor labels (N,); move it away")
    return _File(name, split_of(name), array, "npy")


def _usual(arrays: list[_File], names: re.Pattern[str], dimensions: set[int]) -> list[_File]:
    """The pictures or the labels of one archive: where a split has several arrays that may be these, the one with a usual name."""
    found = [array for array in arrays if array.array.ndim in dimensions]
    chosen = []
    for split in dict.fromkeys(array.split for array in found):
        of_split = [array for array in found if array.split == split]
        usual = [array for array in of_split if names.search(array.name.rpartition("/")[2])]
        chosen += usual if len(of_split) > 1 and usual else of_split
    return chosen


def _from_table(name: str, table: pixel_table.PixelTable) -> list[_File]:
    """The pictures and labels of a table, per split where it has a column of splits."""
    if table.labels is None:
        raise DataError(f"{name} has no column of labels (label); add it, or give the table that has it as the source")
    labels: npt.NDArray[Any] = table.labels
    if all(text.isdecimal() and len(text) < _INT64_DIGITS for text in labels.tolist()):
        numbers = labels.astype(np.int64)
        labels = numbers if (numbers.astype(np.str_) == labels).all() else labels  # 07 is a name
    if table.splits is None:
        return [_File(name, split_of(name), array, "CSV") for array in (table.pixels, labels)]
    files = []
    for text in np.unique(table.splits).tolist():
        rows = np.flatnonzero(table.splits == text)
        split = SPLIT_NAMES.get(text.casefold())
        if text and split is None:
            raise DataError(f"{name} puts line {rows[0] + 2} into split {text!r}; use train, validation or test, or leave it empty")
        files += [_File(name, split, array[rows], "CSV", rows) for array in (table.pixels, labels)]
    return files


def _pairs(files: list[_File]) -> dict[SplitName | None, tuple[_File, _File]]:
    pairs: dict[SplitName | None, tuple[_File, _File]] = {}
    for split in dict.fromkeys(file.split for file in files):
        pictures = _one([f for f in files if f.split == split and f.array.ndim >= 3], "pictures")
        labels = _one([f for f in files if f.split == split and f.array.ndim == 1], "labels")
        if pictures is None or labels is None:
            have, lack = (pictures, "labels") if pictures else (labels, "pictures")
            found = have.name if have else some(f.name for f in files)
            kind = files[0].kind
            raise DataError(f"{found} has no {lack} beside it; add them, such as {_example(split, lack, kind)}")
        pairs[split] = (pictures, labels)
    if None in pairs and len(pairs) > 1:
        raise DataError(f"{pairs[None][0].name} names no split, but other files do; name it train-… or test-…")
    if None not in pairs and "train" not in pairs:
        found, example = some(p.name for p, _ in pairs.values()), _example("train", "pictures", files[0].kind)
        raise DataError(f"there are only {found} and no training files; add {example}")
    return pairs


def _one(files: list[_File], what: str) -> _File | None:
    if len(files) > 1 and not all(np.array_equal(file.array, files[0].array) for file in files[1:]):
        raise DataError(
            f"several {files[0].kind} files hold {what} of one split: {some(f.name for f in files)}; give a folder that holds one set only"
        )
    return files[0] if files else None


def _example(split: SplitName | None, what: str, kind: str) -> str:
    prefix = {"train": "train-", "test": "t10k-" if kind == "IDX" else "test-", "validation": "val-", None: ""}[split]
    ending = ("-idx1-ubyte" if what == "labels" else "-idx3-ubyte") if kind == "IDX" else f".{kind.lower()}"
    if kind == "CSV":
        return f"{prefix}pictures{ending}, a table with a column label"
    return f"{prefix}{'labels' if what == 'labels' else 'images'}{ending}"


def _check_pair(pictures: _File, labels: _File) -> None:
    if len(pictures.array) != len(labels.array):
        raise DataError(
            f"{pictures.name} holds {len(pictures.array)} pictures and {labels.name} {len(labels.array)} labels; "
            "they do not belong together"
        )
    if not len(pictures.array):
        raise DataError(f"{pictures.name} holds 0 pictures; write it again, or move it and its labels away")
    if labels.array.dtype.kind == "U":
        if (empty := np.flatnonzero(np.char.strip(labels.array) == "")).size:
            raise DataError(f"{labels.name} has no label at place {empty[0]} ({len(empty)} in all); add them, or remove these pictures")
        return
    if not np.issubdtype(labels.array.dtype, np.integer):
        raise DataError(f"{labels.name} holds {labels.array.dtype.name} values; labels are whole numbers or text: save a.astype(int)")
    values = np.asarray(labels.array)
    beyond = np.flatnonzero((values < 0) | (values > np.iinfo(np.int64).max))
    if len(beyond):
        raise DataError(f"{labels.name} holds labels out of range: {values[beyond[0]]} at place {beyond[0]}; labels are 0 to 2**63 - 1")


def _check_range(pairs: dict[SplitName | None, tuple[_File, _File]]) -> None:
    """Refuse labels that training does not have, and stray ones: rare, and apart from the run of all others."""
    train = (pairs.get("train") or pairs[None])[1]
    known, counts = np.unique(np.asarray(train.array), return_counts=True)
    run = int(np.argmax(np.append(np.diff(known.astype(np.int64)) > 1, True))) + 1
    stray = known[run:][counts[run:] < max(STRAY_COUNT, STRAY_SHARE * counts[:run].mean())]
    if len(stray):
        _refuse_label(train, int(stray[0]), f"the others are {known[0]} to {known[run - 1]}")
    for _, labels in pairs.values():
        unknown = np.setdiff1d(np.asarray(labels.array), known)
        if len(unknown):
            _refuse_label(labels, int(unknown[0]), f"training has {known[0]} to {known[-1]}, {len(known)} labels")


def _refuse_label(file: _File, label: int, others: str) -> None:
    places = np.flatnonzero(np.asarray(file.array) == label)
    raise DataError(
        f"{file.name} holds label {label} out of range, {len(places)} times, first at place {places[0]}; {others}; correct them"
    )


def _whole_or_text(labels: _File) -> npt.NDArray[Any]:
    return np.asarray(labels.array) if labels.array.dtype.kind == "U" else np.asarray(labels.array).astype(np.int64)


def _pixels(file: _File) -> npt.NDArray[np.uint8]:
    array = file.array
    if file.kind == "CSV":
        return np.asarray(array, np.uint8)
    if file.kind == "npy":
        return npy.to_pixels(array[..., None] if array.ndim == 3 else array, file.name)
    if array.dtype != np.uint8:
        raise DataError(f"{file.name} holds {array.dtype.name} pictures; only bytes (0 to 255) have a known scale")
    if array.ndim == 3:
        return np.asarray(array[..., None], np.uint8)
    if array.ndim == 4 and array.shape[3] in (1, 3):
        return np.asarray(array, np.uint8)
    raise DataError(f"{file.name} has shape {array.shape}; pictures are (N, height, width) or (N, height, width, 1 or 3)")
