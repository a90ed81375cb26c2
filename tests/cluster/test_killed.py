"""A deploy step that is killed, wherever that is, and run again: the same end as if it had not been, and each record once."""

import json
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from components.deploy.conclusion import Outcome, conclude
from tests.cluster import place as bad
from tests.cluster.api import Api
from tests.cluster.place import SETTLE, TIMEOUT, Place

ISVC = r"/inferenceservices/digits\?.*fieldManager"
POINTS = [
    ("the first look", r"GET .*/inferenceservices/digits", "before"),
    ("noting what to go back to", r"PUT .*/rollouts/", "before"),
    ("having noted it", r"PUT .*/rollouts/", "after"),
    ("the apply", rf"PATCH .*{ISVC}", "before"),
    ("having applied", rf"PATCH .*{ISVC}", "after"),
    ("looking at the pods", r"GET .*/pods\?", "after"),
    ("the first golden request", r"POST /v2/models/digits/infer", "before"),
    ("having asked it", r"POST /v2/models/digits/infer", "after"),
    ("the record", r"PUT .*/deployments/", "before"),
    ("having recorded", r"PUT .*/deployments/", "after"),
]
CREATION = [
    ("the creation", r"POST .*/inferenceservices\?", "before"),
    ("having created", r"POST .*/inferenceservices\?", "after"),
    ("having owned it", r"PATCH .*/inferenceservices/digits", "after"),
]
UNDOING = [
    ("the record of the failure", r"PUT .*/deployments/", "before"),
    ("having recorded the failure", r"PUT .*/deployments/", "after"),
]


def step(place: Place, version: str, run: str, pattern: str = "", when: str = "before", **serving: Any) -> tuple[int, str]:
    """Run the step as a process of its own; returns exit code and what it printed."""
    process = start(place, version, run, pattern, when, **serving)
    out, _ = process.communicate(timeout=800)
    return process.returncode, out


def start(place: Place, version: str, run: str, pattern: str = "", when: str = "before", **serving: Any) -> "subprocess.Popen[str]":
    serving = {"settle_seconds": SETTLE, "timeout_seconds": TIMEOUT, **serving}
    command = [sys.executable, "-m", "tests.cluster.dying", place.registry.store.url, place.namespace, place.versions[version], run]
    return subprocess.Popen([*command, json.dumps(serving), pattern, when], stdout=subprocess.PIPE, text=True, cwd=bad.ROOT)


@pytest.mark.parametrize("points", [POINTS[:5], POINTS[5:]], ids=["up to the apply", "after it"])
def test_killed_anywhere_in_a_rollout_the_next_run_of_the_step_ends_it(place: Place, points: list[tuple[str, str, str]]) -> None:
    place.deploy("v1", settle_seconds=0)
    now, then = "v1", "v2"
    for where, pattern, when in points:
        run = f"killed-{where}"
        before = len(place.ledger())
        code, out = step(place, then, run, pattern, when, settle_seconds=0)
        last = where == "having recorded"  # nothing is asked after it
        assert code == (0 if last else -signal.SIGKILL), f"{where}: {out}"
        assert place.served() in {now, then}
        code, out = step(place, then, run, settle_seconds=0)
        assert code == 0, f"{where}: {out}"
        assert place.served() == then, where
        assert place.ledger()[before:] == [("deployed", then, then)], where
        now, then = then, now


@pytest.mark.parametrize(("where", "pattern", "when"), CREATION, ids=[where for where, _, _ in CREATION])
def test_killed_in_a_first_deployment(place: Place, where: str, pattern: str, when: str) -> None:
    code, out = step(place, "v1", "first", pattern, when)
    assert code == -signal.SIGKILL, f"{where}: {out}"
    assert step(place, "v1", "first", settle_seconds=0)[0] == 0
    assert place.served() == "v1"
    assert place.ledger() == [("deployed", "v1", "v1")]
    service = place.service()
    assert service is not None
    ours = [e["operation"] for e in service["metadata"]["managedFields"] if e["manager"] == "penstock"]
    assert ours == ["Apply"]
    assert place.deploy("v2", settle_seconds=0) == "deployed"


def test_killed_while_undoing_the_next_run_of_the_step_undoes_to_the_end(place: Place) -> None:
    place.deploy("v1")
    runtime = place.runtime("no-image", bad.NO_IMAGE)
    for number, (where, pattern, when) in enumerate(UNDOING):
        before = len(place.ledger())
        code, out = step(place, "v2", f"bad-{number}", pattern, when, runtime=runtime)
        assert code == -signal.SIGKILL, f"{where}: {out}"
        code, out = step(place, "v2", f"bad-{number}", runtime=runtime)
        assert code == 1, where
        assert "serves again" in out, out
        assert place.served() == "v1"
        assert place.ledger()[before:] == [("failed", "v2", "v1"), ("rolled_back", "v1", "v1")], where
        code, out = step(place, "v2", f"bad-{number}", runtime=runtime)
        assert (code, "in this run already" in out) == (1, True), out
        assert len(place.ledger()) == before + 2


def test_a_killed_rollout_is_no_base_for_the_next_one(place: Place) -> None:
    """v2 was applied and never seen to serve: when v3 fails, v1 comes back, not v2."""
    place.deploy("v1")
    assert step(place, "v2", "killed", rf"PATCH .*{ISVC}", "after")[0] == -signal.SIGKILL
    assert place.served() == "v2"
    with pytest.raises(Exception, match=f"{place.versions['v1']} serves again"):
        place.deploy("v3", runtime=place.runtime("no-image", bad.NO_IMAGE))
    assert place.served() == "v1"
    assert place.ledger()[1:] == [("failed", "v3", "v1"), ("rolled_back", "v1", "v1")]


def test_a_terminated_step_puts_back_what_served_and_is_no_verdict(place: Place) -> None:
    place.deploy("v1")
    runtime = place.runtime("never-ready", bad.NEVER_READY)
    process = start(place, "v2", "stopped", runtime=runtime)
    end = time.monotonic() + 60
    while place.served() != "v2":
        assert time.monotonic() < end
        time.sleep(0.2)
    time.sleep(1)
    process.terminate()
    out, _ = process.communicate(timeout=300)
    assert "told to stop (SIGTERM)" in out
    assert place.served() == "v1"
    assert place.ledger() == [("deployed", "v1", "v1")]
    assert step(place, "v2", "stopped", settle_seconds=0)[0] == 0
    assert place.served() == "v2"


def test_one_that_slept_through_another_rollout_never_puts_old_over_new(place: Place, administrator: Api) -> None:
    place.deploy("v1")
    process = start(place, "v2", "slow", rf"PATCH .*{ISVC}", "pause", settle_seconds=0)
    end = time.monotonic() + 60
    while "T" not in (bad.Path(f"/proc/{process.pid}/stat").read_text().split()[2]):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert place.deploy("v3", settle_seconds=0) == "deployed"
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "RolloutConflict: another deployer changed digits meanwhile" in out
    assert place.served() == "v3"
    assert place.ledger() == [("deployed", "v1", "v1"), ("deployed", "v3", "v3")]


@pytest.mark.parametrize("first", [False, True], ids=["before it something served", "nothing served before"])
def test_what_a_step_left_that_was_killed_is_put_back_by_the_end_of_its_run_and_of_no_other(place: Place, first: bool) -> None:
    if not first:
        place.deploy("v1", settle_seconds=0)
    before = place.ledger()
    code, out = step(place, "v2", "cut-off", r"POST /v2/models/digits/infer", "before")
    assert code == -signal.SIGKILL, out
    assert place.served() == "v2"

    def ended(run: str) -> Outcome:
        return conclude(place.registry, place.request("v2", run=run), "RUNNING")

    if not first:
        assert ended("another").decision == "failed"
        assert place.served() == "v2"
    outcome = ended("cut-off")
    assert (outcome.decision, outcome.version) == ("failed", place.versions["v2"])
    assert "the deploy step ended before it was seen to serve; " in outcome.reason
    assert place.served() == ("" if first else "v1")
    added = [("failed", "v2", "v1"), ("rolled_back", "v1", "v1")] if not first else [("failed", "v2", "")]
    assert place.ledger() == before + added
    assert ended("cut-off").decision == "failed"
    assert place.ledger() == before + added


def test_a_canary_is_not_left_by_a_step_that_ends_while_it_is_tried(place: Place) -> None:
    place.deploy("v1", settle_seconds=0)
    before = place.ledger()
    code, out = step(place, "v2", "cut-off", r"POST /v2/models/digits-canary/infer", "before", canary=True)
    assert (code, place.served("digits-canary")) == (-signal.SIGKILL, "v2"), out
    assert conclude(place.registry, place.request("v3", run="another", canary=True), "RUNNING").decision == "failed"
    assert place.served("digits-canary") == "v2"
    assert conclude(place.registry, place.request("v2", run="cut-off", canary=True), "RUNNING").decision == "failed"
    assert place.service("digits-canary") is None

    runtime = place.runtime("never-ready", bad.NEVER_READY)
    process = start(place, "v2", "stopped", canary=True, runtime=runtime)
    end = time.monotonic() + 60
    while place.served("digits-canary") != "v2":
        assert time.monotonic() < end
        time.sleep(0.2)
    time.sleep(1)
    process.terminate()
    out, _ = process.communicate(timeout=300)
    assert "before the version was seen to serve; its canary was deleted" in out
    assert place.service("digits-canary") is None
    assert (place.served(), place.ledger()) == ("v1", before)
