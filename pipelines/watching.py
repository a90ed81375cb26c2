"""When a model that serves calls for a new training: what is known of it, the bounds, and the trainings that were started before.

Each start is recorded in the store before it happens, create-only: of two watchers that see the same one starts a training, and one that
is started again knows what it did.

    watches/NAME/000001.json        which version gave which reasons, and what was started
    watches/NAME/000001.run.json    the run that it became, or why there is none
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from components.bundle.formats import parsed
from components.classifier.errors import IntegrityError, ObjectExists, ObjectNotFound, one_line
from components.registry.manifest import MAX_BYTES
from components.review.accuracy import LiveAccuracy
from components.score.drift import Drift, ExpectedAccuracy
from components.storage import Store

Kind = TypeVar("Kind", bound=BaseModel)


@dataclass(frozen=True)
class Bounds:
    """From where on a training is started, and how long after the last one not again."""

    min_accuracy: float
    """Live accuracy below it, by more than chance explains."""
    max_drop: float
    """Of the accuracy that is estimated without labels, against that of the evaluation."""
    min_pictures: int
    """Fewer pictures, or labels, say nothing."""
    cool_down: timedelta


@dataclass(frozen=True)
class ObservedDrift:
    """Pictures that were compared with those of the evaluation: where they were seen, how many, and what has moved."""

    where: str
    pictures: int
    drift: Sequence[Drift]
    expected: ExpectedAccuracy | None


class Start(BaseModel):
    """One training that a watcher started; `time` is UTC, ISO 8601."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    time: str
    version: str
    """The version that gave the reasons."""
    reasons: list[str]
    pipeline: str
    where: str
    """The address of Kubeflow Pipelines; empty: the watcher's own machine."""


class Started(BaseModel):
    """What came of a start: the run's ID, or the error because of which there is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    run: str = ""
    error: str = ""


def reasons(live: LiveAccuracy | None, observed: Sequence[ObservedDrift], bounds: Bounds) -> list[str]:
    """Return why a training is called for, one line each; nothing where all is within the bounds, or too few pictures were seen.

    Labels count by the upper end of the interval of live accuracy. Without labels the estimate must have dropped by more than both
    chance and `max_drop`; where a version's reference allows no estimate, features that drifted count.
    """
    found = []
    if live is not None and live.accuracy is not None:
        labelled = _labels(live)
        if labelled >= bounds.min_pictures and live.accuracy.high < bounds.min_accuracy:
            found.append(f"live accuracy is at most {live.accuracy.high:.4f} (95%), below {bounds.min_accuracy:g}, by {labelled:,} labels")
    for seen in observed:
        features = ", ".join(drift.feature for drift in seen.drift if drift.drifted)
        if seen.pictures < bounds.min_pictures:
            continue
        if seen.expected is None and features:
            found.append(f"{features} drifted in {seen.pictures:,} pictures of {seen.where}")
        elif seen.expected is not None and seen.expected.change_high < 0 and seen.expected.change <= -bounds.max_drop:
            figures = f"{seen.expected.value:.4f}, {seen.expected.evaluated:.4f} at evaluation"
            moved = f" ({features} drifted)" if features else ""
            found.append(f"accuracy without labels is {figures}, by {seen.pictures:,} pictures of {seen.where}{moved}")
    return found


def known_by(live: LiveAccuracy | None, observed: Sequence[ObservedDrift], bounds: Bounds) -> str:
    """Say by how many labels and pictures a version is judged, in one line, and what to do where these are too few to say anything."""
    counts = {"labels": _labels(live)} | {f"pictures of {seen.where}": seen.pictures for seen in observed}
    line = "judged by " + ", ".join(f"{count:,} {what}" for what, count in counts.items())
    if max(counts.values()) >= bounds.min_pictures:
        return line
    remedy = "name predictors or --scores, or label pictures by `penstock review`"
    return f"{line}: too few to say anything, {bounds.min_pictures:,} are needed; {remedy}"


def _labels(live: LiveAccuracy | None) -> int:
    return 0 if live is None else live.labelled


def reason_to_wait(last: tuple[Start, Started | None] | None, active: bool, cool_down: timedelta, now: datetime) -> str:
    """Say why a training that is called for is not started; empty when it may start.

    `last`: the last start that did not fail, and what came of it. `active`: whether its run still goes on.
    """
    if last is None:
        return ""
    start, started = last
    run = started.run if started else "a run of which nothing is known"
    if active:
        return f"{run}, which was started at {start.time}, still goes on"
    until = datetime.fromisoformat(start.time) + cool_down
    return f"{run} was started at {start.time}; not again before {until.isoformat(timespec='seconds')}" if now < until else ""


class Watches:
    """The starts of one model name in a store."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._prefix = store, f"watches/{name}/"

    def last(self) -> tuple[Start, Started | None] | None:
        """Return the newest start that did not fail, and what came of it as far as it is known.

        Raises IntegrityError for a record that cannot be read.
        """
        for number in range(self.count(), 0, -1):
            started = self._find(Started, f"{number:06d}.run.json")
            start = self._find(Start, f"{number:06d}.json")
            if start is not None and not (started and started.error):
                return start, started
        return None

    def count(self) -> int:
        """Return the number of the newest start; 0 when there is none."""
        found = [name for name in self._store.names(self._prefix) if re.fullmatch(r"[0-9]{6,}\.json", name)]
        return max((int(name[:-5]) for name in found), default=0)

    def claim(self, number: int, start: Start) -> bool:
        """Record a start under its number; False when another watcher has that number."""
        try:
            self._store.create(f"{self._prefix}{number:06d}.json", start.model_dump_json(indent=1).encode())
        except ObjectExists:
            return False
        return True

    def note(self, number: int, started: Started) -> None:
        """Record what came of a start."""
        self._store.create(f"{self._prefix}{number:06d}.run.json", started.model_dump_json(indent=1).encode())

    def _find(self, kind: type[Kind], name: str) -> Kind | None:
        try:
            data = self._store.read(self._prefix + name, MAX_BYTES)
        except ObjectNotFound:
            return None
        place = f"{self._store.url}/{self._prefix}{name}"
        return parsed(kind, data, place, "find out who wrote it, and remove it", IntegrityError)


def start_once(
    watches: Watches,
    why: list[str],
    version: str,
    *,
    pipeline: str,
    where: str,
    cool_down: timedelta,
    is_active: Callable[[str], bool],
    launch: Callable[[Callable[[str], None]], None] | None,
) -> str:
    """Start a training for these reasons, unless one was started not long ago; returns what was done, in one line.

    `launch` starts it, and tells its run's ID as soon as there is one; None: nothing is started or recorded. Raises what it raises; a
    start that gave no run is noted as failed, and the next pass may start again.
    """
    if not why:
        return "nothing calls for a training"
    number, last, now = watches.count() + 1, watches.last(), datetime.now(UTC)
    active = bool(last and last[1] and last[1].run and last[0].where == where and is_active(last[1].run))
    if obstacle := reason_to_wait(last, active, cool_down, now):
        return f"a training is called for, and none is started: {obstacle}"
    if launch is None:
        return f"a training is called for; without --dry-run the pipeline {pipeline} would start now"
    start = Start(time=now.isoformat(timespec="seconds"), version=version, reasons=why, pipeline=pipeline, where=where)
    if not watches.claim(number, start):
        return "a training is called for, and another watcher has just started one"
    runs: list[str] = []

    def note(run: str) -> None:
        runs.append(run)
        watches.note(number, Started(run=run))

    try:
        launch(note)
    except Exception as error:
        if not runs:
            watches.note(number, Started(error=one_line(error, 500)))
        raise
    return f"started {pipeline}, run {runs[0]}" if runs else f"started {pipeline}"
