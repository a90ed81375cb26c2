"""What is counted of live requests, from the metrics that predictors really export."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from components.classifier.errors import UsageError
from components.deploy.kserve import live
from components.deploy.kserve.live import Bounds, Counts, Meter, Pairs, compare, looks_of, scrape
from components.predictor.metrics import CONFIDENCE_BUCKETS, LATENCY_BUCKETS, Metrics
from components.predictor.shadow import ShadowMetrics
from components.settings.serving import KServeSettings
from tests.storage.servers import free_port

V1, V2 = "20260101-030405-aaaaaaaaaaaa", "20260102-030405-bbbbbbbbbbbb"


class Predictor:
    """The metrics of one predictor's process, served as a pod's."""

    def __init__(self, version: str, name: str, address: str = "127.0.0.1", port: int = 0) -> None:
        self.version, self.name, self.address, self.port = version, name, address, port or free_port()
        self.registry = CollectorRegistry()
        self.metrics, self.shadow = Metrics(self.registry), ShadowMetrics(self.registry)
        self.metrics._info.labels("digits", version, "cnn").set(1)
        self.server, self.thread = start_http_server(self.port, address, self.registry)

    def answer(self, number: int, *, code: str = "200", seconds: float = 0.002, confidence: float = 0.97) -> None:
        for _ in range(number):
            self.metrics.count_request("v2", code, seconds)  # type: ignore[arg-type]
            self.metrics._confidence.labels(self.version).observe(confidence)

    def pod(self) -> dict[str, Any]:
        return {
            "metadata": {"name": self.name},
            "spec": {"containers": [{"ports": [{"containerPort": self.port}]}]},
            "status": {"podIP": self.address, "conditions": [{"type": "Ready", "status": "True"}]},
        }

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Pods:
    """The part of a cluster that is asked."""

    def __init__(self, *predictors: Predictor) -> None:
        self.predictors = list(predictors)

    def all(self, kind: str, labels: str = "") -> list[dict[str, Any]]:
        assert (kind, labels) == ("Pod", "serving.kserve.io/inferenceservice=digits")
        return [it.pod() for it in self.predictors]


@contextmanager
def running(*versions: str) -> Iterator[list[Predictor]]:
    made = [Predictor(version, f"pod-{number}") for number, version in enumerate(versions)]
    try:
        yield made
    finally:
        for it in made:
            it.stop()


def meter_of(pods: Pods) -> Meter:
    return Meter(pods, ["digits"])  # type: ignore[arg-type]


def test_only_what_happens_after_the_start_is_counted_for_each_version() -> None:
    with running(V1, V1, V2) as (one, other, challenger):
        one.answer(100, code="500")
        meter = meter_of(Pods(one, other, challenger))
        one.answer(5)
        other.answer(7, seconds=0.4)
        challenger.answer(3, code="503", confidence=0.35)
        challenger.answer(2, code="400")
        meter.read()
    counts, theirs = meter.counts(V1), meter.counts(V2)
    assert (counts.requests, counts.errors, sum(counts.seconds), sum(counts.confidence)) == (12, 0, 12, 12)
    assert (theirs.requests, theirs.errors) == (5, 3), "what clients did wrong is not the version's"
    assert [n for n in counts.seconds if n] == [5, 7]
    assert meter.counts("20260103-030405-cccccccccccc") == Counts()


def test_a_version_that_is_slower_throughout_is_found_though_nothing_of_it_lies_in_the_lowest_buckets() -> None:
    with running(V1, V2) as (champion, challenger):
        meter = meter_of(Pods(champion, challenger))
        champion.answer(30, seconds=0.0004, confidence=0.05)
        champion.answer(30, seconds=0.0015, confidence=0.55)
        challenger.answer(30, seconds=0.21, confidence=0.55)
        challenger.answer(30, seconds=0.24, confidence=0.97)
        meter.read()
        ours, theirs = meter.counts(V2), meter.counts(V1)
        assert len(ours.seconds) == len(theirs.seconds) == len(LATENCY_BUCKETS) + 1
        assert len(ours.confidence) == len(theirs.confidence) == len(CONFIDENCE_BUCKETS) + 1
        assert compare(meter, V1, V2, Bounds(50, 3), 10, lambda: None) == "100.0% of 60 answers are slow, 0.0% of the champion's 60"


def test_edges_that_only_one_release_of_the_predictor_has_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(V1) as (champion,):
        monkeypatch.setattr("components.predictor.metrics.LATENCY_BUCKETS", (0.005, 0.3, 0.4))
        challenger = Predictor(V2, "pod-9")
        try:
            meter = meter_of(Pods(champion, challenger))
            champion.answer(3)
            challenger.answer(5, seconds=0.35)
            meter.read()
        finally:
            challenger.stop()
        assert (meter.counts(V1).seconds, meter.counts(V2).seconds) == ((3, 0), (0, 5)), "up to 5 ms, and beyond"


def test_a_pod_that_starts_again_or_goes_or_comes_loses_no_request() -> None:
    with running(V1, V2) as (champion, challenger):
        pods = Pods(champion, challenger)
        meter = meter_of(pods)
        challenger.answer(50)
        meter.read()
        challenger.stop()
        meter.read()  # it does not answer
        again = Predictor(V2, challenger.name, port=challenger.port)
        try:
            pods.predictors[1] = again
            again.answer(10)
            meter.read()
            assert meter.counts(V2).requests == 60
            new = Predictor(V2, "pod-9")
            try:
                new.answer(4)
                pods.predictors = [champion, new]
                meter.read()
                assert meter.counts(V2).requests == 64
            finally:
                new.stop()
        finally:
            again.stop()


def test_a_shadow_is_counted_for_the_champion() -> None:
    with running(V1) as (champion,):
        champion.shadow.share.set(0.25)
        champion.shadow.pictures.labels(V2, "agreed").inc(1000)
        meter = meter_of(Pods(champion))
        for outcome, number in {"agreed": 90, "differed": 10, "failed": 5, "dropped": 7}.items():
            champion.shadow.pictures.labels(V2, outcome).inc(number)
        meter.read()
    assert (meter.shadow_share, meter.pairs(V1)) == (0.25, Pairs(100, 90))


def test_a_predictor_that_is_not_there_or_serves_nothing_is_not_counted() -> None:
    assert scrape(f"http://127.0.0.1:{free_port()}") is None
    with running(V1) as (predictor,):
        predictor.metrics._info.clear()
        assert scrape(f"http://127.0.0.1:{predictor.port}") is None


def still() -> None:
    """The rollout goes well."""


@pytest.mark.parametrize(("code", "problem"), [("200", ""), ("500", "25 of 25 live requests failed")])
def test_a_challenger_is_compared_until_enough_was_seen_and_undone_at_once_when_it_is_worse(
    code: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(live, "_SCRAPE_SECONDS", 60.0)
    with running(V1, V2) as (champion, challenger):
        meter = meter_of(Pods(champion, challenger))
        polls = 0

        def users() -> None:
            nonlocal polls
            polls += 1
            champion.answer(25)
            challenger.answer(25, code=code)

        found = compare(meter, V1, V2, Bounds(100, looks_of(100, 1)), 60, users)
    assert found.startswith(problem)
    assert bool(found) == bool(problem)
    assert polls == (1 if problem else 4)


def test_requests_that_do_not_come_are_a_reason_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.05)
    with running(V1, V2) as predictors:
        began = time.monotonic()
        told = compare(meter_of(Pods(*predictors)), V1, V2, Bounds(100, 3), 0.3, still)
    assert "only 0 live requests came to it and 0 to the champion in 0.3 s" in told
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"canary_requests": 100}, "canary_requests needs a canary"),
        ({"canary": True, "canary_agreement": 0.9}, "needs canary and canary_requests"),
        ({"mode": "Knative", "canary_steps": [10], "canary_requests": 10, "canary_agreement": 0.9}, "needs canary and canary_requests"),
        ({"mode": "Knative", "shadow_share": 0.5}, "shadow_share is for mode Standard"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        KServeSettings.read(values)


def test_settings_that_fit_are_taken() -> None:
    assert KServeSettings.read({"mode": "Knative", "canary_steps": [10, 50], "canary_requests": 400}).canary_requests == 400
    assert KServeSettings.read({"canary": True, "canary_requests": 400, "canary_agreement": 0.95, "shadow_share": 0.2}).shadow_share == 0.2
