"""The queue in the store: one entry per picture and model version, however often and to whichever replica it is sent.

    reviews/NAME/pictures/ID.png                       the picture, as sent (an array as PNG)
    reviews/NAME/entries/VERSION/ID.REASON.json        what the model predicted; REASON is low_confidence, unfamiliar or audit
    reviews/NAME/labels/ID/000001.json                 what people labelled it: see labels.py

ID hashes the decoded pixels, as the model read them, not the bytes: the same picture sent as an array, as PNG, with another
compression, or grey saved as RGB is one picture, as in ingest. Every object is create-only, so that replicas need no lock. The reasons are
kept apart, because only the audit sample may be counted (accuracy.py): a picture that was uncertain first and drawn for audit
later is in both.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from components.bundle.formats import parsed
from components.classifier.decode import decode, decode_picture
from components.classifier.errors import IntegrityError, ObjectExists, StoreUnavailable, UsageError
from components.classifier.images import Pixels, encode_png
from components.review.labels import LabelRecord, LabelSummary, summarize, without_withdrawn
from components.storage import Store
from components.storage.store import write_optimistically

Reason = Literal["low_confidence", "unfamiliar", "audit"]

_SUFFIXES = {
    "PNG": "png",
    "JPEG": "jpg",
    "MPO": "jpg",
    "BMP": "bmp",
    "GIF": "gif",
    "WEBP": "webp",
    "TIFF": "tif",
    "PPM": "ppm",
    "AVIF": "avif",
    "JPEG2000": "jp2",
    "HEIF": "heic",
}
Parsed = TypeVar("Parsed", bound=BaseModel)
_READERS = 16
_MAX_RECORD_BYTES = 16 << 20  # what writes them is a server that is exposed


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class ReviewEntry:
    """One prediction that needs review, as the predictor hands it over.

    `picture`: the bytes as the client sent them, or uint8 pixels (H, W, 1 or 3). `probabilities`: by class name, all of
    them. `reason`: "audit" when the picture was drawn for the audit sample, whatever the answer; else "unfamiliar" where
    it looks like nothing that the version was trained on; else "low_confidence". `levels` are those by which the version reads
    files of 16 bits. `review_threshold` and `audit_rate` are the settings
    by which it was chosen, without which its stratum is not known.
    """

    picture: bytes | Pixels
    label: str
    confidence: float
    probabilities: dict[str, float]
    version: str
    request_id: str
    reason: Reason
    time: str = field(default_factory=_now)
    levels: int = 16
    familiarity: float | None = None
    review_threshold: float | None = None
    audit_rate: float | None = None


class Prediction(BaseModel):
    """What an entry's JSON holds: the model's answer, without the picture."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    picture: str
    """Key of the picture below the queue."""
    label: str
    confidence: float = Field(ge=0, le=1, allow_inf_nan=False)
    probabilities: dict[str, float]
    version: str
    request_id: str
    reason: Reason
    time: str
    levels: int = Field(16, ge=9, le=16)
    """Of files of 16 bits per sample the version takes 2**levels - 1 for the brightest value; not written where it is 16."""
    familiarity: float | None = None
    """0 to 1; null for a version that cannot say it."""
    review_threshold: float | None = None
    """Of the predictor at that time; null where an older release wrote the entry, as is `audit_rate`."""
    audit_rate: float | None = Field(default=None, ge=0, le=1)


@dataclass(frozen=True)
class QueuedPicture:
    """One picture and model version: the prediction, why it is queued, and the labels so far."""

    id: str
    prediction: Prediction
    reasons: frozenset[Reason]
    labels: LabelSummary

    @property
    def version(self) -> str:
        """The model version that predicted."""
        return self.prediction.version

    @property
    def file_name(self) -> str:
        """ID and suffix, such as `3f…e1.png`."""
        return PurePosixPath(self.prediction.picture).name


class ReviewQueue:
    """The review queue of one model name in a store. It reads each entry and label once, since they never change."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._root = f"reviews/{name}/"
        self._known: dict[str, BaseModel] = {}

    def put(self, entry: ReviewEntry) -> bool:
        """Queue a prediction; returns False when the same picture, version and reason is queued already.

        Safe from several threads and processes at once. Decodes the picture: not for the request path. Raises ImageError
        for bytes that are not a picture, StoreError when the store fails.
        """
        identity, data, suffix = _identify(entry.picture, entry.levels)
        key = f"{self._root}entries/{entry.version}/{identity}.{entry.reason}.json"
        if self._store.exists(key):
            return False
        picture = f"pictures/{identity}.{suffix}"
        prediction = Prediction(
            picture=picture,
            label=entry.label,
            confidence=min(float(entry.confidence), 1.0),  # float32 sums may exceed 1 in the last digit
            probabilities=entry.probabilities,
            version=entry.version,
            request_id=entry.request_id,
            reason=entry.reason,
            time=entry.time,
            levels=entry.levels,
            familiarity=entry.familiarity,
            review_threshold=entry.review_threshold,
            audit_rate=entry.audit_rate,
        )
        self._create(self._root + picture, data)  # before the entry, so that an entry always has its picture
        unsaid = {"levels"} if entry.levels == 16 else set()  # so that releases before it read the entry
        return self._create(key, prediction.model_dump_json(exclude=unsaid).encode())

    def entries(self, version: str | None = None) -> list[QueuedPicture]:
        """Return the entries, of one version or of all, least confident first.

        Raises IntegrityError for an entry that cannot be read.
        """
        prefix = f"{self._root}entries/{version}/" if version else f"{self._root}entries/"
        return self._read_entries(self._keys(prefix))

    def get(self, identity: str) -> list[QueuedPicture]:
        """Return the entries of one picture, one per version, newest version first.

        `identity` may be the beginning of an ID if only one picture matches; raises UsageError otherwise.
        """
        keys = [key for key in self._keys(f"{self._root}entries/") if PurePosixPath(key).name.startswith(identity)]
        names = sorted({PurePosixPath(key).name.partition(".")[0] for key in keys})
        if not identity or not names:
            raise UsageError(f"no picture {identity!r} in the review queue; `penstock review list` shows them")
        if len(names) > 1:
            raise UsageError(f"{identity!r} matches {len(names)} pictures ({', '.join(names[:3])}…); give more of the ID")
        return sorted(self._read_entries(keys), key=lambda entry: entry.version, reverse=True)

    def picture(self, entry: QueuedPicture) -> bytes:
        """Read an entry's picture; raises ObjectNotFound when somebody removed it."""
        return self.picture_named(entry.file_name)

    def pixels(self, entry: QueuedPicture) -> Pixels:
        """Read an entry's picture as the version read it, at its own size; raises ObjectNotFound as `picture` does."""
        return decode(self.picture(entry), levels=entry.prediction.levels)

    def picture_named(self, file_name: str) -> bytes:
        """Read a picture by its `file_name`; raises ObjectNotFound when there is none of that name."""
        return self._store.read(f"{self._root}pictures/{file_name}")

    def labels(self, identity: str) -> list[LabelRecord]:
        """Return the labels that one picture was given, oldest first; `identity` is the whole ID."""
        return [record for _, record in self._numbered_labels(identity)]

    def label(self, identity: str, label: str, reviewer: str, *, resolves: bool = False) -> bool:
        """Record one person's label for a picture (whole ID); returns False when they gave the same label before.

        Labels belong to the picture and hold for every model version. `resolves` ends a disagreement: it replaces all
        earlier labels. Labels are never overwritten: a later one by the same person counts instead. Raises UsageError without a
        reviewer, StoreUnavailable when others label the same picture all the time.
        """
        if not reviewer.strip():
            raise UsageError("a label needs the name of who gave it; use --reviewer NAME")

        def attempt() -> bool:
            given = self._numbered_labels(identity)
            summary = summarize([record for _, record in given])
            if (summary.label == label) if resolves else (summary.opinions.get(reviewer) == label):
                return False
            self._append(identity, given, LabelRecord(label=label, reviewer=reviewer, resolves=resolves, time=_now()))
            return True

        return write_optimistically(attempt, ObjectExists, _given_up(identity))

    def withdraw(self, identity: str, reviewer: str) -> str:
        """Take back the last label that a person gave a picture (whole ID), by a record of its own; returns that label.

        What counted before it counts again. Raises UsageError where this person gave none that still stands, StoreUnavailable when
        others label the same picture all the time.
        """

        def attempt() -> str:
            given = self._numbered_labels(identity)
            own = [record for record in without_withdrawn([record for _, record in given]) if record.reviewer == reviewer]
            if not own:
                raise UsageError(f"{reviewer or 'nobody'} has given picture {identity} no label; `penstock review list` shows the labels")
            self._append(identity, given, LabelRecord(label=own[-1].label, reviewer=reviewer, withdrawn=True, time=_now()))
            return own[-1].label

        return write_optimistically(attempt, ObjectExists, _given_up(identity))

    def _append(self, identity: str, given: list[tuple[int, LabelRecord]], record: LabelRecord) -> None:
        number = given[-1][0] + 1 if given else 1
        self._store.create(f"{self._root}labels/{identity}/{number:06d}.json", record.model_dump_json(by_alias=True).encode())

    def _read_entries(self, keys: list[str]) -> list[QueuedPicture]:
        summaries = self._summaries()
        merged: dict[tuple[str, str], QueuedPicture] = {}
        for _, prediction in self._read_all(Prediction, keys):
            identity = PurePosixPath(prediction.picture).stem
            known = merged.get((identity, prediction.version))
            reasons = frozenset({prediction.reason}) | (known.reasons if known else frozenset())
            labels = summaries.get(identity, summarize([]))
            merged[identity, prediction.version] = QueuedPicture(identity, prediction, reasons, labels)
        return sorted(merged.values(), key=lambda entry: (entry.prediction.confidence, entry.id, entry.version))

    def _numbered_labels(self, identity: str) -> list[tuple[int, LabelRecord]]:
        read = self._read_all(LabelRecord, self._keys(f"{self._root}labels/{identity}/"))
        return [(int(PurePosixPath(key).stem), record) for key, record in read]

    def _summaries(self) -> dict[str, LabelSummary]:
        records: dict[str, list[LabelRecord]] = {}
        for key, record in self._read_all(LabelRecord, self._keys(f"{self._root}labels/")):
            records.setdefault(key.split("/")[-2], []).append(record)
        return {identity: summarize(given) for identity, given in records.items()}

    def _keys(self, prefix: str) -> list[str]:
        return [entry.key for entry in self._store.list(prefix) if entry.key.endswith(".json")]

    def _read_all(self, kind: type[Parsed], keys: list[str]) -> list[tuple[str, Parsed]]:
        def read(key: str) -> Parsed:
            known = self._known.get(key)
            if isinstance(known, kind):
                return known
            return parsed(kind, self._store.read(key, _MAX_RECORD_BYTES), key, "remove it from the store", IntegrityError)

        with ThreadPoolExecutor(_READERS) as pool:  # on S3 each read is a round trip
            found = list(zip(keys, pool.map(read, keys), strict=True))
        self._known.update(found)
        return found

    def _create(self, key: str, data: bytes) -> bool:
        try:
            self._store.create(key, data)
        except ObjectExists:
            return False
        return True


def drawn_for_audit(pixels: Pixels, rate: float, key: bytes) -> bool:
    """Say whether a picture belongs to the audit sample of `rate` (0 to 1).

    The picture's own hash draws, not a random number: every different picture is in with probability `rate`, however
    often and to whichever replica of the same `key` it is sent, and independently of the prediction. Who does not know the key
    (16 to 64 bytes) cannot tell which pictures are drawn. `pixels` are those that the model takes. About 1 µs for a 28x28 picture,
    150 µs for 224x224x3.
    """
    if rate <= 0:
        return False
    drawn = int.from_bytes(hashlib.blake2b(pixels.tobytes(), digest_size=8, key=key).digest(), "little")
    return drawn / 2.0**64 < rate


def _identify(picture: bytes | Pixels, levels: int) -> tuple[str, bytes, str]:
    """(ID, bytes to keep, suffix) of a picture; ID is 24 hexadecimal digits of SHA-256 over shape and decoded pixels."""
    if isinstance(picture, bytes):
        decoded = decode_picture(picture, levels=levels)
        pixels, data, suffix = decoded.pixels, picture, _SUFFIXES[decoded.format]
    else:
        pixels, data, suffix = picture, encode_png(picture), "png"
    if pixels.shape[2] == 3 and (pixels == pixels[:, :, :1]).all():
        pixels = pixels[:, :, :1]
    sha = hashlib.sha256(json.dumps(pixels.shape).encode())
    sha.update(pixels.tobytes())
    return sha.hexdigest()[:24], data, suffix


def _given_up(identity: str) -> StoreUnavailable:
    return StoreUnavailable(f"others are labelling picture {identity} at the same time; try again")
