"""Reads what predictors count of live requests, and compares challenger and champion until enough was seen.

A rollout looks at its data at most `looks` times, decided beforehand, and asks at most four questions at each. Every question is a
one-sided exact test at alpha / (looks * questions), so the probability that a challenger which equals the champion is undone is at
most alpha over the whole rollout (Bonferroni), whatever depends on what. Exact are Fisher's test of two shares, conditional on what
both have together, and the binomial test. Requests are taken as independent.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import urllib3
from prometheus_client.parser import text_string_to_metric_families

from components.deploy.kserve.cluster import Cluster
from components.deploy.kserve.state import SERVICE_LABEL, is_ready, pod_address
from components.deploy.kserve.watch import NotServed, Say
from components.settings.serving import KServeSettings

FIRST_LOOK = 25
"""Requests of the challenger at the first look at the earliest."""
MARGIN = 0.05
"""A slower or less confident tail must be larger by this share of the requests, else it is not worth undoing a rollout."""
TAIL = 0.1
"""The least share of all requests that is called slow, or unsure: beyond the histogram's outermost edge that leaves it."""
_QUESTIONS = 4

Outcome = Literal["waiting", "passed", "worse"]


@dataclass(frozen=True)
class Counts:
    """What one version did: requests, those answered with 5xx, and histograms of seconds and confidence with edges that both share.

    A histogram is empty where nothing was counted.
    """

    requests: int = 0
    errors: int = 0
    seconds: tuple[int, ...] = ()
    confidence: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pairs:
    """Pictures that both versions were shown, and those to which they gave the same class."""

    pictures: int = 0
    agreed: int = 0


@dataclass(frozen=True)
class Bounds:
    """What a comparison must reach: the least requests of each version at a step, the number of looks in the rollout, and the stated error.

    `agreement`: the share of pictures to which both must give the same class, of as many pictures; 0 asks nothing.
    """

    least: int
    looks: int
    alpha: float = 0.05
    agreement: float = 0.0


def sizes_of_looks(least: int) -> list[int]:
    """Return at how many requests of the challenger a step is looked at: the least number, its half, its quarter and so on."""
    sizes = [least]
    while sizes[0] >= 2 * FIRST_LOOK:
        sizes.insert(0, sizes[0] // 2)
    return sizes


def compare_counts(champion: Counts, challenger: Counts, pairs: Pairs, bounds: Bounds) -> tuple[Outcome, str]:
    """Compare what both did in one step; returns the outcome and the reason in words.

    "worse" as soon as one question says so, "passed" when both have answered the least number of requests, else "waiting".
    """
    alpha = bounds.alpha / (bounds.looks * _QUESTIONS)
    reasons = [
        _more_errors(champion, challenger, alpha),
        _tail("slow", champion.seconds, challenger.seconds, alpha),
        _tail("unsure", champion.confidence[::-1], challenger.confidence[::-1], alpha),
        _disagreement(pairs, bounds.agreement, alpha),
    ]
    if found := [reason for reason in reasons if reason]:
        return "worse", "; ".join(found)
    seen = min(champion.requests, challenger.requests, *([pairs.pictures] if bounds.agreement else []))
    share = f", {pairs.agreed / pairs.pictures:.1%} of {pairs.pictures} pictures alike" if pairs.pictures else ""
    told = f"{challenger.requests} live requests, {challenger.errors} failed (champion: {champion.requests}, {champion.errors}){share}"
    return ("passed" if seen >= bounds.least else "waiting"), told


def _more_errors(champion: Counts, challenger: Counts, alpha: float) -> str:
    bad, n, others, m = challenger.errors, challenger.requests, champion.errors, champion.requests
    if not _larger(bad, n, others, m, alpha, 0.0):
        return ""
    return f"{bad} of {n} live requests failed, {others} of {m} of the champion's"


def _tail(what: str, champion: Sequence[int], challenger: Sequence[int], alpha: float) -> str:
    """Compare the ends of two histograms, beyond the outermost edge that cuts off at least TAIL of both together.

    An edge further out would miss a version that is slow as a whole, but not that slow. The edge depends only on what both have together,
    on which the test is conditional, so choosing it costs nothing.
    """
    if not champion or not challenger:
        return ""
    together = [a + b for a, b in zip(champion, challenger, strict=True)]
    total = sum(together)
    ends = [sum(together[cut:]) for cut in range(1, len(together))]
    cuts = [cut for cut, end in enumerate(ends, 1) if TAIL * total <= end < total]
    if not cuts:
        return ""
    cut = max(cuts)
    bad, n, others, m = sum(challenger[cut:]), sum(challenger), sum(champion[cut:]), sum(champion)
    if not _larger(bad, n, others, m, alpha, MARGIN):
        return ""
    return f"{bad / n:.1%} of {n} answers are {what}, {others / m:.1%} of the champion's {m}"


def _larger(bad: int, n: int, others: int, m: int, alpha: float, margin: float) -> bool:
    """Say whether bad / n is larger than others / m by more than the margin, and by Fisher's exact test at `alpha`."""
    if not n or not m or bad / n - others / m <= margin:
        return False
    from scipy.stats import hypergeom

    return float(hypergeom.sf(bad - 1, n + m, bad + others, n)) <= alpha


def _disagreement(pairs: Pairs, agreement: float, alpha: float) -> str:
    if not pairs.pictures or pairs.agreed / pairs.pictures >= agreement:
        return ""
    from scipy.stats import binom

    if float(binom.cdf(pairs.agreed, pairs.pictures, agreement)) > alpha:
        return ""
    return (
        f"champion and challenger agree on {pairs.agreed / pairs.pictures:.1%} of {pairs.pictures} pictures, {agreement:.1%} are asked for"
    )


POLL_SECONDS = 2.0
_SCRAPE_SECONDS = 5.0
_WANTED = {
    "penstock_requests_total": "code",
    "penstock_request_seconds_bucket": "le",
    "penstock_confidence_bucket": "le",
    "penstock_shadow_pictures_total": "outcome",
}
"""The samples that are counted, and the label that each is told apart by."""
Samples = Counter[tuple[str, str]]


@dataclass(frozen=True)
class Scraped:
    """What one predictor has counted since its start, the version that it serves, and the share of requests that it copies."""

    version: str
    samples: Samples
    shadow_share: float = 0.0


@dataclass
class _Pod:
    version: str
    base: Samples
    last: Samples
    earlier: Samples = field(default_factory=Counter)
    """Counted by processes of this pod that ended since."""


class Meter:
    """What the versions behind some InferenceServices did since this was made, by the predictors' own counts."""

    def __init__(self, cluster: Cluster, services: Sequence[str]) -> None:
        self._cluster, self._services = cluster, services
        self._pods: dict[str, _Pod] = {}
        self.shadow_share = 0.0
        """The largest share of requests that one of the pods copies to a challenger."""
        for name, scraped in self._scrape():
            self._pods[name] = _Pod(scraped.version, scraped.samples, scraped.samples)

    def read(self) -> None:
        """Ask all pods again; one that does not answer keeps what it said before."""
        for name, scraped in self._scrape():
            pod = self._pods.setdefault(name, _Pod(scraped.version, Counter(), Counter()))
            if scraped.samples.total() < pod.last.total():  # it was started again
                pod.earlier += pod.last - pod.base
                pod.base = Counter()
            pod.last = scraped.samples

    def counts(self, version: str) -> Counts:
        """Return what a version did."""
        samples = self._samples(version)
        codes = {code: n for (name, code), n in samples.items() if name == "penstock_requests_total"}
        return Counts(
            requests=sum(codes.values()),
            errors=sum(n for code, n in codes.items() if code.startswith("5")),
            seconds=self._histogram(samples, "penstock_request_seconds_bucket"),
            confidence=self._histogram(samples, "penstock_confidence_bucket"),
        )

    def pairs(self, champion: str) -> Pairs:
        """Return what the champion's shadow compared."""
        samples = self._samples(champion)
        agreed, differed = (samples["penstock_shadow_pictures_total", it] for it in ("agreed", "differed"))
        return Pairs(agreed + differed, agreed)

    def _samples(self, version: str) -> Samples:
        total: Samples = Counter()
        for pod in self._pods.values():
            if pod.version == version:
                total += pod.earlier + (pod.last - pod.base)
        return total

    def _histogram(self, samples: Samples, name: str) -> tuple[int, ...]:
        """Return how many lie between each two edges that all pods share, from the counts up to each edge; empty where nothing was counted.

        The edges are the pods', not the samples': an edge that nothing lies below must not be left out, else two versions' buckets
        no longer stand beside each other.
        """
        edges = [found for pod in self._pods.values() if (found := {le for which, le in pod.last if which == name})]
        shared = sorted(set.intersection(*edges), key=float) if edges else []
        upto = [samples[name, le] for le in shared]
        return tuple(b - a for a, b in zip([0, *upto], upto, strict=False)) if any(upto) else ()

    def _scrape(self) -> list[tuple[str, Scraped]]:
        found = []
        for service in self._services:
            for pod in self._cluster.all("Pod", f"{SERVICE_LABEL}={service}"):
                address = pod_address(pod) if is_ready(pod) else ""
                if address and (scraped := scrape(address)) is not None:
                    self.shadow_share = max(self.shadow_share, scraped.shadow_share)
                    found.append((str(pod["metadata"]["name"]), scraped))
        return found


def scrape(address: str) -> Scraped | None:
    """Read a predictor's metrics; None where it does not answer, or serves no version."""
    try:
        timeout = urllib3.Timeout(_SCRAPE_SECONDS)
        answer = urllib3.request("GET", f"{address}/metrics", retries=False, redirect=False, timeout=timeout)
    except urllib3.exceptions.HTTPError:
        return None
    if answer.status != 200:
        return None
    samples: Samples = Counter()
    version, share = "", 0.0
    for family in text_string_to_metric_families(answer.data.decode("utf-8", "replace")):
        for sample in family.samples:
            if label := _WANTED.get(sample.name):
                samples[sample.name, sample.labels.get(label, "")] += int(sample.value)
            elif sample.name == "penstock_model_info":
                version = sample.labels.get("version", "")
            elif sample.name == "penstock_shadow_share":
                share = sample.value
    return Scraped(version, samples, share) if version else None


def compare_live(
    cluster: Cluster,
    services: Sequence[str],
    champion: str,
    challenger: str,
    settings: KServeSettings,
    steps: int,
    still: Callable[[], None],
    tell: Say,
    *,
    shadow: bool,
) -> None:
    """Judge a challenger on live requests beside the champion, where the settings ask for that; raises NotServed when it is worse.

    `services`: where both serve, the champion's first. `steps`: how many comparisons of this rollout share the chance of an error.
    `still` is called at each poll and raises where the rollout itself has failed. `shadow`: the challenger gets copies of requests.
    """
    least = settings.canary_requests
    if not least:
        return
    meter = Meter(cluster, services)
    if shadow and not meter.shadow_share:
        tell(
            f"{services[0]}: {champion} copies no requests, since it was deployed without serving.shadow_share; "
            f"golden requests alone have judged {challenger}"
        )
        return
    bounds = Bounds(least, looks_of(least, steps), settings.canary_error, settings.canary_agreement if shadow else 0.0)
    tell(f"{services[0]}: waits for {least} live requests to {challenger} beside {champion}")
    if problem := compare(meter, champion, challenger, bounds, settings.canary_seconds, still):
        raise NotServed(f"on live requests: {problem}")
    _, told = compare_counts(meter.counts(champion), meter.counts(challenger), meter.pairs(champion), bounds)
    tell(f"{services[0]}: {told}; it is not worse")


def compare(meter: Meter, champion: str, challenger: str, bounds: Bounds, seconds: float, still: Callable[[], None]) -> str:
    """Compare until both versions have answered enough; returns what is wrong with the challenger, or nothing.

    `still` is called at each poll and raises where the rollout itself has failed. Looks are made at sizes that were fixed beforehand.
    """
    sizes, end, told = sizes_of_looks(bounds.least), time.monotonic() + seconds, ""
    while True:
        still()
        meter.read()
        ours, theirs, pairs = meter.counts(challenger), meter.counts(champion), meter.pairs(champion)
        enough = min(ours.requests, theirs.requests, *([pairs.pictures] if bounds.agreement else [])) >= bounds.least
        if enough or (sizes and ours.requests >= sizes[0]):
            sizes = [size for size in sizes if size > ours.requests]
            verdict, told = compare_counts(theirs, ours, pairs, bounds)
            if verdict == "worse":
                return told
            if verdict == "passed":
                return ""
        if time.monotonic() > end:
            return (
                f"only {ours.requests} live requests came to it and {theirs.requests} to the champion in {seconds:g} s, and "
                f"{bounds.least} of each were to be seen; lower serving.canary_requests, or raise serving.canary_seconds or the share"
            )
        time.sleep(POLL_SECONDS)


def looks_of(least: int, steps: int) -> int:
    """Return how often a rollout of some steps looks at its data at most: `compare` makes one look more where the champion is late."""
    return steps * (len(sizes_of_looks(least)) + 1)
