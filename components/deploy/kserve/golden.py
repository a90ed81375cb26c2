"""Golden requests: what a version must answer, asked through the address that its users use."""

import json
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import urllib3

from components.bundle import files
from components.bundle.files import INPUT_NAME, OUTPUT_NAME
from components.bundle.golden import GOLDEN_TOLERANCE, load_golden
from components.classifier.images import Pixels
from components.registry import Registry
from components.settings.serving import KServeSettings

_BODY_BYTES = 2 * 1024 * 1024
"""At most in one request, well below what predictors and ingresses take."""
_SECONDS = urllib3.Timeout(connect=3, read=15)


@dataclass(frozen=True)
class Golden:
    """The pictures of a version and the probabilities that it must give them."""

    version: str
    images: Pixels
    probabilities: npt.NDArray[np.float32]

    @classmethod
    def of(cls, registry: Registry, version: str) -> "Golden":
        """Fetch them from the registry; raises IntegrityError when they are damaged."""
        with tempfile.TemporaryDirectory(prefix="penstock-golden-") as scratch:
            directory = registry.fetch(version, Path(scratch) / version, (files.GOLDEN,))
            images, probabilities = load_golden(directory)
        return cls(version, images, probabilities)


@dataclass(frozen=True)
class Answer:
    """What came back for some of the pictures: by which version, how far off, or why nothing did."""

    version: str = ""
    difference: float = 0.0
    problem: str = ""


@dataclass
class Caller:
    """Sends requests to a service; `headers` carry the host and the token that an ingress asks for."""

    name: str
    settings: KServeSettings
    _pool: urllib3.PoolManager = field(init=False)

    def __post_init__(self) -> None:
        self._pool = urllib3.PoolManager(retries=False, timeout=_SECONDS, ca_certs=self.settings.ca or None)

    def addresses(self, told: str, pods: Sequence[str]) -> list[str]:
        """Return where to ask: the address that was set, else the one that the service tells, else its pods.

        The names of a cluster are unknown outside of it, and in one without DNS.
        """
        if self.settings.url:
            return [self.settings.url.rstrip("/")]
        if told and resolves(told):
            return [told.rstrip("/")]
        return [address for address in pods if address]

    def ask(self, address: str, golden: Golden, start: int = 0) -> tuple[Answer, int]:
        """Send golden pictures from `start` on, as many as fit one request; returns the answer and where to go on."""
        size = max(1, golden.images[0].nbytes)
        stop = min(len(golden.images), start + max(1, _BODY_BYTES // size))
        images = np.ascontiguousarray(golden.images[start:stop])
        tensor = {"name": INPUT_NAME, "shape": list(images.shape), "datatype": "UINT8", "parameters": {"binary_data_size": images.nbytes}}
        head = json.dumps({"inputs": [tensor], "outputs": [{"name": OUTPUT_NAME}]}).encode()
        headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))} | self._headers()
        try:
            response = self._pool.request(
                "POST", f"{address}/v2/models/{self.name}/infer", body=head + images.tobytes(), headers=headers, redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            return Answer(problem=f"{address} does not answer ({type(error).__name__})"), stop
        if response.status != 200:
            return Answer(problem=f"{address} answers {response.status}{_hint(response.status)}: {_first(response.data)}"), stop
        return _read(response.data, golden.probabilities[start:stop]), stop

    def ask_all(self, address: str, golden: Golden) -> Answer:
        """Send every golden picture; returns the first answer that is not the version's own, or the last."""
        at, worst = 0, 0.0
        while at < len(golden.images):
            answer, at = self.ask(address, golden, at)
            worst = max(worst, answer.difference)
            if fault(answer, golden.version):
                return answer
        return Answer(golden.version, worst)

    def _headers(self) -> dict[str, str]:
        headers = {}
        if self.settings.host:
            headers["host"] = self.settings.host
        if token := self.settings.token.get_secret_value():
            headers["authorization"] = f"Bearer {token}"
        return headers


def fault(answer: Answer, version: str) -> str:
    """Return what is wrong with an answer that should be the version's; empty when nothing is."""
    if answer.problem:
        return answer.problem
    if answer.version != version:
        return f"the answer names version {answer.version or '(none)'}"
    if not answer.difference <= GOLDEN_TOLERANCE:
        return f"golden requests get other probabilities than evaluated ({answer.difference:.4g} away, allowed {GOLDEN_TOLERANCE:g})"
    return ""


def resolves(address: str) -> bool:
    """Say whether this machine knows the address' host."""
    try:
        socket.getaddrinfo(urlsplit(address).hostname, None)
    except OSError:
        return False
    return True


def _read(body: bytes, expected: npt.NDArray[np.float32]) -> Answer:
    try:
        document: dict[str, Any] = json.loads(body)
        output = next(o for o in document["outputs"] if o["name"] == OUTPUT_NAME)
        rows = np.array(output["data"], np.float64).reshape(output["shape"])
        difference = float(np.abs(rows - expected).max()) if rows.shape == expected.shape else float("inf")
        return Answer(str(document.get("model_version", "")), difference)
    except (ValueError, KeyError, TypeError, StopIteration):
        return Answer(problem=f"the service answers something else than the V2 protocol: {_first(body)}")


def _hint(status: int) -> str:
    if status in {301, 302, 303, 307, 308}:
        return " (a login: set PENSTOCK_KSERVE_TOKEN, or serving.url to an address inside the cluster)"
    if status in {401, 403}:
        return " (the service asks for an account: set PENSTOCK_KSERVE_TOKEN; a mesh may want a sidecar or a policy)"
    return " (an ingress that does not know the service: set serving.host)" if status == 404 else ""


def _first(body: bytes) -> str:
    return " ".join(body[:500].decode("utf-8", "replace").split())[:200]
