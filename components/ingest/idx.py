"""IDX files, the format of MNIST, EMNIST and their kin: big-endian header, then raw numbers.

Bytes decide: whether a file is gzipped, and whether it holds pictures (3 or 4 dimensions) or labels (1). The name only says
which split it belongs to: train, t10k or test, val. Pictures keep the orientation that the file has (EMNIST's are transposed).
Format: http://yann.lecun.com/exdb/mnist/ (two zero bytes, type, number of dimensions, sizes, data).
"""

import gzip
import io
import re
import zlib
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from components.bundle.dataset import SplitName
from components.classifier.errors import DataError, ImageError
from components.classifier.idx import TYPES, begins_like_idx
from components.ingest.collection import SPLIT_CODE, Collection, from_arrays, natural
from components.ingest.listing import Listing, Member, looks_like_picture, some

MAX_BYTES = 8 * 2**30
"""Largest IDX file, unpacked."""
MAX_FILES = 64
"""More files than that with IDX-like names are no IDX set."""

STRAY_SHARE, STRAY_COUNT = 0.1, 3
"""A label beyond a gap is taken for an error when it is rarer than this share of the average, or than this."""

_CANDIDATE = re.compile(r"idx|ubyte|images|labels", re.IGNORECASE)
_CLAIM = re.compile(r"idx[1-4]|-ubyte", re.IGNORECASE)
_SPLIT_WORDS: list[tuple[str, SplitName]] = [("t10k", "test"), ("test", "test"), ("train", "train"), ("val", "validation")]
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class _File:
    member: Member
    split: SplitName | None
    array: npt.NDArray[np.generic]


def find(listing: Listing) -> list[Member]:
    """The members that are IDX files: by content where a name has images or labels in it, or by a name such as x-idx3-ubyte.

    A file with such a name and another content is taken as well, so that `load` refuses it by name.
    """
    candidates = [m for m in listing.members if _CANDIDATE.search(m.name.rpartition("/")[2]) and not looks_like_picture(m.name)]
    if len(candidates) > MAX_FILES:
        return []
    return [member for member in candidates if _CLAIM.search(member.name.rpartition("/")[2]) or _is_idx(_content(member))]


def parse(data: bytes, name: str = "the file") -> npt.NDArray[np.generic]:
    """Read an IDX file, gzipped or not, as an array of the file's own type and shape.

    Raises DataError naming the file when it is no IDX, is cut or too long, or is larger than MAX_BYTES.
    """
    with io.BytesIO(data) as raw, gzip.GzipFile(fileobj=raw) if data[:2] == _GZIP else raw as stream:
        try:
            kind, shape = _header(stream, name)
            expected = prod(shape) * np.dtype(kind).itemsize
            if expected > MAX_BYTES:
                raise DataError(f"{name} says it holds {shape}, more than the limit of {MAX_BYTES} bytes; split it")
            body = stream.read(expected + 1)
        except (EOFError, zlib.error, OSError) as error:
            raise DataError(f"{name} is a cut or damaged gzip file ({error}); copy it again") from error
    if len(body) != expected:
        received = f"only {len(body)}" if len(body) < expected else f"more than {expected}"
        raise DataError(
            f"{name} should hold {'x'.join(map(str, shape))} values ({expected} bytes), and holds {received} bytes; copy it again"
        )
    return np.frombuffer(body, np.dtype(kind)).reshape(shape)


def load(listing: Listing, members: list[Member]) -> Collection:
    """Read the pictures and labels of the IDX files of a listing.

    Raises DataError when a file is damaged, has no partner, or does not fit its partner.
    """
    files = [_read(member) for member in members]
    pairs = _pairs(files)
    images, labels, given, names = [], [], [], []
    for split, (pictures, marks) in pairs.items():
        _check_pair(pictures, marks)
        images.append(_pixels(pictures))
        labels.append(np.asarray(marks.array).astype(np.int64))
        given.append(np.full(len(labels[-1]), SPLIT_CODE[split], np.int8))
        names += [f"{pictures.member.name}#{k}" for k in range(len(labels[-1]))]
    shapes = {pictures.member.name: image.shape[1:] for (pictures, _), image in zip(pairs.values(), images, strict=True)}
    if len(set(shapes.values())) > 1:
        raise DataError(f"the pictures of {some(f'{n} ({s})' for n, s in shapes.items())} differ in size; use files of one set")
    _check_range(pairs)
    values = np.concatenate(labels)
    classes = natural([str(value) for value in np.unique(values)])
    index = np.searchsorted(np.array([int(c) for c in classes]), values)
    return from_arrays(np.concatenate(images), index, classes, np.concatenate(given), names)


def _is_idx(data: bytes) -> bool:
    if data[:2] == _GZIP:
        try:
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(4)
        except (EOFError, zlib.error, OSError):
            return False
    return begins_like_idx(data)


def _header(stream: "io.BytesIO | gzip.GzipFile", name: str) -> tuple[str, tuple[int, ...]]:
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES or not head[3]:
        raise DataError(f"{name} is no IDX file: it begins with {head.hex(' ') or 'nothing'} and not with 00 00, type, dimensions")
    sizes = stream.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise DataError(f"{name} ends within its header; copy it again")
    return TYPES[head[2]], tuple(int(n) for n in np.frombuffer(sizes, ">u4"))


def _content(member: Member) -> bytes:
    try:
        return member.read()
    except ImageError as error:
        raise DataError(f"{member.name} cannot be read: {error}") from error


def _read(member: Member) -> _File:
    array = parse(_content(member), member.name)
    words = member.name.lower()
    base = words.rpartition("/")[2]
    split = next((name for text in (base, words) for word, name in _SPLIT_WORDS if word in text), None)
    return _File(member, split, array)


def _pairs(files: list[_File]) -> dict[SplitName | None, tuple[_File, _File]]:
    pairs: dict[SplitName | None, tuple[_File, _File]] = {}
    for split in dict.fromkeys(file.split for file in files):
        pictures = _one([f for f in files if f.split == split and f.array.ndim >= 3], "pictures")
        labels = _one([f for f in files if f.split == split and f.array.ndim == 1], "labels")
        if pictures is None or labels is None:
            have, lack = (pictures, "labels") if pictures else (labels, "pictures")
            found = have.member.name if have else some(f.member.name for f in files)
            raise DataError(f"{found} has no IDX file of {lack} beside it; add it, such as {_example(split, lack)}")
        pairs[split] = (pictures, labels)
    if None in pairs and len(pairs) > 1:
        raise DataError(f"{pairs[None][0].member.name} names no split, but other files do; name it train-… or test-…")
    if None not in pairs and "train" not in pairs:
        raise DataError(
            f"there are only {some(p.member.name for p, _ in pairs.values())} and no training files; add {_example('train', 'pictures')}"
        )
    return pairs


def _one(files: list[_File], what: str) -> _File | None:
    if len(files) > 1 and not all(np.array_equal(file.array, files[0].array) for file in files[1:]):
        raise DataError(
            f"several IDX files hold {what} of one split: {some(f.member.name for f in files)}; give a folder that holds one set only"
        )
    return files[0] if files else None


def _example(split: SplitName | None, what: str) -> str:
    prefix = {"train": "train-", "test": "t10k-", "validation": "val-", None: ""}[split]
    return f"{prefix}{'labels-idx1-ubyte' if what == 'labels' else 'images-idx3-ubyte'}"


def _check_pair(pictures: _File, labels: _File) -> None:
    if len(pictures.array) != len(labels.array):
        raise DataError(
            f"{pictures.member.name} holds {len(pictures.array)} pictures and {labels.member.name} {len(labels.array)} labels; "
            "they do not belong together"
        )
    if not np.issubdtype(labels.array.dtype, np.integer):
        raise DataError(f"{labels.member.name} holds {labels.array.dtype.name} values; labels are whole numbers")
    negative = np.flatnonzero(np.asarray(labels.array) < 0)
    if len(negative):
        raise DataError(
            f"{labels.member.name} holds labels out of range: {labels.array[negative[0]]} at place {negative[0]}; labels are 0 or more"
        )


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
        f"{file.member.name} holds label {label} out of range, {len(places)} times, first at place {places[0]}; {others}; correct them"
    )


def _pixels(file: _File) -> npt.NDArray[np.uint8]:
    array = file.array
    if array.dtype != np.uint8:
        raise DataError(f"{file.member.name} holds {array.dtype.name} pictures; only bytes (0 to 255) have a known scale")
    if array.ndim == 3:
        return np.asarray(array[..., None], np.uint8)
    if array.ndim == 4 and array.shape[3] in (1, 3):
        return np.asarray(array, np.uint8)
    raise DataError(f"{file.member.name} has shape {array.shape}; pictures are (N, height, width) or (N, height, width, 1 or 3)")
