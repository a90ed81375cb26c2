"""The deployment ledger: create-only records that say what served when, and why.

`deployments/NAME/000001.json` and on; the order is the sequence, never a clock. The last record's `champion` serves.

Rolling back is undo, over successful deployments only. Deploying puts a version on a stack; rolling back takes the top off,
and what is then on top serves. Held and failed records change nothing. Rolling back to a named version takes off everything
above it; a version that is not on the stack is put on it, like a deployment.
"""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.bundle.decision import Decision
from components.classifier.errors import LedgerConflict, ObjectExists, RegistryError
from components.storage import Store
from components.storage.optimistic import write_optimistically

Action = Literal["deployed", "held", "rolled_back", "failed"]
Strategy = Literal["quality", "manual", "force", "rollback"]


class Record(BaseModel):
    """One entry of the ledger; `sequence`, `previous`, `time` and `id` are filled in when it is appended."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sequence: int = Field(default=0, ge=0)
    action: Action
    version: str
    """The version that the record is about."""
    champion: str = ""
    """Who serves after it; empty while nothing does. Held and failed records carry the champion on."""
    previous: str = ""
    """Who served before it."""
    strategy: Strategy
    target: str = "local"
    environment: str = ""
    actor: str = ""
    reason: str = ""
    evaluation_digest: str = ""
    decision: dict[str, Any] = {}
    """The gate's verdict and reasons, may be empty."""
    run: str = ""
    time: str = ""
    """UTC, ISO 8601; for people, the order is the sequence."""
    id: str = ""
    """Unique, so that a writer can tell its own record from another's of equal content."""

    def repeats(self, other: "Record") -> bool:
        """Say whether this is what the same step of the same run recorded before."""
        fields = ("run", "action", "version", "environment", "target", "strategy")
        return bool(self.run) and all(getattr(self, field) == getattr(other, field) for field in fields)


class Ledger:
    """The records of one model name in a store."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._prefix = f"deployments/{name}/"
        self._known: dict[int, Record] = {}  # records never change, so each is read once

    def append(self, draft: Record) -> Record:
        """Add a record with the next sequence and return it.

        A step that is run again with the same `run` finds its record and adds none. Raises LedgerConflict when other writers
        were first again and again.
        """
        appended = self._append(lambda _: draft)
        assert appended is not None
        return appended

    def append_if(self, decide: Callable[[list[Record]], Record | None]) -> Record | None:
        """Add the record that `decide` drafts from all records, or nothing when it returns None.

        It is asked again whenever another writer was first, so its record always follows the records that it saw. Raises what
        `decide` raises, and LedgerConflict when other writers were first again and again.
        """
        return self._append(lambda count: decide([self._record(sequence) for sequence in range(1, count + 1)]))

    def hold(self, decision: Decision, actor: str = "", run: str = "") -> Record:
        """Record that the gate held a version; returns the record that the same run, or the same judgement, left before.

        A hold is a result: it is kept with its reasons, and the champion goes on serving.
        """
        draft = draft_record(
            "held",
            decision.version,
            "force" if decision.strategy == "force" else "quality",
            decision=decision,
            environment=decision.environment,
            actor=actor or decision.actor,
            run=run,
        )
        last = self.last()
        fields = ("action", "version", "environment", "run", "decision")
        if last is not None and not run and all(getattr(last, field) == getattr(draft, field) for field in fields):
            return last
        return self.append(draft)

    def _append(self, decide: Callable[[int], Record | None]) -> Record | None:
        def attempt() -> Record | None:
            count = self._count()
            draft = decide(count)
            if draft is None:
                return None
            repeated = (record for record in map(self._record, range(count, 0, -1)) if draft.repeats(record)) if draft.run else ()
            if found := next(iter(repeated), None):
                return found
            record = _complete(draft, count + 1, self._record(count).champion if count else "")
            self._store.create(self._key(record.sequence), (record.model_dump_json(indent=1) + "\n").encode())
            self._known[record.sequence] = record
            return record

        return write_optimistically(
            attempt, ObjectExists, LedgerConflict(f"others append to {self._store.url}/{self._prefix} all the time; try again later")
        )

    def records(self) -> list[Record]:
        """Return all records, oldest first.

        Raises RegistryError when one is missing or cannot be read: a ledger with a gap proves nothing.
        """
        return [self._record(sequence) for sequence in range(1, self._count() + 1)]

    def last(self) -> Record | None:
        """Return the newest record, or None in an empty ledger; reads no other one."""
        count = self._count()
        return self._record(count) if count else None

    def champion(self) -> str | None:
        """Return the version that serves, or None when nothing does."""
        last = self.last()
        return (last.champion or None) if last else None

    def deployment(self) -> Record | None:
        """Return the record that made the champion serve, or None when nothing has been deployed."""
        return next((record for record in reversed(self.records()) if record.action in {"deployed", "rolled_back"}), None)

    def previous(self) -> str | None:
        """Return the version that a rollback would bring back, or None when nothing was deployed before the champion."""
        stack = deployments(self.records())
        return stack[-2] if len(stack) > 1 else None

    def _count(self) -> int:
        found = [name[:-5] for name in self._store.names(self._prefix) if name.endswith(".json")]
        sequences = sorted(int(name) for name in found if name.isdigit())
        if sequences != list(range(1, len(sequences) + 1)):
            missing = ", ".join(f"{m:06d}" for m in sorted(set(range(1, sequences[-1])) - set(sequences)))
            raise RegistryError(f"the ledger {self._store.url}/{self._prefix} lacks record {missing}; restore it from a backup")
        return len(sequences)

    def _record(self, sequence: int) -> Record:
        if sequence not in self._known:
            key = self._key(sequence)
            try:
                record = Record.model_validate_json(self._store.read(key))
            except ValidationError as error:
                raise RegistryError(f"{self._store.url}/{key} is not a ledger record; restore it from a backup") from error
            if record.sequence != sequence:
                raise RegistryError(f"{self._store.url}/{key} says it is record {record.sequence}; restore it from a backup")
            self._known[sequence] = record
        return self._known[sequence]

    def _key(self, sequence: int) -> str:
        return f"{self._prefix}{sequence:06d}.json"


def draft_record(
    action: Action,
    version: str,
    strategy: str,
    *,
    decision: Decision | None = None,
    target: str = "local",
    environment: str = "",
    actor: str = "",
    reason: str = "",
    run: str = "",
) -> Record:
    """Return a record to append; the gate's decision adds its reasons, and the digest of the evaluation that it judged."""
    return Record(
        action=action,
        version=version,
        strategy=cast(Strategy, strategy),  # the record's own check holds
        target=target,
        environment=environment,
        actor=actor,
        reason=reason or (decision.summary if decision else ""),
        evaluation_digest=decision.evaluation_digest if decision else "",
        decision=decision.for_ledger() if decision else {},
        run=run,
    )


def champion_of(records: list[Record]) -> str:
    """Return the version that serves after these records; empty when nothing does."""
    return records[-1].champion if records else ""


def deployments(records: list[Record]) -> list[str]:
    """Return the stack of successful deployments, the champion on top; the module's docstring has the rule."""
    stack: list[str] = []
    for record in records:
        if record.action == "rolled_back" and record.champion in stack:
            while stack[-1] != record.champion:
                stack.pop()
        elif record.action in {"deployed", "rolled_back"} and record.champion and record.champion != (stack[-1] if stack else ""):
            stack.append(record.champion)
    return stack


def _complete(draft: Record, sequence: int, champion: str) -> Record:
    serves = (draft.champion or draft.version) if draft.action in {"deployed", "rolled_back"} else champion
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return draft.model_copy(update={"sequence": sequence, "champion": serves, "previous": champion, "time": now, "id": uuid.uuid4().hex})
