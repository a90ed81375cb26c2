"""What the predictor counts, in Prometheus' terms; served on /metrics beside KServe's own."""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from components.predictor.question import Answer

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """All counters of one predictor; updating them for a request takes some microseconds."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._requests = Counter(
            "penstock_requests", "Inference requests by protocol and HTTP status", ["protocol", "code"], registry=registry
        )
        self._latency = Histogram(
            "penstock_request_seconds",
            "Seconds from a request's headers to its answer",
            ["protocol"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._images = Counter("penstock_images", "Pictures classified", registry=registry)
        self._predictions = Counter(
            "penstock_predictions", "Pictures by model version and predicted class", ["version", "label"], registry=registry
        )
        self._confidence = Histogram(
            "penstock_confidence", "Confidence of predictions", ["version"], buckets=tuple(x / 10 for x in range(1, 11)), registry=registry
        )
        self._doubts = Counter("penstock_low_confidence", "Pictures that need a person's look", ["version"], registry=registry)
        self.queue_depth = Gauge("penstock_queue_depth", "Requests waiting for the model or being worked on", registry=registry)
        self.in_flight = Gauge("penstock_requests_in_flight", "Inference requests that came and have no answer yet", registry=registry)
        self.pending_bytes = Gauge("penstock_pending_bytes", "Bytes of request bodies held", registry=registry)
        self.review_dropped = Counter(
            "penstock_review_dropped", "Pictures that could not be queued for review", ["reason"], registry=registry
        )
        self.review_queued = Counter("penstock_review_queued", "Pictures put into the review queue", registry=registry)
        self.swaps = Counter("penstock_model_swaps", "Changes of the served model version, by outcome", ["outcome"], registry=registry)
        self._info = Gauge(
            "penstock_model_info", "1 for the model version that serves", ["name", "version", "architecture"], registry=registry
        )

    def request(self, protocol: str, status: int, seconds: float) -> None:
        """Count an inference request that was answered."""
        self._requests.labels(protocol, status).inc()
        self._latency.labels(protocol).observe(seconds)

    def answered(self, answer: Answer) -> None:
        """Count the predictions of an answer."""
        version = answer.model.version
        self._images.inc(len(answer.classes))
        confidence = self._confidence.labels(version)
        for label, value in zip(answer.labels, answer.confidence.tolist(), strict=True):
            self._predictions.labels(version, label).inc()
            confidence.observe(value)
        doubts = int(answer.needs_review.sum())
        if doubts:
            self._doubts.labels(version).inc(doubts)

    def serving(self, name: str, version: str, architecture: str) -> None:
        """Say which version serves from now on."""
        self._info.clear()
        self._info.labels(name, version, architecture).set(1)
