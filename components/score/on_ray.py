"""Scores pieces on a Ray cluster: Ray Data's tasks decode, its actors hold the model and answer, this process writes the pieces.

Decoding and answering are scaled apart, by Ray: tasks take the CPUs that the actors leave, and an actor has a GPU of its own where the
device is one. Between them go groups of records (pieces.py), so that every piece has the bytes that the other engine gives it. Ray
keeps their order and repeats what a lost worker had; a piece is kept once all of its groups are there.
"""

import atexit
import logging
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pyarrow as pa
from tenacity import retry, retry_if_exception_message, stop_after_attempt

from components.bundle.config import BundleConfig
from components.bundle.model import Classifier
from components.classifier.cpu import available_cpus, available_memory
from components.classifier.errors import DataError, EvaluationError, PenstockError, StoreError, UsageError, one_line
from components.readers.processes import REMOTE_WORKERS
from components.readers.records import Reading
from components.score.model import Model
from components.score.output import Output
from components.score.pieces import MAX_REASON, Group, Outcome, answered, decoded, read_records
from components.score.plan import Piece, Plan, Slice
from components.score.ray_head import refusal, taken
from components.score.rows import PieceFile, Scored
from components.score.tally import Appearance, read_reference
from components.settings.scoring import check_engine

BLOCK_BYTES = 16 * 2**20
"""Groups go on to an actor once they hold so much, where Ray would gather eight times as much."""
STORE_BYTES = 2 * 2**30
"""Memory for groups on their way, at most, and at most a quarter of this machine's; where a cluster is there already, it is that one's."""
MAX_FOLDER = 28
"""Characters of a folder for temporary files in which Ray's sockets can lie."""
START_SECONDS = 600
"""Longest wait for a CPU, and then for the first actor: a cluster that grows by itself needs minutes for a node."""
DECODE_CPUS, ANSWER_CPUS = 1, 0.999
"""CPUs of a task and of an actor: not the same, or else Ray puts both kinds of work into the actors."""

_TOKEN = "asks for its token; set RAY_AUTH_MODE=token, and give the token by ~/.ray/auth_token, RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
_SCHEMA = pa.schema([pa.field("piece", pa.int64()), pa.field("message", pa.large_binary())])


@dataclass(frozen=True)
class _Work:
    """Where decoding tasks and actors find what they need; each opens it for itself, perhaps on another machine."""

    store: str
    name: str
    version: str
    input: str
    reading: Reading
    batch_size: int
    device: str

    @property
    def model(self) -> Model:
        return Model(self.store, self.name, self.version)


@dataclass(frozen=True)
class _Answers:
    """A group after the model, without its pixels; how they look is counted."""

    scored: Scored
    looks: str
    device: str


@dataclass(frozen=True)
class _End:
    """The end of a piece: complete, or with the reason why its input cannot be used; `fatal` is what ends the run."""

    problem: str = ""
    reason: str = ""
    fatal: PenstockError | None = None


def on_ray(plan: Plan, bundle: Path, pieces: list[Piece], device: str, step: Callable[[int], object]) -> Iterator[Outcome]:
    """Score pieces and keep each in the output; yields what became of each, in order, and calls `step` with the rows of each group.

    The cluster is the one that RAY_ADDRESS names, or one of this machine for the time of the call. Raises UsageError where Ray is not
    installed, or has no GPU for device cuda, IntegrityError for a damaged model version, EvaluationError when Ray gives up.
    """
    check_engine("ray")
    reading = Reading(BundleConfig.load(bundle).input.spec, plan.settings.image_column, plan.settings.names)
    work = _Work(plan.store, plan.name, plan.version, plan.input, reading, plan.settings.batch_size, device)
    reference, output, numbered = read_reference(bundle), Output(plan.output), {piece.number: piece for piece in pieces}
    with tempfile.TemporaryDirectory(prefix="penstock-pieces-") as folder, _cluster(plan.settings.workers):
        for number, messages in groupby(_answers(plan, pieces, work), key=itemgetter(0)):
            piece, end, used = numbered[number], _End(), ""
            path = Path(folder) / f"{piece.id}.parquet"
            with PieceFile(path, plan, reference) as file:
                for _, message in messages:
                    if isinstance(message, _Answers):
                        file.appearance.merge(message.looks)
                        file.add(message.scored)
                        step(len(message.scored.inputs))
                        used = message.device
                    else:
                        end = message
            if end.fatal:
                raise end.fatal
            if end.problem:
                output.put_failure(piece, plan.slices(piece), end.reason)
            else:
                output.put_piece(piece, path)
            path.unlink()
            yield Outcome(number, 0 if end.problem else file.rows, end.problem, used)


@contextmanager
def _cluster(workers: int) -> Iterator[None]:
    """Connect to a Ray cluster, or start one with `workers` CPUs (0: all); one that was connected before is used and left."""
    import ray

    if ray.is_initialized():
        yield
        return
    at = None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage figures are sent to Ray's makers
    if address := os.environ.get("RAY_ADDRESS"):
        _require_answer(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.AuthenticationError) as error:
            if "authentication" in f"{error} {error.__cause__}".lower():
                raise EvaluationError(f"the Ray cluster that RAY_ADDRESS names, {address}, {_TOKEN}") from error
            raise EvaluationError(f"the Ray cluster that RAY_ADDRESS names, {address}, does not answer: {one_line(error)}") from error
    else:
        memory = max(2**27, min(STORE_BYTES, available_memory() // 4))
        cpus = max(2, workers or available_cpus())  # with one, the actor would leave none to decode
        at = _short_folder()
        _start(cpus, memory, at.name)
    head = ray.get_runtime_context().gcs_address
    try:
        yield
    finally:
        if refusal(head):  # what Ray does at the end of a process waits for its head, or crashes
            sys.excepthook = sys.__excepthook__
            atexit.register(_end_at_once)
        else:
            ray.shutdown()
        if at:
            at.cleanup()


def _end_at_once() -> None:
    """End a process that has told its error."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EvaluationError.exit_code)


@retry(retry=retry_if_exception_message(match="The current node timed out"), stop=stop_after_attempt(3), reraise=True)
def _start(cpus: int, memory: int, folder: str) -> None:
    """Start a cluster of this machine; Ray gives its processes 30 seconds, which a busy machine may take."""
    import ray

    ray.shutdown()
    quiet = {"log_to_driver": False, "logging_level": logging.WARNING}
    ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=memory, _temp_dir=folder, **quiet)


def _require_answer(address: str) -> None:
    """Raise EvaluationError where nobody listens at an address: Ray itself would try for minutes."""
    if error := refusal(address):  # of "auto", which Ray knows, nothing is known
        raise EvaluationError(f"the Ray cluster that RAY_ADDRESS names, {address}, does not answer: {one_line(error)}") from error


def _short_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder for Ray's sockets, whose paths have 107 characters at most: some 65 below it."""
    usual = tempfile.gettempdir()
    return tempfile.TemporaryDirectory(prefix="ray-", dir=usual if len(usual) < MAX_FOLDER else "/tmp", ignore_cleanup_errors=True)


def _answers(plan: Plan, pieces: list[Piece], work: _Work) -> Iterator[tuple[int, _Answers | _End]]:
    """Yield the number of a piece and its answers, group by group, then its end; the pieces in order."""
    import ray
    from ray import data

    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0)) if work.device != "cpu" else 0
    if work.device == "cuda" and not gpus:
        raise UsageError("device=cuda, but the Ray cluster has no GPU; add nodes with GPUs, or set device=cpu")
    actors = gpus or max(1, int(resources.get("CPU", 1)) - 1)
    context = data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.target_max_block_size = BLOCK_BYTES
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context.wait_for_min_actors_s = START_SECONDS
    try:
        ray.get(ray.remote(num_cpus=DECODE_CPUS)(lambda: None).remote(), timeout=START_SECONDS)  # what comes next waits without end
        rows = (
            data.from_arrow([_message(piece.number, plan.slices(piece)) for piece in pieces])
            .map_batches(_decode, batch_size=1, batch_format="pyarrow", num_cpus=DECODE_CPUS, fn_kwargs={"work": work})
            .map_batches(
                _Answering,
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=ANSWER_CPUS,
                num_gpus=1 if gpus else 0,
                compute=data.ActorPoolStrategy(min_size=1, max_size=actors),
                fn_constructor_args=[replace(work, device=work.device if gpus else "cpu")],
            )
        )
        for row in taken(rows.iter_rows, ray.get_runtime_context().gcs_address):
            yield row["piece"], pickle.loads(row["message"])
    except (ray.exceptions.GetTimeoutError, data.exceptions.ExecutionTimeoutError) as error:
        kinds, free = ("CPU", "GPU") if gpus else ("CPU",), ray.available_resources()
        there = ", ".join(f"{free.get(kind, 0):g} of {resources.get(kind, 0):g} {kind}s" for kind in kinds)
        needed = f"one CPU to decode and {'a GPU' if gpus else 'another'} to answer"
        raise EvaluationError(
            f"the scoring waits on Ray in vain: it needs {needed}, and {there} are free; end what holds them or add nodes, and run again: "
            "what is complete is kept"
        ) from error
    except ray.exceptions.RayError as error:
        raise EvaluationError(f"Ray ended the scoring: {one_line(error, MAX_REASON)}; what is complete is kept") from error


def _message(piece: int, message: object) -> pa.Table:
    return pa.table([[piece], [pickle.dumps(message, pickle.HIGHEST_PROTOCOL)]], _SCHEMA)


def _decode(batch: pa.Table, work: _Work) -> Iterator[pa.Table]:
    """Decode one piece, in a task of Ray's: yields its groups, then its end."""
    row = batch.to_pylist()[0]
    slices: list[Slice] = pickle.loads(row["message"])
    end = _End()
    with ExitStack() as stack:
        try:
            source = stack.enter_context(work.model.open_input(work.input))
        except PenstockError as error:
            yield _message(row["piece"], _End(fatal=error))
            return
        threads = REMOTE_WORKERS if source.remote else 1
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        try:
            for group in decoded(read_records(source, work.reading, slices), work.reading.spec, work.batch_size, pool, threads):
                yield _message(row["piece"], group)
        except (DataError, StoreError, OSError) as error:
            end = _End(str(error) or repr(error), one_line(error, MAX_REASON))
    yield _message(row["piece"], end)


class _Answering:
    """An actor of Ray's: the loaded model, which answers group after group."""

    def __init__(self, work: _Work) -> None:
        self._work, self._fatal = work, _End()
        try:
            with tempfile.TemporaryDirectory(prefix="penstock-model-") as folder:
                bundle = work.model.fetch(Path(folder) / "model")
                self._reference = read_reference(bundle)
                self._classifier = Classifier(bundle, threads=1, device=work.device)
        except PenstockError as error:  # as a message, it is not repeated and comes out as it went in
            self._fatal = _End(fatal=error)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Answer one group; the end of a piece goes through as it is."""
        row = batch.to_pylist()[0]
        return _message(row["piece"], self._fatal if self._fatal.fatal else self._answer(pickle.loads(row["message"])))

    def _answer(self, message: Group | _End) -> _Answers | _End:
        if isinstance(message, _End):
            return message
        scored = answered(message, self._classifier, self._work.batch_size)
        appearance = Appearance(self._reference)
        appearance.add(scored.pixels, scored.probabilities)
        return _Answers(replace(scored, pixels=scored.pixels[:0]), appearance.to_json(), self._classifier.device)
