"""Scores pieces with one loaded model: in this process, or in several that each take pieces of their own.

Decoding small pictures is work of Python's interpreter, which runs one thread at a time: threads hide waiting, processes add CPUs.
Pixels and answers never leave the process that made them: what a process gives back is a finished part in the output.
"""

import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from multiprocessing import util
from pathlib import Path
from typing import NamedTuple, Self

from components.bundle.model import Classifier
from components.bundle.reference import Reference
from components.classifier.cpu import available_cpus
from components.classifier.errors import DataError, EvaluationError, StoreError, one_line
from components.readers import CONTAINERS, PICTURE
from components.readers.archive_rows import read_part
from components.readers.decoding import REMOTE_WORKERS
from components.readers.listing import readable
from components.readers.places import InputSource
from components.readers.processes import end_with_parent
from components.readers.records import Encoded, Reading, Record
from components.score.engine import Engine
from components.score.model import Model
from components.score.output import Output
from components.score.plan import Piece, Plan, Slice
from components.score.rows import PieceWriter, Scored
from components.score.tally import Appearance, read_reference

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
        classifier = Classifier(bundle, threads=max(1, available_cpus() // processes), device=device)
        self.device: str = classifier.device
        settings = self._plan.settings
        self._reading = Reading(classifier.spec, settings.image_column, settings.names)
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-pieces-")))
            self._source = stack.enter_context(Model(self._plan.store, self._plan.name, self._plan.version).open_input(self._plan.input))
            threads = REMOTE_WORKERS if self._source.remote else available_cpus()
            threads = max(1, (settings.workers or threads) // processes)
            self._engine = stack.enter_context(Engine(classifier, settings.batch_size, threads))
            self._open = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and close the input."""
        self._open.close()

    def score(self, piece: Piece, step: Callable[[int], object] = lambda rows: None) -> Outcome:
        """Score a piece and keep it in the output, or the reason why its input cannot be used; `step` hears of each batch's rows."""
        part = self._folder / f"{piece.id}.parquet"
        try:
            rows = self._write(piece, part, step)
        except (DataError, StoreError, OSError) as error:
            self._output.put_failure(piece, self._plan.slices(piece), one_line(error, MAX_REASON))
            return Outcome(piece.number, 0, str(error) or repr(error), self.device)
        else:
            self._output.put_piece(piece, part)
            return Outcome(piece.number, rows, device=self.device)
        finally:
            part.unlink(missing_ok=True)

    def _write(self, piece: Piece, path: Path, step: Callable[[int], object]) -> int:
        records = read_records(self._source, self._reading, self._plan.slices(piece))
        with PieceFile(path, self._plan, self._reference) as file:
            for scored in self._engine.score(records):
                file.appearance.add(scored.pixels, scored.probabilities)
                file.add(scored)
                step(len(scored.inputs))
        return file.rows


class PieceFile:
    """A piece's rows on their way to a local file, with figures about them."""

    def __init__(self, path: Path, plan: Plan, reference: Reference | None) -> None:
        settings = plan.settings
        self.appearance = Appearance(reference)
        self._writer = PieceWriter(path, plan.classes, plan.version, settings.review_threshold, settings.probabilities, plan.familiarity)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close(lambda: {"rows": str(self.rows), "looks": self.appearance.to_json()})

    @property
    def rows(self) -> int:
        """Rows so far."""
        return self._writer.rows

    def add(self, scored: Scored) -> None:
        """Append a batch; how its pictures look is counted in `appearance` by whoever has the pixels."""
        self._writer.add(scored)


def read_records(source: InputSource, reading: Reading, slices: Iterable[Slice]) -> Iterator[Record]:
    """Yield the records of a piece in order.

    Raises DataError, StoreError and OSError when a file cannot be used as a whole; a single picture is read in the threads that decode.
    """
    for part in slices:
        shown = readable(part.name)
        if part.kind == PICTURE:
            yield Encoded(shown, 0, partial(source.read, part.name), part.size)
        elif part.place:
            known = (part.name, part.size, shown, part.kind, reading)
            yield from read_part(source, *known, part.start, part.stop or 0, part.place)
        else:
            yield from CONTAINERS[part.kind].read(source.local(part.name), shown, reading, part.start, part.stop)


def in_processes(plan_folder: Path, bundle: Path, pieces: list[Piece], processes: int) -> Iterator[Outcome]:
    """Score pieces on the CPU in several processes; yields what became of each as it ends, in any order.

    Raises EvaluationError when one of the processes is ended from outside; what is complete is kept.
    """
    spawn = multiprocessing.get_context("spawn")  # a forked copy of a process that has threads may hang
    pool = ProcessPoolExecutor(processes, spawn, _open_here, (plan_folder, bundle, processes))
    try:
        for future in as_completed([pool.submit(_score_here, piece) for piece in pieces]):
            yield future.result()
    except BrokenProcessPool as error:
        raise EvaluationError(
            "a process that scores was ended from outside, probably for its memory; give the step more memory, or set workers=1"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_here: PieceScorer


def _open_here(plan_folder: Path, bundle: Path, processes: int) -> None:
    global _here
    end_with_parent()
    _here = PieceScorer(plan_folder, bundle, "cpu", processes)
    util.Finalize(None, _here.close, exitpriority=10)  # atexit is not run in such a process


def _score_here(piece: Piece) -> Outcome:
    return _here.score(piece)
