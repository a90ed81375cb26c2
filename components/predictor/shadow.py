"""Copies a share of the requests to a challenger's service and compares the answers, by a thread of its own and with bounded memory.

Users never wait for it or see it: a request is offered after it was answered by the champion's model, and what does not fit is dropped.
Where there is no challenger, which is most of the time, its address is tried again every few seconds.
"""

import random
import threading
import time
from collections import deque
from dataclasses import dataclass

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from components.classifier.errors import InferenceError, one_line
from components.classifier.images import Pixels
from components.inference_client import InferenceClient
from components.predictor.logs import log
from components.predictor.metrics import LATENCY_BUCKETS
from components.predictor.protocol.request import Predictions, PredictRequest
from components.predictor.settings import PredictorSettings

_MAX_WAITING = 200
_MAX_WAITING_BYTES = 32 * 1024 * 1024
_ABSENT_SECONDS = 5.0
"""After which the address is tried again."""
_ANSWER_SECONDS = 10.0


class ShadowMetrics:
    """What the shadow counts, by the challenger's version."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.share = Gauge("penstock_shadow_share", "Share of the requests that is copied to a challenger", registry=registry)
        self.pictures = Counter(
            "penstock_shadow_pictures",
            "Copied pictures by outcome: agreed, differed, failed or dropped",
            ["challenger", "outcome"],
            registry=registry,
        )
        self.seconds = Histogram(
            "penstock_shadow_seconds",
            "Seconds from a copy to the challenger's answer",
            ["challenger"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )


@dataclass(frozen=True, slots=True)
class _Copy:
    images: Pixels
    classes: list[str]
    """What the champion said."""


class Shadow:
    """Asks the challenger's service about a sample of the requests; `<model>-canary` of the same namespace unless settings name another."""

    def __init__(self, settings: PredictorSettings, metrics: ShadowMetrics) -> None:
        name = f"{settings.model_name}-canary"
        self._share, self._metrics = settings.shadow_share, metrics
        self._client = InferenceClient(settings.shadow_url or f"http://{name}-predictor", name, seconds=_ANSWER_SECONDS)
        self._challenger = ""
        self._absent_until = 0.0
        self._waiting: deque[_Copy] = deque()
        self._bytes = 0
        self._change = threading.Condition()
        self._closing = False
        metrics.share.set(self._share)
        self._thread = threading.Thread(target=self._send_all, name="penstock-shadow", daemon=True)
        self._thread.start()

    def offer(self, request: PredictRequest, predictions: Predictions) -> None:
        """Copy the request if it is drawn; returns at once."""
        if random.random() >= self._share or time.monotonic() < self._absent_until:
            return
        images = request.images
        with self._change:
            if len(self._waiting) >= _MAX_WAITING or self._bytes + images.nbytes > _MAX_WAITING_BYTES:
                self._count("dropped", len(images))
                return
            self._waiting.append(_Copy(images.copy(), predictions.labels))  # a view would keep the whole body
            self._bytes += images.nbytes
            self._change.notify()

    def close(self) -> None:
        """Stop; copies that wait are forgotten."""
        with self._change:
            self._closing = True
            self._waiting.clear()
            self._change.notify()
        self._thread.join(1.0)

    def _send_all(self) -> None:
        while True:
            with self._change:
                while not self._waiting and not self._closing:
                    self._change.wait()
                if self._closing:
                    return
                copy = self._waiting.popleft()
                self._bytes -= copy.images.nbytes
            self._send(copy)

    def _send(self, copy: _Copy) -> None:
        began = time.perf_counter()
        try:
            found = self._client.infer(copy.images, labels=True)
        except InferenceError as error:
            if error.status:
                self._count("failed", len(copy.images))
            else:
                self._rest(error, len(copy.images))
            return
        if found.version != self._challenger:
            log().info("shadow", challenger=found.version, share=self._share)
            self._challenger = found.version
        self._metrics.seconds.labels(found.version).observe(time.perf_counter() - began)
        agreed = sum(a == b for a, b in zip(copy.classes, found.labels, strict=False))
        self._count("agreed", agreed)
        self._count("differed", len(copy.images) - agreed)

    def _rest(self, error: InferenceError, pictures: int) -> None:
        """Forget what waits, and let the address be for a while: there is no challenger, or it went away."""
        if self._challenger:
            self._count("failed", pictures)
            log().info("shadow ended", challenger=self._challenger, error=one_line(error, None))
        self._challenger = ""
        self._absent_until = time.monotonic() + _ABSENT_SECONDS
        with self._change:
            self._waiting.clear()
            self._bytes = 0

    def _count(self, outcome: str, pictures: int) -> None:
        if pictures:
            self._metrics.pictures.labels(self._challenger, outcome).inc(pictures)
