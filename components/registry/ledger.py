"""The deployment ledger: create-only records that say what served when, and why.

`deployments/NAME/000001.json` and on; the order is the sequence, never a clock. The last record's `champion` serves.

The rule of rollback is that of undo, over successful deployments only. Deploying puts a version on a stack; rolling back takes
the top off, and what is then on top serves. Held and failed records change nothing. Rolling back to a named version takes
off all that lies above it; a version that is not on the stack is put on it, like a deployment.
"""

import random
import time
import uuid
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.classifier.errors import LedgerConflict, ObjectExists, RegistryError
from components.storage import Store

Action = Literal["deployed", "held", "rolled_back", "failed"]
_ATTEMPTS = 100


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
    strategy: Literal["quality", "manual", "force", "rollback"]
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
    """Makes every record's bytes its own, so that a writer knows its own from another's."""

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

    def append(self, draft: Record, *, after: int | None = None) -> Record:
        """Add a record with the next sequence and return it.

        A step that is run again with the same `run` finds its record and adds none. `after` is the sequence that the
        caller's decision rests on: LedgerConflict is raised when another record has come since. Without it a lost race is
        tried again, and LedgerConflict is raised after many.
        """
        for attempt in range(_ATTEMPTS):
            start = time.monotonic()
            count = self._count()
            if draft.run:
                for found in map(self._record, range(count, 0, -1)):
                    if draft.repeats(found):
                        return found
            if after is not None and count != after:
                break
            record = _complete(draft, count + 1, self._record(count).champion if count else "")
            try:
                self._store.create(self._key(record.sequence), (record.model_dump_json(indent=1) + "\n").encode())
            except ObjectExists:
                # Many writers spread over as many times what one attempt takes here, so that they do not meet again and again.
                time.sleep(random.uniform(0, (time.monotonic() - start) * 2 ** min(attempt, 3)))
                continue
            self._known[record.sequence] = record
            return record
        raise LedgerConflict(f"another writer appended to {self._store.url}/{self._prefix} first; look at the history, then try again")

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

    def previous(self) -> str | None:
        """Return the version that a rollback would bring back, or None when nothing lies under the champion."""
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
