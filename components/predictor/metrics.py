"""The predictor's Prometheus metrics; /metrics serves them beside KServe's own."""

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, get_args

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from components.classifier.images import Pixels, brightness_and_contrast
from components.predictor.loaded_model import LoadedModel
from components.predictor.protocol.request import Predictions

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 0.9999, 1)
"""As the other buckets of what a model sees and says, edges that reference.json has too."""
FAMILIARITY_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
BRIGHTNESS_BUCKETS = tuple(range(16, 257, 16))
CONTRAST_BUCKETS = tuple(range(8, 129, 8))
WATCHED = 0.125
"""Share of the requests of whose pictures looks and certainty are measured: that takes more time than all other counting."""
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

Behind = Literal["refused", "disk", "store"]
"""Why another version than the champion serves."""
LedgerState = Literal["trusted", "untrusted", "unreachable"]


class Metrics:
    """All metrics of one predictor; a request costs a few microseconds, because label combinations are looked up once and kept."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"penstock_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"penstock_{name}", text, ["version"], buckets=buckets, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"penstock_{name}", text, labels, registry=registry)

        requests = counter("requests", "Inference requests by protocol and HTTP status", "protocol", "code")
        latency = Histogram(
            "penstock_request_seconds", "Seconds from headers to answer", ["protocol"], buckets=LATENCY_BUCKETS, registry=registry
        )
        self._request = cache(requests.labels)
        self._latency = cache(latency.labels)
        self._images = counter("images", "Pictures classified")
        self._predictions = counter("predictions", "Pictures by model version and predicted class", "version", "label")
        self._confidence = histogram("confidence", "Confidence of predictions", CONFIDENCE_BUCKETS)
        self._low_confidence = counter("low_confidence", "Pictures that need review", "version")
        self._familiarity = histogram("familiarity", "How familiar pictures look", FAMILIARITY_BUCKETS)
        self._brightness = histogram("brightness", "Mean pixel of watched pictures, 0 to 255", BRIGHTNESS_BUCKETS)
        self._contrast = histogram("contrast", "Standard deviation of the pixels of watched pictures, 0 to 127.5", CONTRAST_BUCKETS)
        self._watched = counter("watched", "Pictures whose looks and certainty were measured", "version")
        self._sure = counter("sure", "Watched pictures that are as certain as those that were right at evaluation", "version")
        self._unfamiliar = counter("unfamiliar", "Pictures that look like nothing that the version was trained on", "version")
        self._by_version: dict[str, tuple[list[Counter], Histogram, Counter]] = {}
        self._strange: dict[str, tuple[Histogram, Counter]] = {}
        self.batch_pictures = Histogram(
            "penstock_batch_pictures", "Pictures per run of the model, where requests are batched", buckets=BATCH_BUCKETS, registry=registry
        )
        self._queue_depth = gauge("queue_depth", "Requests that wait for the model or run")
        self._in_flight = gauge("requests_in_flight", "Inference requests without a response yet")
        self._pending_bytes = gauge("pending_bytes", "Bytes of request bodies held in memory")
        self._info = gauge("model_info", "1 for the model version that serves", "name", "version", "architecture")
        self.swaps = counter("model_swaps", "New champions by outcome: switched or refused", "outcome")
        self.ledger = gauge("ledger", "1 for what is known of the followed ledger: trusted, untrusted or unreachable", "state")
        self.behind = gauge("behind", "1 while another version than the champion serves, by why: refused, disk or store", "why")
        self.review_queued = counter("review_queued", "Pictures put into the review queue", "reason")
        self.unread = counter("unread_metadata", "Pictures used without their orientation or profile, which cannot be read", "what")
        self.review_dropped = counter("review_dropped", "Pictures that were not put into the review queue", "why")

    def watch(self, queue_depth: Callable[[], float], in_flight: Callable[[], float], pending_bytes: Callable[[], float]) -> None:
        """Read these gauges when they are scraped, instead of keeping them up to date."""
        self._queue_depth.set_function(queue_depth)
        self._in_flight.set_function(in_flight)
        self._pending_bytes.set_function(pending_bytes)

    def tell_ledger(self, state: LedgerState) -> None:
        """Report whether the ledger that is followed can be read, and trusted."""
        for it in get_args(LedgerState):
            self.ledger.labels(it).set(it == state)

    def tell_behind(self, why: Behind | Literal[""]) -> None:
        """Report whether, and why, another version than the ledger's champion serves."""
        for it in get_args(Behind):
            self.behind.labels(it).set(it == why)

    def serving(self, loaded: LoadedModel) -> None:
        """Report which version serves from now on."""
        version = loaded.version
        predictions = [self._predictions.labels(version, label) for label in loaded.classes]
        self._by_version[version] = (predictions, self._confidence.labels(version), self._low_confidence.labels(version))
        if loaded.classifier.config.familiarity is not None:
            self._strange[version] = (self._familiarity.labels(version), self._unfamiliar.labels(version))
        self._info.clear()
        self._info.labels(loaded.name, version, loaded.classifier.config.architecture).set(1)

    def count_request(self, protocol: str, status: int, seconds: float) -> None:
        """Count an inference request that got a response."""
        self._request(protocol, str(status)).inc()
        self._latency(protocol).observe(seconds)

    def watch_pictures(self, pixels: Pixels, predictions: Predictions) -> None:
        """Measure the looks and the certainty of some requests' pictures, uint8 (n, H, W, C), for `penstock drift`."""
        loaded = predictions.model
        if loaded.sureness is None or random.random() >= WATCHED:
            return
        brightness, contrast = self._brightness.labels(loaded.version), self._contrast.labels(loaded.version)
        for light, spread in zip(*(values.tolist() for values in brightness_and_contrast(pixels)), strict=True):
            brightness.observe(light)
            contrast.observe(spread)
        self._watched.labels(loaded.version).inc(len(pixels))
        self._sure.labels(loaded.version).inc(loaded.sureness.count(predictions.probabilities))

    def count_predictions(self, predictions: Predictions) -> None:
        """Count the predictions of a request."""
        version = predictions.model.version
        by_class, confidence, low_confidence = self._by_version[version]
        self._images.inc(len(predictions.classes))
        for index, value, needs_review in zip(predictions.classes, predictions.confidence, predictions.needs_review, strict=True):
            by_class[index].inc()
            confidence.observe(value)
            if needs_review:
                low_confidence.inc()
        if predictions.unfamiliar is not None:
            familiarity, unfamiliar = self._strange[version]
            for value in predictions.familiarity:
                familiarity.observe(value)
            unfamiliar.inc(sum(predictions.unfamiliar))
