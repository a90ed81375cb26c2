"""One record of the deployment ledger: its versioned schema, and how its bytes are read and written.

Each record holds the SHA-256 of the one before it as it lies in the store, and a signature where a key is configured, so that what
was replaced, removed, added by a stranger or brought from elsewhere is found. Release 0.1 wrote neither (schema 1): such records are
read, and the chain begins with the first record after them.
"""

import hashlib
import json
import uuid
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version as installed
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.classifier.errors import IntegrityError, RegistryError, validation_problems
from components.registry.signing import sign

SCHEMA_VERSION = 2
_ALWAYS = ("sequence", "action", "version", "champion", "previous", "strategy", "time", "id")
"""What the records of every release say."""

Action = Literal["deployed", "held", "awaiting", "approved", "rolled_back", "failed"]
Strategy = Literal["quality", "manual", "force", "rollback"]


class Record(BaseModel):
    """One entry of the ledger; `sequence`, `previous`, `time`, `id` and the fields below are filled in when it is appended."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    sequence: int = Field(default=0, ge=0)
    action: Action
    version: str
    """The version that the record is about."""
    champion: str = ""
    """Who serves after it; empty while nothing does. All records but deployed and rolled_back carry the champion on."""
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
    manifest_digest: str = ""
    """What an approval is about, beside the evaluation and the decision: the checksum of the version's manifest."""
    run: str = ""
    time: str = ""
    """UTC, ISO 8601; for people, the order is the sequence."""
    id: str = ""
    """Unique, so that a writer can tell its own record from another's of equal content."""
    schema_version: int = Field(default=1, ge=1)
    """1 where it does not say: release 0.1."""
    release: str = ""
    """The release of Penstock that wrote it."""
    model: str = ""
    """The model's name, so that no record is taken for another model's."""
    before: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    """SHA-256 of the record before it, as it lies in the store; empty in the first one."""
    signature: dict[str, Any] | None = None
    """A Sigstore bundle over all other fields."""

    def repeats(self, other: "Record") -> bool:
        """Say whether this is what the same step of the same run recorded before."""
        fields = ("run", "action", "version", "environment", "target", "strategy")
        return bool(self.run) and all(getattr(self, field) == getattr(other, field) for field in fields)


class StoredRecord:
    """A record as it lies in the store: `digest` is the SHA-256 of its bytes, `signed` the bytes that its signature is about."""

    def __init__(self, record: Record, data: bytes) -> None:
        self.record, self.data = record, data
        self.digest = hashlib.sha256(data).hexdigest()

    @property
    def signed(self) -> bytes:
        """The canonical bytes of all fields but the signature."""
        return _signed(json.loads(self.data))


def complete(draft: Record, model: str, last: StoredRecord | None) -> StoredRecord:
    """Fill in what a draft takes from the record before it, and sign it where a key is configured.

    Raises UsageError for a key that cannot be used.
    """
    champion = last.record.champion if last else ""
    filled = {
        "sequence": last.record.sequence + 1 if last else 1,
        "champion": (draft.champion or draft.version) if draft.action in {"deployed", "rolled_back"} else champion,
        "previous": champion,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "id": uuid.uuid4().hex,
        "schema_version": SCHEMA_VERSION,
        "release": _this_release(),
        "model": model,
        "before": last.digest if last else "",
    }
    record = draft.model_copy(update=filled)
    record = record.model_copy(update={"signature": sign(_signed(record.model_dump(mode="json")))})
    return StoredRecord(record, (record.model_dump_json(indent=1) + "\n").encode())


def read_record(data: bytes, where: str) -> StoredRecord:
    """Read the bytes of a record; `where` is its address for messages.

    Raises RegistryError for bytes that are not a whole record, or one that needs a newer release, which it names.
    """
    try:
        fields = json.loads(data)
        if not isinstance(fields, dict):
            raise _damaged(where, "not an object")
        _refuse_newer(fields, where)
        if missing := [name for name in _ALWAYS if name not in fields]:
            raise _damaged(where, f"it does not say {', '.join(missing)}, as every record must")
        record = Record.model_validate_json(data)
    except ValidationError as error:
        raise _damaged(where, validation_problems(error)[0]) from error
    except ValueError as error:
        raise _damaged(where, error) from error
    changes = record.action in {"deployed", "rolled_back"}
    if changes and not record.champion:
        raise _damaged(where, f"it is {record.action}, but names no champion")
    if not changes and record.champion != record.previous:
        raise _damaged(where, f"it is {record.action}, but changes the champion")
    return StoredRecord(record, data)


def check_link(stored: StoredRecord, last: StoredRecord | None, model: str, where: str) -> None:
    """Raise IntegrityError unless a record follows the one before it, None for the first, in the ledger of `model`."""
    record = stored.record
    if record.schema_version == 1:
        if last is not None and last.record.schema_version > 1:
            raise _broken(where, "does not hold the digest of the record before it, although that one does")
        return
    if record.model != model:
        raise _broken(where, f"is a record of model {record.model!r}")
    if record.before != (last.digest if last else "") or record.previous != (last.record.champion if last else ""):
        raise _broken(where, "does not follow the record before it: one of the two was replaced")


def _broken(where: str, what: str) -> IntegrityError:
    return IntegrityError(f"{where} {what}; find out who wrote it, and restore the ledger from a backup")


def _damaged(where: str, cause: object) -> RegistryError:
    return RegistryError(f"{where} is not a ledger record ({cause}); restore it from a backup")


def _refuse_newer(fields: dict[str, Any], where: str) -> None:
    schema, unknown = fields.get("schema_version", 1), sorted(fields.keys() - Record.model_fields.keys())
    newer = isinstance(schema, int) and schema > SCHEMA_VERSION
    if not newer and not unknown:
        return
    written = f"release {fields['release']}, which wrote it, or a newer one" if fields.get("release") else "the release that wrote it"
    fields_are = f"has fields that are not known here ({', '.join(unknown)})" if unknown else "is of a newer schema"
    raise RegistryError(
        f"{where} {fields_are}: it has schema_version {schema}, and this release ({_this_release()}) reads up to {SCHEMA_VERSION}; "
        f"use {written}"
    )


def _signed(fields: dict[str, Any]) -> bytes:
    rest = {name: value for name, value in fields.items() if name != "signature"}
    return json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@cache
def _this_release() -> str:
    return installed("penstock")
