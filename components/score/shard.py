"""Scores one shard of a plan, piece by piece; a piece that is complete is kept and never scored twice.

At the end it assembles the parts of the output whose pieces are all complete by then, whichever shards scored them.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from components.classifier.progress import Progress
from components.integrations import steps
from components.integrations.observe import observed
from components.readers.processes import prepare, processes_for
from components.score.model import Model
from components.score.output import Output
from components.score.pieces import PROCESS_MODULES, Outcome, PieceScorer, in_processes
from components.score.plan import Piece, Plan
from components.score.rows import assemble_parts
from components.score.tally import read_reference

PROCESS_BYTES = 2**30
"""Memory that one process is reckoned with: Python, onnxruntime, the network and a few groups of pictures."""


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


@observed(steps.score)
def score_shard(plan: Plan, shard: str, gpus: str = "0") -> ShardResult:
    """Score the pieces of one shard and keep each in the output's store as soon as it is complete.

    `gpus`: how many the step was given; with any, device "auto" means cuda and never falls back. A piece whose input cannot be
    used is recorded with its reason, and the next one goes on. Raises UsageError for a device that is not there,
    IntegrityError for a damaged model version, EvaluationError when a process that scores was ended from outside.
    """
    result = ShardResult(shard)
    output = Output(plan.output)
    mine = [piece for piece in plan.pieces if str(piece.shard) == shard]
    if not output.is_complete(plan):
        complete = output.complete()
        todo = [piece for piece in mine if piece.id not in complete]
        result.kept = len(mine) - len(todo)
        model = Model(plan.store, plan.name, plan.version)
        with tempfile.TemporaryDirectory(prefix="penstock-score-") as folder:
            bundle = (model.fetch if todo else model.reference)(Path(folder) / "model")
            if todo:
                wanted = "cuda" if plan.settings.device == "auto" and gpus not in {"", "0"} else plan.settings.device
                _score(plan, bundle, todo, result, wanted)
            assemble_parts(plan, output, read_reference(bundle), mine)
    return result


def _score(plan: Plan, bundle: Path, pieces: list[Piece], result: ShardResult, device: str) -> None:
    started = time.monotonic()
    pictures = plan.pictures(pieces)
    step = Progress(pictures, "pictures").step
    if plan.settings.engine == "ray":
        from components.score.on_ray import on_ray

        outcomes = on_ray(plan, bundle, pieces, device, step)
    else:
        outcomes = _on_this_machine(plan, bundle, pieces, pictures, device, step)
    for outcome in outcomes:
        _note(outcome, result, started)
    result.seconds = time.monotonic() - started


def _on_this_machine(
    plan: Plan, bundle: Path, pieces: list[Piece], pictures: int, device: str, step: Callable[[int], object]
) -> Iterator[Outcome]:
    most = min(plan.settings.workers or len(pieces), len(pieces))
    processes = processes_for(pictures, PROCESS_BYTES, most) if device != "cuda" else 1
    prepare(processes, PROCESS_MODULES)
    with PieceScorer(plan.folder, bundle, device, processes) as scorer:
        if processes == 1 or scorer.device != "cpu":
            for piece in pieces:
                yield scorer.score(piece, step)
        else:
            for outcome in in_processes(scorer, plan.folder, bundle, pieces, processes):
                step(outcome.rows)
                yield outcome


def _note(outcome: Outcome, result: ShardResult, started: float) -> None:
    result.device = outcome.device or result.device
    if outcome.problem:
        print(f"piece {outcome.number} failed: {outcome.problem}")
        result.failed += 1
    else:
        result.scored += outcome.rows
        print(f"piece {outcome.number}: {outcome.rows} rows, {result.scored / (time.monotonic() - started):.0f} rows/s")
