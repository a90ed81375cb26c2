"""Scores one shard of a plan, piece by piece; a piece that is complete is kept and never scored twice.

Pictures are decoded in threads while the model runs, in order, in bounded memory: a group of `batch_size` records is decoded by
one thread and then goes through the model as one batch. A few groups are under way at any time, each of at most GROUP_BYTES of
encoded pictures, however many the input holds.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.bundle.model import Classifier
from components.classifier.cpu import available_cpus
from components.classifier.errors import DataError, ImageError, StoreError, UsageError
from components.classifier.images import ImageSpec, Pixels, from_bytes, prepare
from components.classifier.progress import Progress
from components.readers import CONTAINERS, PICTURE
from components.readers.decoding import REMOTE_WORKERS, in_order, load
from components.readers.listing import one_line, readable
from components.readers.places import InputSource
from components.readers.records import Decoded, Encoded, PassedOver, Reading, Record, Unreadable
from components.score.appearance import Appearance, read_reference
from components.score.model import Model
from components.score.output import Output
from components.score.plan import Piece, Plan
from components.score.rows import PieceWriter, Scored

GROUP_BYTES = 32 * 2**20
"""Encoded pictures that one group holds at most."""


@dataclass
class ShardResult:
    """What one shard did: rows that it scored, pieces kept from an earlier run, pieces that failed."""

    shard: str
    scored: int = 0
    kept: int = 0
    failed: int = 0
    seconds: float = 0.0
    device: str = ""

    def to_json(self) -> str:
        """One line for the next step."""
        return json.dumps(self.__dict__)


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
        groups, decode = _groups(records, self._batch_size), partial(_decode, spec=self._classifier.spec)
        for group in in_order(self._pool, groups, decode, self._workers + 1):
            yield self._run(group)

    def _run(self, group: "_Group") -> Scored:
        pixels = np.concatenate(group.pixels) if group.pixels else np.zeros((0, *self._classifier.spec.shape), np.uint8)
        probabilities = self._classifier.probabilities(self._padded(pixels), self._batch_size)[: len(pixels)]
        return Scored(group.inputs, group.indices, group.errors, group.passed_over, pixels, probabilities)

    def _padded(self, pixels: Pixels) -> Pixels:
        """On a GPU, fill the batch up: cuDNN chooses its algorithm by shape, slowly, and another may round otherwise."""
        missing = -len(pixels) % self._batch_size
        if self._classifier.device == "cpu" or not missing:
            return pixels
        return np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), np.uint8)])


@dataclass
class _Group:
    inputs: list[str] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)
    pixels: list[npt.NDArray[np.uint8]] = field(default_factory=list)

    def add(self, name: str, index: int, error: str | None) -> None:
        self.inputs.append(name)
        self.indices.append(index)
        self.errors.append(error)


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


def _decode(records: list[Record], spec: ImageSpec) -> _Group:
    group = _Group()
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


def score_shard(plan: Plan, shard: str, gpus: str = "0") -> ShardResult:
    """Score the pieces of one shard and keep each in the output's store as soon as it is complete.

    `gpus`: how many the step was given; with any, device "auto" means cuda and never falls back. A piece whose input cannot be
    used is recorded with its reason, and the next one goes on. Raises UsageError for a device that is not there,
    IntegrityError for a damaged model version.
    """
    result = ShardResult(shard)
    output = Output(plan.output)
    mine = [piece for piece in plan.pieces if str(piece.shard) == shard]
    if not output.is_complete(plan):
        todo = [piece for piece in mine if not output.has_part(piece)]
        result.kept = len(mine) - len(todo)
        if todo:
            wanted = "cuda" if plan.settings.device == "auto" and gpus not in {"", "0"} else plan.settings.device
            _score(plan, todo, output, result, wanted)
    return result


def _score(plan: Plan, pieces: list[Piece], output: Output, result: ShardResult, device: str) -> None:
    model = Model(plan.store, plan.name, plan.version)
    with tempfile.TemporaryDirectory(prefix="penstock-score-") as folder, model.open_input(plan.input) as source:
        bundle = model.fetch(Path(folder) / "model")
        classifier = Classifier(bundle, device=device)
        if device == "cuda" and classifier.device != "cuda":
            raise UsageError(
                "a GPU was asked for, and onnxruntime could not use it; check the driver and CUDA, or take device cpu and gpus 0"
            )
        result.device = classifier.device
        reading = Reading(classifier.spec, plan.settings.image_column, plan.settings.names)
        started = time.monotonic()
        workers = plan.settings.workers or (REMOTE_WORKERS if source.remote else available_cpus())
        progress = Progress(plan.pictures(pieces), "pictures")
        with Engine(classifier, plan.settings.batch_size, workers) as engine:
            for piece in pieces:
                part = Path(folder) / f"{piece.id}.parquet"
                try:
                    rows = _score_piece(plan, piece, source, reading, engine, part, bundle, progress)
                except (DataError, StoreError, OSError) as error:
                    output.put_failure(piece, plan.slices(piece), one_line(error, 1000))
                    print(f"piece {piece.number} failed: {error}")
                    result.failed += 1
                else:
                    output.put_part(piece, part)
                    result.scored += rows
                    print(f"piece {piece.number}: {rows} rows, {result.scored / (time.monotonic() - started):.0f} rows/s")
                part.unlink(missing_ok=True)
        result.seconds = time.monotonic() - started


def _score_piece(
    plan: Plan, piece: Piece, source: InputSource, reading: Reading, engine: Engine, path: Path, bundle: Path, progress: Progress
) -> int:
    appearance = Appearance(read_reference(bundle))
    writer = PieceWriter(path, plan.classes, plan.version, plan.settings.review_threshold, plan.settings.probabilities)
    try:
        for scored in engine.score(_records(plan, piece, source, reading)):
            writer.add(scored)
            appearance.add(scored.pixels)
            progress.step(len(scored.inputs))
    finally:
        writer.close(lambda: {"rows": str(writer.rows), "looks": appearance.to_json()})
    return writer.rows


def _records(plan: Plan, piece: Piece, source: InputSource, reading: Reading) -> Iterator[Record]:
    for part in plan.slices(piece):
        shown = readable(part.name)
        if part.kind == PICTURE:
            yield Encoded(shown, 0, partial(source.read, part.name), part.size)
        else:
            yield from CONTAINERS[part.kind].read(source.local(part.name), shown, reading, part.start, part.stop)
