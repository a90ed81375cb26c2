"""Waits until a version is really served and answers golden requests as evaluated, and reports each change of state as it happens."""

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from components.bundle.files import GOLDEN
from components.bundle.golden import GOLDEN_TOLERANCE, difference, load_golden
from components.classifier.errors import InferenceError, RolloutConflict, RolloutError
from components.classifier.images import Pixels
from components.deploy.kserve.cluster import Cluster, Unreachable
from components.deploy.kserve.readiness import Readiness, assess, error_in_log
from components.deploy.kserve.service import Object, digest_of, uri_of
from components.deploy.kserve.state import Observation, observe
from components.inference_client import InferenceClient, batches
from components.registry import Registry
from components.settings.serving import KServeSettings

Say = Callable[[str], None]
say: Say = partial(print, flush=True)
"""Prints a line at once, so that it is seen during the rollout."""

POLL_SECONDS = 1.0
ANSWER_SECONDS = 20.0
"""How long a version that is up may still not answer, or another answer for it: routes take a moment to move."""
_RESPONSE_SECONDS = 15.0


class NotServed(RolloutError):
    """The version does not serve; the message is the reason in one line."""


@dataclass(frozen=True)
class Golden:
    """The golden requests of a version: pictures, uint8 (N, H, W, C), and the probabilities (N, K) that it must give them."""

    version: str
    images: Pixels
    probabilities: npt.NDArray[np.float32]

    @classmethod
    def of(cls, registry: Registry, version: str) -> "Golden":
        """Fetch them from the registry; raises VersionNotFound, and IntegrityError when they are damaged."""
        with registry.opened(version, [GOLDEN]) as folder:
            images, probabilities = load_golden(folder)
        return cls(version, images, probabilities)

    def ask(self, client: InferenceClient, part: slice) -> tuple[str | None, str]:
        """Send some of the pictures; returns the version that answered (None: none did), and what is wrong, or nothing."""
        try:
            found = client.infer(self.images[part])
        except InferenceError as error:
            return None, f"{error}{_hint(error.status)}"
        if found.version != self.version:
            return found.version, f"the answer names version {found.version or '(none)'}"
        away = difference(found.probabilities, self.probabilities[part])
        if away > GOLDEN_TOLERANCE:
            wrong = f"golden requests get other probabilities than evaluated ({away:.4g} away, allowed {GOLDEN_TOLERANCE:g})"
            return found.version, wrong
        return found.version, ""


class Watcher:
    """Watches one InferenceService."""

    def __init__(self, cluster: Cluster, service: str, settings: KServeSettings, say: Say) -> None:
        self._cluster, self._service, self._settings, self._say = cluster, service, settings, say
        self._clients: dict[str, InferenceClient] = {}
        self._last_line = ""

    def wait(self, applied: Object, golden: Golden | None, deadline: float, *, percent: int = 100) -> None:
        """Return once the InferenceService `applied` is served, alone, and every golden request is answered by its version.

        `deadline` on time.monotonic's clock. Raises NotServed with the pod's reason as soon as it shows, or the state at the
        deadline; RolloutConflict when another deployer changes what is served.
        """
        began, unanswered = time.monotonic(), 0.0
        while True:
            readiness, seen = self._look(applied, time.monotonic() - began, percent)
            if readiness.state == "served":
                problem = self._ask(seen, golden)
                if not problem:
                    self._tell(f"{readiness.line}; golden requests agree" if golden else readiness.line)
                    return
                unanswered = unanswered or time.monotonic()
                readiness = Readiness("waiting", f"it is up, but {problem}")
                if time.monotonic() - unanswered > ANSWER_SECONDS:
                    raise NotServed(readiness.line)
            else:
                unanswered = 0.0
            self._tell(readiness.line)
            if time.monotonic() > deadline:
                raise NotServed(f"not served after {time.monotonic() - began:.0f} s: {readiness.line}{self._words(readiness)}")
            time.sleep(POLL_SECONDS)

    def settle(self, applied: Object, golden: Golden, deadline: float) -> None:
        """Go on watching a version that serves for a while, then ask once more; raises as `wait` does."""
        if not self._settings.settle_seconds:
            return
        self._tell(f"watched for {self._settings.settle_seconds:g} s more")
        until = time.monotonic() + self._settings.settle_seconds
        while time.monotonic() < until:
            self.require_served(applied)
            time.sleep(POLL_SECONDS)
        self.wait(applied, golden, max(deadline, time.monotonic() + ANSWER_SECONDS))

    def require_served(self, applied: Object, percent: int = 100) -> None:
        """Look once at a version that has served before; raises NotServed and RolloutConflict as `wait` does."""
        self._look(applied, float("inf"), percent, settled=True)

    def traffic(self, golden: Golden, percent: int) -> str:
        """Send golden requests through the users' address; returns what is wrong, or nothing.

        All must be answered, some by the new version, and those as evaluated. Enough are sent that some reach the new version
        with near certainty.
        """
        address = observe(self._cluster, self._service, "", standard=False).address
        if not (addresses := self._addresses(address, ())):
            return f"the service's address {address or '(none)'} is not known here; set serving.url"
        first = next(batches(golden.images))
        count, answered = max(20, 1000 // percent), 0
        for _ in range(count):
            version, problem = golden.ask(self._client(addresses[0]), first)
            if version not in (None, golden.version):
                continue  # the old version's probabilities are its own
            if problem:
                return problem
            answered += 1
        return "" if answered else f"no request of {count} came to the new version at {percent} percent"

    def _look(self, applied: Object, seconds: float, percent: int, *, settled: bool = False) -> tuple[Readiness, Observation]:
        """Observe once; raises NotServed for a failure, and RolloutConflict when something else is served."""
        uri, digest = uri_of(applied), digest_of(applied)
        try:
            seen = observe(self._cluster, self._service, uri, digest, standard=self._settings.standard)
        except Unreachable as error:
            return Readiness("waiting", str(error)), Observation()
        readiness = assess(seen, uri, seconds, digest=digest, percent=percent, settled=settled)
        if readiness.state == "replaced":
            raise RolloutConflict(
                f"another deployer changed {self._service}: {readiness.line}, not {uri}; it was not touched; look at the ledger"
            )
        if readiness.state == "failed":
            raise NotServed(readiness.line + self._words(readiness))
        return readiness, seen

    def _ask(self, seen: Observation, golden: Golden | None) -> str:
        if golden is None:
            return ""
        addresses = self._addresses(seen.address, tuple(pod.address for pod in seen.pods if pod.ready))
        if not addresses:
            return f"its address {seen.address or '(none)'} is not known here; set serving.url"
        for address in addresses:
            for part in batches(golden.images):
                version, problem = golden.ask(self._client(address), part)
                if problem and version == golden.version:
                    raise NotServed(problem)  # waiting does not change what it computes
                if problem:
                    return problem
        return ""

    def _addresses(self, published: str, pods: Sequence[str]) -> list[str]:
        """Return where to ask: the address that was set, else the one that the service publishes, else its pods.

        The names of a cluster are unknown outside of it, and in one without DNS.
        """
        if self._settings.url:
            return [self._settings.url]
        if published and _resolves(published):
            return [published]
        return [address for address in pods if address]

    def _client(self, address: str) -> InferenceClient:
        """Return the client of an address; its headers carry the host and the token that an ingress asks for."""
        if address not in self._clients:
            headers = {"host": self._settings.host} if self._settings.host else {}
            if token := self._settings.token.get_secret_value():
                headers["authorization"] = f"Bearer {token}"
            ca = self._settings.ca
            self._clients[address] = InferenceClient(address, self._service, headers=headers, ca=ca, seconds=_RESPONSE_SECONDS)
        return self._clients[address]

    def _words(self, readiness: Readiness) -> str:
        """Return the end of the container's log, to be added to a reason."""
        if not readiness.container:
            return ""
        for previous in (True, False):
            if words := error_in_log(self._cluster.log(readiness.pod, readiness.container, previous=previous)):
                return "" if words in readiness.line else f"; its log ends with: {words}"
        return ""

    def _tell(self, line: str) -> None:
        if line != self._last_line:
            self._last_line = line
            self._say(f"{self._service}: {line}")


def _resolves(address: str) -> bool:
    """Say whether this machine knows the address' host."""
    try:
        socket.getaddrinfo(urlsplit(address).hostname, None)
    except OSError:
        return False
    return True


def _hint(status: int) -> str:
    if status in {301, 302, 303, 307, 308}:
        return " (a login: set PENSTOCK_KSERVE_TOKEN, or serving.url to an address inside the cluster)"
    if status in {401, 403}:
        return " (the service asks for an account: set PENSTOCK_KSERVE_TOKEN; a mesh may want a sidecar or a policy)"
    return " (an ingress that does not know the service: set serving.host)" if status == 404 else ""
