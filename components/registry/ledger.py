"""The deployment ledger: create-only records that say what served when, and why.

`deployments/NAME/000001.json` and on; the order is the sequence, never a clock. The last record's `champion` serves.

Rolling back is undo, over successful deployments only. Deploying puts a version on a stack; rolling back takes the top off,
and what is then on top serves. Held and failed records change nothing. Rolling back to a named version takes off everything
above it; a version that is not on the stack is put on it, like a deployment.

Records are chained and, where a key is configured, signed (record.py). Whoever keeps a `Ledger` open, or the `head` of one, also
notices that the newest records were taken away.
"""

import hashlib
import re
from collections.abc import Callable
from typing import cast

from components.bundle.decision import Decision
from components.classifier.errors import (
    IntegrityError,
    LedgerConflict,
    ObjectExists,
    ObjectNotFound,
    RegistryError,
    StoreUnavailable,
    UsageError,
)
from components.registry.manifest import MAX_BYTES
from components.registry.record import Action, Record, StoredRecord, Strategy, check_link, complete, read_record
from components.registry.signing import require_signature, signs, verifies
from components.storage import Store
from components.storage.store import write_optimistically

_TIME = len("YYYYMMDD-HHMMSS")


class Ledger:
    """The records of one model name in a store.

    `head` is the newest record that was seen, as its number and the SHA-256 of its bytes. Every method that reads raises
    IntegrityError when it was replaced or is gone, when a record does not follow the one before it, or when PENSTOCK_VERIFY_KEY is
    set and the last record, or one after a signed one, is not signed with its key; RegistryError when one is missing, cannot be
    read, or needs a newer release; StoreUnavailable when all is gone, as when a disk is not mounted.
    """

    def __init__(self, store: Store, name: str, head: tuple[int, str] | None = None) -> None:
        self._store, self._name, self.head = store, name, head
        self._prefix = f"deployments/{name}/"
        self._known: dict[int, StoredRecord] = {}  # records never change, so each is read once
        self._checked: set[int] = set()

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
        """Record that the gate held a version, or let it through and an approval is awaited; the champion goes on serving.

        Returns the record that the same run, or the same judgement, left before.
        """
        draft = draft_record(
            "awaiting" if decision.deploy else "held",
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

    def require_key(self) -> None:
        """Raise UsageError where a record that is written now would have to be signed and there is no private key."""
        self._require_key(self.last())

    def _require_key(self, last: Record | None) -> None:
        if signs() or not (verifies() or (last and last.signature)):
            return
        why = "PENSTOCK_VERIFY_KEY is set" if verifies() else "its records are signed"
        raise UsageError(
            f"nothing can be recorded in {self._store.url}/{self._prefix}: {why}, and all who verify would refuse an unsigned record; "
            "set PENSTOCK_SIGNING_KEY"
        )

    def _append(self, decide: Callable[[int], Record | None]) -> Record | None:
        def attempt() -> Record | None:
            count = self._count()
            draft = decide(count)
            if draft is None:
                return None
            repeated = (record for record in map(self._record, range(count, 0, -1)) if draft.repeats(record)) if draft.run else ()
            if found := next(iter(repeated), None):
                return found
            last = self._last(count)
            self._require_key(last)
            stored = complete(draft, self._name, self.stored(count))
            self._store.create(self._key(count + 1), stored.data)
            self._known[count + 1] = stored
            self.head = (count + 1, stored.digest)
            return stored.record

        return write_optimistically(
            attempt, ObjectExists, LedgerConflict(f"others append to {self._store.url}/{self._prefix} all the time; try again later")
        )

    def records(self) -> list[Record]:
        """Return all records, oldest first; a ledger with a gap is an error, because it proves nothing."""
        count = self._count()
        records = [self._record(sequence) for sequence in range(1, count + 1)]
        self._last(count, signed=True)
        return records

    def last(self) -> Record | None:
        """Return the newest record, or None in an empty ledger; reads only it and the one before it."""
        return self._last(self._count(), signed=True)

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
        found = [name for name in self._store.names(self._prefix) if re.fullmatch(r"[0-9]{6,}\.json", name)]
        sequences = sorted(int(name[:-5]) for name in found)
        if sequences != list(range(1, len(sequences) + 1)):
            missing = ", ".join(f"{m:06d}" for m in sorted(set(range(1, sequences[-1])) - set(sequences)))
            raise RegistryError(f"the ledger {self._store.url}/{self._prefix} lacks record {missing}; restore it from a backup")
        if self.head is None:
            return len(sequences)
        sequence, digest = self.head
        try:
            found_digest = hashlib.sha256(self._store.read(self._key(sequence), MAX_BYTES)).hexdigest()
        except ObjectNotFound as error:
            if all(next(iter(self._store.names(folder)), None) is None for folder in ("models/", "deployments/")):
                raise StoreUnavailable(f"{self._store.url} is empty, where {self._key(sequence)} was before; mount it again") from error
            raise IntegrityError(f"{self._where(sequence)} was the last record and is gone; restore it from a backup") from error
        if found_digest != digest:
            raise IntegrityError(f"{self._where(sequence)} was replaced by another record; find out by whom, and restore it from a backup")
        return max(len(sequences), sequence)  # a list may come late

    def _last(self, count: int, *, signed: bool = False) -> Record | None:
        """Return the last of `count` records, and keep it as the head; `signed`: an unsigned one is refused where a key is set."""
        if not count:
            return None
        record, stored = self._record(count), self._known[count]
        if signed:
            require_signature(stored.signed, record.signature, self._where(count))
        self.head = (count, stored.digest)
        return record

    def _record(self, sequence: int) -> Record:
        """Return a record that follows the one before it, and is signed when that one is and a key is configured."""
        stored, before = self.stored(sequence), self.stored(sequence - 1)
        assert stored is not None
        if sequence not in self._checked:
            where, record = self._where(sequence), stored.record
            check_link(stored, before, self._name, where)
            if verifies() and (record.signature is not None or (before is not None and before.record.signature is not None)):
                require_signature(stored.signed, record.signature, where)
            self._checked.add(sequence)
        return stored.record

    def stored(self, sequence: int) -> StoredRecord | None:
        """Return a record with its bytes, as it was read first; None for number 0."""
        if sequence and sequence not in self._known:
            where = self._where(sequence)
            stored = read_record(self._store.read(self._key(sequence), MAX_BYTES), where)
            if stored.record.sequence != sequence:
                raise RegistryError(f"{where} says it is record {stored.record.sequence}; restore it from a backup")
            self._known[sequence] = stored
        return self._known.get(sequence)

    def _where(self, sequence: int) -> str:
        return f"{self._store.url}/{self._key(sequence)}"

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
    manifest_digest: str = "",
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
        manifest_digest=manifest_digest,
        run=run,
    )


def refuse_downgrade(serving: str, champion: str, record: Record | None) -> None:
    """Raise IntegrityError where keys are configured and a champion was trained before what serves, unless that was meant.

    `record`: the one that made it the champion. It must be a rollback, or name a version by force or by a person; what the gate let
    through is newer than what it compared with, except after another run was faster, which is not a reason to go back.
    """
    if not verifies() or not serving or champion[:_TIME] >= serving[:_TIME]:
        return
    if record is not None and (record.action == "rolled_back" or record.strategy in {"manual", "force", "rollback"}):
        return
    raise IntegrityError(
        f"{champion} was trained before {serving}, which serves, and no signed record says that somebody went back to it; "
        "roll back, or deploy it by name"
    )


def champion_of(records: list[Record]) -> str:
    """Return the version that serves after these records; empty when nothing does."""
    return records[-1].champion if records else ""


def served(records: list[Record], environment: str) -> set[str]:
    """Return the versions that have served in an environment."""
    return {record.champion for record in records if record.action in {"deployed", "rolled_back"} and record.environment == environment}


def judgement(records: list[Record], version: str) -> Record | None:
    """Return the newest record in which the gate judged a version, or None: held, awaiting approval, or deployed by quality."""
    judged = (record for record in reversed(records) if record.version == version and record.decision)
    return next((record for record in judged if record.action in {"held", "awaiting", "deployed"}), None)


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
