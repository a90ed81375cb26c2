"""Scores pieces with one loaded model: in this process, or in several that each take pieces of their own.

A group of `batch_size` records is decoded by one thread and then goes through the model as one batch. A few groups are under way at
any time, each of at most GROUP_BYTES of encoded pictures, in order, so that memory is bounded however many the input holds.

Decoding small pictures is work of Python's interpreter, which runs one thread at a time: threads hide waiting, processes add CPUs.
Pixels and answers never leave the process that made them: what a process gives back is a finished piece in the output.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, partial
from multiprocessing import util
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from components.bundle.model import Classifier
from components.classifier.cpu import available_cpus
from components.classifier.decode import decode_picture
from components.classifier.errors import DataError, EvaluationError, ImageError, StoreError, one_line
from components.classifier.images import ImageSpec, Pixels, prepare
from components.classifier.metadata import UNREAD
from components.readers import CONTAINERS, PICTURE
from components.readers.archive_rows import read_range
from components.readers.listing import readable
from components.readers.places import InputSource
from components.readers.processes import REMOTE_WORKERS, in_order, load, process_pool
from components.readers.records import Decoded, Encoded, PassedOver, Reading, Record, Unreadable
from components.score.model import Model
from components.score.output import Output
from components.score.plan import Piece, Plan, Slice
from components.score.rows import PieceFile, Scored
from components.score.tally import read_reference

GROUP_BYTES = 32 * 2**20
"""Encoded pictures that one group holds at most."""
PROCESS_MODULES = (__name__,)
"""What a process that scores needs."""
MAX_REASON = 1000
"""Characters of the reason that is kept for a piece that failed."""


class Outcome(NamedTuple):
    """What became of a piece: its rows, or the reason why it could not be scored."""

    number: int
    rows: int
    problem: str = ""
    device: str = ""
    """Where the model ran."""


class PieceScorer:
    """A loaded model and an open input; closing it ends its threads."""

    def __init__(self, plan_folder: Path, bundle: Path, device: str, processes: int = 1) -> None:
        """`processes`: how many share this machine's CPUs, and the connections to a store.

        Raises UsageError for a device that is not there, IntegrityError for a damaged model version.
        """
        self._plan, self._reference = Plan.load(plan_folder), read_reference(bundle)
        self._output = Output(self._plan.output)
        self._classifier = Classifier(bundle, threads=max(1, available_cpus() // processes), device=device)
        self.device: str = self._classifier.device
        settings = self._plan.settings
        self._reading = Reading(self._classifier.spec, settings.image_column, settings.names)
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-pieces-")))
            self._source = stack.enter_context(Model(self._plan.store, self._plan.name, self._plan.version).open_input(self._plan.input))
            threads = REMOTE_WORKERS if self._source.remote else available_cpus()
            self._threads = max(1, (settings.workers or threads) // (processes if self.device == "cpu" else 1))
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")
            stack.callback(self._pool.shutdown, cancel_futures=True)
            self._open = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and close the input."""
        self._open.close()

    def stop(self) -> None:
        """Let `score`, where another thread is in it, end with an error at its next batch: the rest of its piece may be long."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def score(self, piece: Piece, step: Callable[[int], object] = lambda rows: None) -> Outcome:
        """Score a piece and keep it, or the reason why its input cannot be used; calls `step` with the rows of each batch."""
        path = self._folder / f"{piece.id}.parquet"
        try:
            rows = self._write(piece, path, step)
        except (DataError, StoreError, OSError) as error:
            self._output.put_failure(piece, self._plan.slices(piece), one_line(error, MAX_REASON))
            return Outcome(piece.number, 0, str(error) or repr(error), self.device)
        else:
            self._output.put_piece(piece, path)
            return Outcome(piece.number, rows, device=self.device)
        finally:
            path.unlink(missing_ok=True)

    def _write(self, piece: Piece, path: Path, step: Callable[[int], object]) -> int:
        records, batch_size = read_records(self._source, self._reading, self._plan.slices(piece)), self._plan.settings.batch_size
        with PieceFile(path, self._plan, self._reference) as file:
            for group in decoded(records, self._reading.spec, batch_size, self._pool, self._threads):
                scored = answered(group, self._classifier, batch_size)
                file.appearance.add(scored.pixels, scored.probabilities)
                file.add(scored)
                step(len(scored.inputs))
        return file.rows


def read_records(source: InputSource, reading: Reading, slices: Iterable[Slice]) -> Iterator[Record]:
    """Yield the records of a piece in order.

    Raises DataError, StoreError and OSError when a file cannot be used as a whole; a single picture is read in the threads that decode.
    """
    for rows in slices:
        shown = readable(rows.name)
        if rows.kind == PICTURE:
            yield Encoded(shown, 0, partial(source.read, rows.name), rows.size)
        elif rows.place:
            yield from read_range(source, rows.name, rows.size, shown, rows.kind, reading, rows.start, rows.stop or 0, rows.place)
        else:
            path = source.local(rows.name)
            if rows.size and path.stat().st_size != rows.size:
                raise DataError(f"{shown} has changed since the run was planned; run again")
            yield from CONTAINERS[rows.kind].read(path, shown, reading, rows.start, rows.stop)


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
        for one in _split(record, room, size) if isinstance(record, Decoded) else (record,):
            group.append(one)
            room -= len(one.pixels) if isinstance(one, Decoded) else 1
            held += one.size if isinstance(one, Encoded) else 0
            if room <= 0 or held >= GROUP_BYTES:
                yield group
                group, room, held = [], size, 0
    if group:
        yield group


def _split(block: Decoded, room: int, size: int) -> Iterator[Decoded]:
    """Split an array: what `room` is left for in a group, and then `size` pictures each."""
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
            try:
                picture = decode_picture(load(record), levels=spec.levels, then=partial(prepare, spec=spec))
            except ImageError as error:
                group.add(record.input, record.index, one_line(error))
                continue
            group.add(record.input, record.index, None)
            group.pixels.append(picture.pixels[None])
            group.passed_over += [PassedOver(record.input, UNREAD[what]) for what in picture.unread]
        else:
            count = len(record.pixels)
            group.inputs += [record.input] * count
            group.indices += range(record.first, record.first + count)
            group.errors += [None] * count
            group.pixels.append(_prepare_all(record.pixels, spec))
    return group


def _prepare_all(pixels: Pixels, spec: ImageSpec) -> Pixels:
    if pixels.shape[1:] == spec.shape:
        return pixels
    return np.stack([prepare(np.ascontiguousarray(picture), spec) for picture in pixels])


def in_processes(scorer: PieceScorer, plan_folder: Path, bundle: Path, pieces: Iterable[Piece], processes: int) -> Iterator[Outcome]:
    """Score pieces on the CPU in several processes, of which this one is the first: with `scorer` it works while the others start.

    Yields what became of each piece as it ends, in any order. Raises EvaluationError when one of the other processes is ended from
    outside; what is complete is kept.
    """
    pool, own = process_pool(processes - 1, PROCESS_MODULES, interruptible=True), ThreadPoolExecutor(1)
    waiting = iter(pieces)
    free: list[Callable[[Piece], Future[Outcome]]] = [lambda piece: own.submit(scorer.score, piece)]
    free += [lambda piece: pool.submit(_score, plan_folder, bundle, processes, piece)] * (processes - 1)
    under_way: dict[Future[Outcome], Callable[[Piece], Future[Outcome]]] = {}
    try:
        while True:
            for submit, piece in zip(free, waiting, strict=False):
                under_way[submit(piece)] = submit
            if not under_way:
                break
            ended = wait(under_way, return_when=FIRST_COMPLETED).done
            free = [under_way.pop(future) for future in ended]
            for future in ended:
                yield future.result()
    except BrokenProcessPool as error:
        raise EvaluationError(
            "a process that scores was ended from outside, probably for its memory; give the step more memory, or set workers=1"
        ) from error
    finally:
        scorer.stop()
        own.shutdown()
        pool.shutdown()


def _score(plan_folder: Path, bundle: Path, processes: int, piece: Piece) -> Outcome:
    return _scorer(plan_folder, bundle, processes).score(piece)


@cache
def _scorer(plan_folder: Path, bundle: Path, processes: int) -> PieceScorer:
    """Return the only scorer of a process of the pool."""
    scorer = PieceScorer(plan_folder, bundle, "cpu", processes)
    util.Finalize(None, scorer.close, exitpriority=10)  # atexit is not run in such a process
    return scorer
