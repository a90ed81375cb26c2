"""Scores one shard of a plan, piece by piece; a piece that is complete is kept and never scored twice."""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from components.bundle.model import Classifier
from components.classifier.cpu import available_cpus
from components.classifier.errors import DataError, StoreError, UsageError
from components.score.engine import Engine
from components.score.inputs import CONTAINERS, PICTURE
from components.score.inputs.members import MAX_MEMBER
from components.score.inputs.names import display, one_line
from components.score.inputs.records import Encoded, Reading, Record, Unreadable
from components.score.looks import Looks, read_reference
from components.score.model import Model
from components.score.output import Output
from components.score.parts import PartWriter
from components.score.place import Place, open_place
from components.score.plan import Piece, Plan

REMOTE_WORKERS = 10
"""Decoding threads where pictures come one by one from a store: most of their time they wait. As many as boto3 keeps connections."""


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
    with tempfile.TemporaryDirectory(prefix="penstock-score-") as folder, open_place(plan.input, model.golden) as place:
        bundle = model.fetch(Path(folder) / "model")
        classifier = Classifier(bundle, device=device)
        if device == "cuda" and classifier.device != "cuda":
            raise UsageError(
                "a GPU was asked for, and onnxruntime could not use it; check the driver and CUDA, or take device cpu and gpus 0"
            )
        result.device = classifier.device
        reading = Reading(classifier.spec, plan.settings.image_column)
        started = time.monotonic()
        workers = plan.settings.workers or (REMOTE_WORKERS if place.remote else available_cpus())
        with Engine(classifier, plan.settings.batch_size, workers) as engine:
            for piece in pieces:
                part = Path(folder) / f"{piece.id}.parquet"
                try:
                    rows = _score_piece(plan, piece, place, reading, engine, part, bundle)
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


def _score_piece(plan: Plan, piece: Piece, place: Place, reading: Reading, engine: Engine, path: Path, bundle: Path) -> int:
    looks = Looks(read_reference(bundle))
    writer = PartWriter(path, plan.classes, plan.version, plan.settings.review_threshold, plan.settings.probabilities)
    try:
        for scored in engine.score(_records(plan, piece, place, reading)):
            writer.add(scored)
            looks.add(scored.pixels)
    finally:
        writer.close(lambda: {"rows": str(writer.rows), "looks": looks.to_json()})
    return writer.rows


def _records(plan: Plan, piece: Piece, place: Place, reading: Reading) -> Iterator[Record]:
    for part in plan.slices(piece):
        shown = display(part.name)
        if part.kind != PICTURE:
            yield from CONTAINERS[part.kind].read(place.local(part.name), shown, reading, part.start, part.stop)
        elif part.size > MAX_MEMBER:
            yield Unreadable(shown, 0, f"the file has {part.size} bytes, more than the limit of {MAX_MEMBER}")
        else:
            yield Encoded(shown, 0, partial(place.read, part.name))
