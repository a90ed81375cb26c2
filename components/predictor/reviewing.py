"""Puts pictures that need review into the review queue, by a thread of its own and with bounded memory."""

import hashlib
import os
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass

from components.classifier.errors import PenstockError, one_line
from components.predictor.logs import log
from components.predictor.metrics import Metrics
from components.predictor.protocol.request import Predictions, PredictRequest
from components.predictor.settings import PredictorSettings
from components.review import Reason, ReviewEntry, ReviewQueue, drawn_for_audit
from components.storage import open_store

_MAX_WAITING_BYTES = 32 * 1024 * 1024
_MAX_WAITING = 1000
_MAX_RECENT = 10_000
_PAUSES = (0.5, 2.0)
"""Seconds before the second and the third try to write an entry."""
_WARN_SECONDS = 60.0
_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    key: bytes
    entry: ReviewEntry
    size: int


class HourlyLimit:
    """At most so many an hour of each kind, at once or spread: a bucket that fills steadily."""

    def __init__(self, per_hour: float) -> None:
        self._per_hour = max(1.0, per_hour)
        self._buckets: dict[tuple[str, ...], tuple[float, float]] = {}

    def take(self, *kind: str, now: float | None = None) -> bool:
        """Say whether one more of this kind fits in, and count it."""
        now = time.monotonic() if now is None else now
        left, before = self._buckets.get(kind, (self._per_hour, now))
        left = min(self._per_hour, left + (now - before) * self._per_hour / _HOUR)
        self._buckets[kind] = (left - 1 if left >= 1 else left, now)
        return left >= 1


class ReviewWriter:
    """Writes to the queue of one model from a thread of its own; pictures that do not fit in the buffer are dropped and counted.

    Which pictures are queued depends on the server's settings, not on a request's options: those less confident than
    `review_threshold`, those that look unfamiliar, and those drawn for the audit sample. A picture that was queued recently is not
    queued again.
    """

    def __init__(self, settings: PredictorSettings, metrics: Metrics) -> None:
        self._threshold, self._rate = settings.review_threshold, settings.audit_rate
        given = settings.audit_key.get_secret_value().encode()
        self._key = hashlib.blake2b(given, digest_size=32).digest() if given else os.urandom(32)
        self._hourly = HourlyLimit(settings.review_per_hour / settings.replicas)
        self._queue = ReviewQueue(open_store(settings.review_store), settings.model_name)
        self._metrics = metrics
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._recent: OrderedDict[bytes, None] = OrderedDict()
        self._change = threading.Condition()
        self._closing = False
        self._warned = float("-inf")
        self._thread = threading.Thread(target=self._write_all, name="penstock-review", daemon=True)
        self._thread.start()

    def offer(self, request: PredictRequest, predictions: Predictions, request_id: str) -> None:
        """Queue the pictures of a request that need review; returns at once."""
        strange = predictions.unfamiliar or [False] * len(predictions.confidence)
        for index, confidence in enumerate(predictions.confidence):
            if drawn_for_audit(request.images[index], self._rate, self._key):
                self._add(request, predictions, index, "audit", request_id)
            elif strange[index]:
                self._add(request, predictions, index, "unfamiliar", request_id)
            elif confidence < self._threshold:
                self._add(request, predictions, index, "low_confidence", request_id)

    def close(self, seconds: float) -> None:
        """Write what is waiting, for `seconds` at most."""
        deadline = time.monotonic() + seconds
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if left := len(self._waiting):
            self._metrics.review_dropped.labels("shutdown").inc(left)
            log().warning("pictures for review were lost at shutdown", number=left)

    def _add(self, request: PredictRequest, predictions: Predictions, index: int, reason: Reason, request_id: str) -> None:
        pixels, original, version = request.images[index], request.originals[index], predictions.model.version
        key = hashlib.blake2b(pixels.tobytes() + f"{version} {reason}".encode(), digest_size=16).digest()
        size = pixels.nbytes if original is None else len(original)
        with self._change:
            if key in self._recent:
                self._recent.move_to_end(key)
                return
            if not self._hourly.take(version, predictions.labels[index], reason):
                self._metrics.review_dropped.labels("rate").inc()
                return
            if len(self._waiting) >= _MAX_WAITING or self._bytes + size > _MAX_WAITING_BYTES:
                self._metrics.review_dropped.labels("full").inc()
                return
            self._recent[key] = None
            if len(self._recent) > _MAX_RECENT:
                self._recent.popitem(last=False)
            entry = ReviewEntry(
                picture=pixels.copy() if original is None else original,
                label=predictions.labels[index],
                confidence=predictions.confidence[index],
                probabilities=dict(zip(predictions.model.classes, predictions.probabilities[index].tolist(), strict=True)),
                version=version,
                request_id=request_id,
                reason=reason,
                levels=predictions.model.spec.levels,
                familiarity=predictions.familiarity[index] if predictions.familiarity else None,
                review_threshold=self._threshold,
                audit_rate=self._rate,
            )
            self._waiting.append(_Waiting(key, entry, size))
            self._bytes += size
            self._change.notify()

    def _write_all(self) -> None:
        while True:
            with self._change:
                while not self._waiting and not self._closing:
                    self._change.wait()
                if not self._waiting:
                    return
                waiting = self._waiting[0]
            self._write(waiting)
            with self._change:
                self._waiting.popleft()
                self._bytes -= waiting.size

    def _write(self, waiting: _Waiting) -> None:
        for pause in (*_PAUSES, None):
            try:
                if self._queue.put(waiting.entry):
                    self._metrics.review_queued.labels(waiting.entry.reason).inc()
            except PenstockError as error:
                if pause is None or self._closing:
                    self._give_up(waiting, error)
                    return
                time.sleep(pause)
            else:
                return

    def _give_up(self, waiting: _Waiting, error: PenstockError) -> None:
        self._metrics.review_dropped.labels("store").inc()
        with self._change:
            self._recent.pop(waiting.key, None)  # so that it is tried again when it is sent again
        if time.monotonic() - self._warned > _WARN_SECONDS:
            self._warned = time.monotonic()
            log().warning("cannot write to the review queue", error=one_line(error, None))
