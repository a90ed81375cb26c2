"""Creating an object on S3 without ever overwriting one, on servers whose answers differ by vendor and age.

A server may answer a lost race by 412, 304 or 409, may be in doubt (409: try again), may not know the condition (501), or may ignore
it and overwrite. The last two are found by a probe before the first object is created. A write carries its writer's own mark, so
that a success whose answer was lost is told from another writer's.
"""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from components.classifier.errors import AccessDenied, ObjectExists, ObjectNotFound, StoreError, StoreUnavailable, StoreUnsuitable
from components.storage.store import write_optimistically

OURS = ".penstock/"
"""Below it lie the probe's objects, which are nobody else's business."""
WRITER = "penstock-writer"
"""The metadata field that holds a writer's mark."""

_PROBE = f"{OURS}create-only"
_PROBE_TEXT = b"Penstock tests with this object whether the server refuses to overwrite (If-None-Match: *). Leave it here.\n"
_LOST = {304, 412}


@dataclass(frozen=True)
class Refusal:
    """What came in place of success: the HTTP status, None without any answer, and the error that tells it."""

    status: int | None
    error: StoreError


class _Undecided(Exception):
    """The server refused, but no other writer's object is there."""


class CreateOnly:
    """Creates objects by conditional writes, after a probe of the server.

    `put(key, data, mark)` sends one; `writer(key)` returns the mark of an object, empty when it has none, and raises
    ObjectNotFound.
    """

    def __init__(
        self,
        put: Callable[[str, bytes, str], Refusal | None],
        writer: Callable[[str], str],
        delete: Callable[[str], None],
        server: str,
        url: str,
    ) -> None:
        self._put, self._writer, self._delete = put, writer, delete
        self._server, self._url = server, url
        self._lock = threading.Lock()
        self._probed = False

    def create(self, key: str, data: bytes) -> None:
        """Create an object; raises ObjectExists, StoreUnsuitable when the server cannot be trusted with it, or what went wrong."""
        self.require()
        self._create(key, data)

    def require(self) -> None:
        """Raise StoreUnsuitable unless the server refuses to overwrite; it is asked once in a process."""
        with self._lock:
            if not self._probed:
                self._probe()
                self._probed = True

    def _create(self, key: str, data: bytes) -> None:
        mark = uuid.uuid4().hex

        def attempt() -> None:
            refusal = self._put(key, data, mark)
            if refusal is None:
                return
            if refusal.status == 501:
                raise self._unsuitable("does not have the condition If-None-Match") from refusal.error
            refused = refusal.status in {*_LOST, 409}
            if not refused and not isinstance(refusal.error, StoreUnavailable):
                raise refusal.error
            holder = self._holder(key)
            if holder == mark:  # our own success: its answer was lost, and its repetition refused
                return
            if holder is not None:
                raise ObjectExists(f"object {key!r} is in {self._url} already") from refusal.error
            raise _Undecided if refused else refusal.error

        given_up = StoreUnavailable(f"{self._server} goes on refusing to create {key!r} although it is not there; try again later")
        write_optimistically(attempt, _Undecided, given_up)

    def _holder(self, key: str) -> str | None:
        """Return the mark of an object, None when there is none or nobody can tell."""
        try:
            return self._writer(key)
        except (ObjectNotFound, StoreUnavailable):
            return None

    def _probe(self) -> None:
        """Find out whether the server refuses to overwrite: by one request on a store that has been tried before."""
        if not self._creates(_PROBE):
            return
        if self._creates(_PROBE):
            raise self._unsuitable("ignores the condition If-None-Match and overwrites what is there")
        race = f"{OURS}race-{uuid.uuid4().hex}"
        with ThreadPoolExecutor(4) as pool:
            winners = sum(pool.map(lambda _: self._creates(race), range(4)))
        with suppress(AccessDenied):  # who may create need not be allowed to delete
            self._delete(race)
        if winners > 1:
            raise self._unsuitable(f"let {winners} of 4 writers create the same object at once")

    def _creates(self, key: str) -> bool:
        try:
            self._create(key, _PROBE_TEXT)
        except ObjectExists:
            return False
        return True

    def _unsuitable(self, what: str) -> StoreUnsuitable:
        return StoreUnsuitable(
            f"{self._server} {what}, so the registry in {self._url} would not be safe from writers that race; "
            "use a server that honours conditional writes (AWS S3, Ceph RGW, MinIO and others in recent releases; "
            "some only in buckets without versioning and Object Lock), or a directory"
        )
