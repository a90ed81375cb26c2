"""Waits until a version is really served and answers as evaluated, and tells each change of state as it happens."""

import time
from collections.abc import Callable

from components.classifier.errors import RolloutConflict, RolloutError
from components.deploy.kserve.cluster import Cluster, Unreachable
from components.deploy.kserve.golden import Caller, Golden, fault
from components.deploy.kserve.state import Observation, observe
from components.deploy.kserve.verdict import Verdict, judge, last_words
from components.settings.serving import KServeSettings

Say = Callable[[str], None]

POLL_SECONDS = 1.0
ANSWER_SECONDS = 20.0
"""How long a version that is up may still not answer, or another answer for it: routes take a moment to move."""


class NotServed(RolloutError):
    """The version does not serve; the message is the reason in one line."""


class Watcher:
    """Watches one InferenceService."""

    def __init__(self, cluster: Cluster, service: str, settings: KServeSettings, say: Say) -> None:
        self._cluster, self._service, self._settings, self._say = cluster, service, settings, say
        self._caller = Caller(service, settings)
        self._told = ""

    def wait(self, uri: str, golden: Golden | None, deadline: float, *, percent: int = 100) -> None:
        """Return once `uri` is served, alone, and every golden request is answered by its version.

        `deadline` on time.monotonic's clock. Raises NotServed with the pod's reason as soon as it shows, or the state at the
        deadline; RolloutConflict when another deployer changes what is served.
        """
        began, unanswered = time.monotonic(), 0.0
        while True:
            verdict, seen = self._look(uri, time.monotonic() - began, percent)
            if verdict.state == "served":
                problem = self._ask(seen, golden)
                if not problem:
                    self._tell(f"{verdict.line}; golden requests agree" if golden else verdict.line)
                    return
                unanswered = unanswered or time.monotonic()
                verdict = Verdict("waiting", f"it is up, but {problem}")
                if time.monotonic() - unanswered > ANSWER_SECONDS:
                    raise NotServed(verdict.line)
            else:
                unanswered = 0.0
            self._tell(verdict.line)
            if time.monotonic() > deadline:
                raise NotServed(f"not served after {time.monotonic() - began:.0f} s: {verdict.line}{self._words(verdict)}")
            time.sleep(POLL_SECONDS)

    def settle(self, uri: str, golden: Golden, deadline: float) -> None:
        """Go on watching a version that serves for a while, then ask once more; raises as `wait` does."""
        if not self._settings.settle_seconds:
            return
        self._tell(f"watched for {self._settings.settle_seconds:g} s more")
        until = time.monotonic() + self._settings.settle_seconds
        while time.monotonic() < until:
            self._look(uri, float("inf"), 100, settled=True)
            time.sleep(POLL_SECONDS)
        self.wait(uri, golden, max(deadline, time.monotonic() + ANSWER_SECONDS))

    def traffic(self, golden: Golden, percent: int) -> str:
        """Send golden requests the way that users' go; returns what is wrong, or nothing.

        All must be answered, some by the new version, and those as evaluated. So many are sent that the new version's share
        of the traffic brings it some with near certainty.
        """
        address = observe(self._cluster, self._service, "", standard=False).address
        if not (addresses := self._caller.addresses(address, ())):
            return f"the service's address {address or '(none)'} is not known here; set serving.url"
        answered = 0
        for _ in range(max(20, 1000 // percent)):
            answer, _ = self._caller.ask(addresses[0], golden)
            if answer.version == golden.version:
                answered += 1
            elif not answer.problem:
                continue  # the old version's probabilities are its own
            if problem := fault(answer, golden.version):
                return problem
        return "" if answered else f"no request of {max(20, 1000 // percent)} came to the new version at {percent} percent"

    def _look(self, uri: str, seconds: float, percent: int, *, settled: bool = False) -> tuple[Verdict, Observation]:
        """Observe once; raises NotServed for a failure, and RolloutConflict when something else is served."""
        try:
            seen = observe(self._cluster, self._service, uri, standard=self._settings.standard)
        except Unreachable as error:
            return Verdict("waiting", str(error)), Observation()
        verdict = judge(seen, uri, seconds, percent=percent, settled=settled)
        if verdict.state == "replaced":
            raise RolloutConflict(
                f"another deployer changed {self._service}: {verdict.line}, not {uri}; it was left alone, look at the ledger"
            )
        if verdict.state == "failed":
            raise NotServed(verdict.line + self._words(verdict))
        return verdict, seen

    def _ask(self, seen: Observation, golden: Golden | None) -> str:
        if golden is None:
            return ""
        addresses = self._caller.addresses(seen.address, tuple(pod.address for pod in seen.pods if pod.ready))
        if not addresses:
            return f"its address {seen.address or '(none)'} is not known here; set serving.url"
        for address in addresses:
            answer = self._caller.ask_all(address, golden)
            problem = fault(answer, golden.version)
            if problem and answer.version == golden.version:
                raise NotServed(problem)  # waiting does not change what it computes
            if problem:
                return problem
        return ""

    def _words(self, verdict: Verdict) -> str:
        """Return the end of the container's log, to be added to a reason."""
        if not verdict.container:
            return ""
        for previous in (True, False):
            if words := last_words(self._cluster.log(verdict.pod, verdict.container, previous=previous)):
                return "" if words in verdict.line else f"; its log ends with: {words}"
        return ""

    def _tell(self, line: str) -> None:
        if line != self._told:
            self._told = line
            self._say(f"{self._service}: {line}")
