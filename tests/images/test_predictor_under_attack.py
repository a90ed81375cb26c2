"""Attackers of every kind for a minute, against a container with a pod's limits."""

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from components.bundle.golden import load_golden
from tests.images import engine
from tests.images.test_predictor_image import ask
from tests.predictor.test_attacks import ATTACKS, churn, send
from tests.predictor.test_limits import connect
from tests.predictor.versions import NAME, PREDICT

pytestmark = [pytest.mark.integration, pytest.mark.load, pytest.mark.timeout(1800)]

SECONDS, QUIET_SECONDS, BACK_SECONDS = 75.0, 10.0, 60.0
LIMITS = ("--memory", "1g", "--memory-swap", "1g", "--cpus", "2")
KEPT = 1.2
"""How much of the memory from before may be held after it: 8 to 11% more were seen in three runs, and 10% is the aim."""
IDLE_CONNECTIONS = 2300
"""More than the server holds."""
PROBE_PORT = 8082


def held(container: str) -> int:
    """Bytes that the container's processes hold, without the files that the kernel caches for them."""
    script = "cat /sys/fs/cgroup/memory/memory.stat /sys/fs/cgroup/memory.stat 2>/dev/null"
    lines = dict(line.split() for line in engine.docker("exec", container, "sh", "-c", f"{script}; true").splitlines())
    return int(lines.get("total_rss", lines.get("anon", "0")))


class Users:
    """A client with good requests and one that asks for health, each by a thread; seconds of every answer."""

    def __init__(self, url: str, probe_url: str, body: object) -> None:
        self._url, self._probe_url, self._body = url, probe_url, body
        self.good: list[float] = []
        self.health: list[float] = []
        self.failed: list[str] = []

    def run(self, seconds: float) -> None:
        """Ask for some seconds."""
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=self._ask, args=(end, self._url, self._use, self.good, 0.02))]
        threads += [threading.Thread(target=self._ask, args=(end, self._probe_url, self._probe, self.health, 0.1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _ask(self, end: float, url: str, once: Callable[[httpx.Client], None], seconds: list[float], pause: float) -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            while time.monotonic() < end:
                began = time.monotonic()
                try:
                    once(client)
                except httpx.HTTPError as error:  # a connection that was idle may be closed for another; the next is a new one
                    self.failed.append(repr(error))
                else:
                    seconds.append(time.monotonic() - began)
                time.sleep(pause)

    def _use(self, client: httpx.Client) -> None:
        client.post(PREDICT, json=self._body).raise_for_status()

    def _probe(self, client: httpx.Client) -> None:
        client.get("/v2/health/live", headers={"connection": "close"}).raise_for_status()


def attack(url: str, message: bytes, end: float) -> None:
    """Send a message again and again, with the CPU that nobody else wants, as from another machine; one client in two leaves at once."""
    os.nice(15)
    leave = 0.0
    while time.monotonic() < end:
        send(url, message, leave)
        leave = 0.3 - leave


def churn_kindly(url: str, end: float) -> None:
    """Open and close connections as fast as possible, with the CPU that nobody else wants."""
    os.nice(15)
    churn(url, end)


def hold(stack: ExitStack, url: str) -> None:
    """Open connections that say nothing, until the stack is closed."""
    for _ in range(IDLE_CONNECTIONS):
        with suppress(OSError):
            stack.enter_context(closing(connect(url)))


def quantile(seconds: list[float], share: float) -> float:
    """Return a quantile in milliseconds."""
    return round(1000 * float(np.quantile(seconds, share)), 1)


def test_a_container_of_one_gibibyte_and_two_cpus_survives_attacks_of_all_kinds(predictor_image: str, version_folder: Path) -> None:
    messages = {name: make() for name, make in ATTACKS.items()}
    options = (*engine.UNPRIVILEGED, *LIMITS, "--volume", f"{version_folder}:/mnt/models:ro")
    arguments = ("--model_name", NAME, "--probe_port", str(PROBE_PORT))
    with engine.container(predictor_image, *arguments, options=options) as it, ExitStack() as stack:
        ask(it, ("GET", "/v2/health/ready"))
        host = engine.docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", it).strip()  # past Docker's proxy
        url, probe_url = f"http://{host}:8080", f"http://{host}:{PROBE_PORT}"
        body = {"instances": [load_golden(version_folder)[0][0].tolist()]}
        for message in messages.values():  # each kind once, so that what it loads for good counts as before
            send(url, message, 1)
        hold(stack, url)
        stack.close()
        time.sleep(30)
        normal = Users(url, probe_url, body)
        normal.run(QUIET_SECONDS)
        before, end = held(it), time.monotonic() + SECONDS

        hold(stack, url)
        context = multiprocessing.get_context("fork")
        attackers = [context.Process(target=attack, args=(url, message, end)) for message in messages.values()]
        attackers += [context.Process(target=churn_kindly, args=(url, end)) for _ in range(2)]
        for attacker in attackers:
            attacker.start()
        users = Users(url, probe_url, body)
        users.run(end - time.monotonic())
        for attacker in attackers:
            attacker.join()
        stack.close()

        peak, until = held(it), time.monotonic() + BACK_SECONDS
        after = peak
        while after > KEPT * before and time.monotonic() < until:
            time.sleep(1)
            after = held(it)
        state = json.loads(engine.docker("inspect", it))[0]["State"]
        figures = {
            "normal_p99_ms": quantile(normal.good, 0.99),
            "attacked_median_ms": quantile(users.good, 0.5),
            "attacked_p99_ms": quantile(users.good, 0.99),
            "good": len(users.good),
            "failed": len(users.failed),
            "health_p99_ms": quantile(users.health, 0.99),
            "health_max_ms": quantile(users.health, 1),
            "before_mib": before >> 20,
            "at_the_end_mib": peak >> 20,
            "after_mib": after >> 20,
        }
        print(json.dumps(figures))  # `pytest -s` shows them; how long answers take depends on what else runs on the machine
        assert state["Running"] and not state["OOMKilled"], figures  # noqa: PT018 - one fact
        assert after <= KEPT * before, figures
        assert len(users.health) > SECONDS, figures
        assert figures["health_p99_ms"] < 1000, figures
        assert len(users.failed) < 0.1 * len(users.good), (figures, users.failed[:5])
        errors = [line for line in engine.logs(it).splitlines() if '"level":"error"' in line.replace(" ", "")]
        assert not errors, errors[:3]
