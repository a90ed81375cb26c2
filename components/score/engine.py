"""Runs records through the model: decoded in threads while it answers, in order, in bounded memory.

A group of `batch_size` records is decoded by one thread and then goes through the model as one batch. A few groups are under way at
any time, each of at most GROUP_BYTES of encoded pictures, however many the input holds.
"""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from components.bundle.model import Classifier
from components.classifier.errors import ImageError, one_line
from components.classifier.images import ImageSpec, Pixels, from_bytes, prepare
from components.readers.decoding import in_order, load
from components.readers.records import Decoded, Encoded, PassedOver, Record, Unreadable
from components.score.rows import Scored

GROUP_BYTES = 32 * 2**20
"""Encoded pictures that one group holds at most."""


class Engine:
    """Scores records with one loaded model; closing it ends its threads."""

    def __init__(self, classifier: Classifier, batch_size: int, workers: int) -> None:
        """`workers`: decoding threads. Neither they nor `batch_size` change an answer or the order."""
        self._classifier, self._batch_size, self._workers = classifier, batch_size, workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def score(self, records: Iterator[Record]) -> Iterator[Scored]:
        """Yield scored batches in the order of the records.

        Raises what reading the records raises, and StoreError when a store does not answer.
        """
        for group in decoded(records, self._classifier.spec, self._batch_size, self._pool, self._workers):
            yield answered(group, self._classifier, self._batch_size)


@dataclass
class Group:
    """Records that go through the model as one batch: what of them could be decoded, and why the others could not."""

    inputs: list[str] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)
    pixels: list[npt.NDArray[np.uint8]] = field(default_factory=list)

    def add(self, name: str, index: int, error: str | None) -> None:
        """Append one record; its pixels, if it has any, are appended apart."""
        self.inputs.append(name)
        self.indices.append(index)
        self.errors.append(error)


def decoded(records: Iterator[Record], spec: ImageSpec, batch_size: int, pool: Executor, workers: int) -> Iterator[Group]:
    """Yield groups of `batch_size` records, decoded in the pool's `workers` threads, in the order of the records.

    Raises what reading the records raises, and StoreError when a store does not answer.
    """
    return in_order(pool, _groups(records, batch_size), partial(_decode, spec=spec), workers + 1)


def answered(group: Group, classifier: Classifier, batch_size: int) -> Scored:
    """Run a group through the model."""
    pixels = np.concatenate(group.pixels) if group.pixels else np.zeros((0, *classifier.spec.shape), np.uint8)
    probabilities, familiarity = classifier.answer(_padded(pixels, classifier.device, batch_size), batch_size)
    familiarity = None if familiarity is None else familiarity[: len(pixels)]
    answers = (probabilities[: len(pixels)], familiarity, classifier.unfamiliar(familiarity))
    return Scored(group.inputs, group.indices, group.errors, group.passed_over, pixels, *answers)


def _padded(pixels: Pixels, device: str, batch_size: int) -> Pixels:
    """On a GPU, fill the batch up: cuDNN chooses its algorithm by shape, slowly, and another may round otherwise."""
    missing = -len(pixels) % batch_size
    if device == "cpu" or not missing:
        return pixels
    return np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), np.uint8)])


def _groups(records: Iterator[Record], size: int) -> Iterator[list[Record]]:
    group: list[Record] = []
    room, held = size, 0
    for record in records:
        for part in _parts(record, room, size) if isinstance(record, Decoded) else (record,):
            group.append(part)
            room -= len(part.pixels) if isinstance(part, Decoded) else 1
            held += part.size if isinstance(part, Encoded) else 0
            if room <= 0 or held >= GROUP_BYTES:
                yield group
                group, room, held = [], size, 0
    if group:
        yield group


def _parts(block: Decoded, room: int, size: int) -> Iterator[Decoded]:
    start = 0
    while start < len(block.pixels):
        stop = min(start + room, len(block.pixels))
        yield Decoded(block.input, block.first + start, block.pixels[start:stop])
        start, room = stop, size


def _decode(records: list[Record], spec: ImageSpec) -> Group:
    group = Group()
    for record in records:
        if isinstance(record, PassedOver):
            group.passed_over.append(record)
        elif isinstance(record, Unreadable):
            group.add(record.input, record.index, record.reason)
        elif isinstance(record, Encoded):
            pixels, error = _decode_one(record, spec)
            group.add(record.input, record.index, error)
            if pixels is not None:
                group.pixels.append(pixels[None])
        else:
            count = len(record.pixels)
            group.inputs += [record.input] * count
            group.indices += range(record.first, record.first + count)
            group.errors += [None] * count
            group.pixels.append(_prepare_all(record.pixels, spec))
    return group


def _decode_one(record: Encoded, spec: ImageSpec) -> tuple[Pixels | None, str | None]:
    try:
        return from_bytes(load(record), spec), None
    except ImageError as error:
        return None, one_line(error)


def _prepare_all(pixels: Pixels, spec: ImageSpec) -> Pixels:
    if pixels.shape[1:] == spec.shape:
        return pixels
    return np.stack([prepare(np.ascontiguousarray(picture), spec) for picture in pixels])
