"""The API server answers 429 or 5xx, hangs, or loses answers: the rollout ends as without, or says so in time and can be run again."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.classifier.errors import RolloutError
from components.deploy.kserve import cluster
from tests.cluster import place as bad
from tests.cluster.api import Api, service_path
from tests.cluster.place import Place, kubeconfig_of
from tests.cluster.proxy import ApiProxy, Fault, proxy
from tests.cluster.test_killed import step


@pytest.fixture
def between(place: Place, administrator: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiProxy]:
    """The deployer reaches the API server through a proxy only."""
    monkeypatch.setattr(cluster, "REQUEST_SECONDS", (2.0, 3.0))
    with proxy(administrator) as made:
        path = kubeconfig_of(administrator, place.namespace, "penstock-deployer", tmp_path, made.endpoint, ca=False)
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield made


@pytest.mark.parametrize("fault", ["429", "500", "503", "reset", "lost"])
def test_faults_that_pass_change_nothing(place: Place, between: ApiProxy, fault: Fault) -> None:
    """Every second request meets one, reads and writes alike."""
    between.plan = lambda number, *_: fault if number % 2 else None
    assert place.deploy("v1", settle_seconds=0) == "deployed"
    assert place.deploy("v2", settle_seconds=0) == "deployed"
    assert between.broken > 10
    assert place.served() == "v2"
    assert place.ledger() == [("deployed", "v1", "v1"), ("deployed", "v2", "v2")]


def test_a_write_that_hangs_is_sent_again(place: Place, between: ApiProxy) -> None:
    hung: list[int] = []

    def plan(number: int, method: str, path: str) -> Fault | None:
        if method in {"POST", "PATCH"} and len(hung) < 2:
            hung.append(number)
            return "hang"
        return None

    between.plan = plan
    assert place.deploy("v1", settle_seconds=0) == "deployed"
    assert place.ledger() == [("deployed", "v1", "v1")]


def test_an_undo_goes_through_faults_too(place: Place, between: ApiProxy) -> None:
    place.deploy("v1", settle_seconds=0)
    between.plan = lambda number, *_: ("lost", "503", "429")[number % 3] if number % 2 else None
    with pytest.raises(RolloutError, match=r"(ErrImagePull|ImagePullBackOff).* serves again"):
        place.deploy("v2", runtime=place.runtime("no-image", bad.NO_IMAGE))
    assert place.served() == "v1"
    assert place.ledger()[1:] == [("failed", "v2", "v1"), ("rolled_back", "v1", "v1")]


def test_who_changes_a_service_just_as_it_is_made_does_not_take_away_what_to_go_back_to(place: Place, between: ApiProxy) -> None:
    """As KServe's controller does with its finalizer. v2 was never confirmed; when v3 fails, v1 serves again and is not taken away."""
    touched: list[int] = []

    def touch(number: int, method: str, path: str) -> Fault | None:
        if method == "PATCH" and not touched:
            touched.append(number)
            place.api.merge(service_path(place.namespace), {"metadata": {"annotations": {"touched": "yes"}}})
        return None

    between.plan = touch
    place.deploy("v1", settle_seconds=0)
    assert touched
    assert step(place, "v2", "killed", r"PATCH .*/inferenceservices/digits\?.*fieldManager", "after")[0] == -signal.SIGKILL
    with pytest.raises(RolloutError, match=f"{place.versions['v1']} serves again"):
        place.deploy("v3", runtime=place.runtime("no-image", bad.NO_IMAGE))
    assert place.served() == "v1"


@pytest.mark.load
def test_a_server_that_is_gone_is_told_in_time_and_the_step_can_be_run_again(
    place: Place, between: ApiProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 5.0)
    place.deploy("v1", settle_seconds=0)
    between.plan = lambda *_: "hang"
    began = time.monotonic()
    with pytest.raises(RolloutError, match="the API server does not answer"):
        place.deploy("v2", run="gone", settle_seconds=0)
    assert time.monotonic() - began < 30
    between.plan = lambda *_: None
    applied: list[int] = []

    def gone_after_the_apply(number: int, method: str, path: str) -> Fault | None:
        applied.extend([number] if method == "PATCH" and "/inferenceservices/digits" in path else [])
        return "503" if applied and number > applied[0] else None

    between.plan = gone_after_the_apply
    with pytest.raises(RolloutError, match=r"could not be put back: .*run the step again"):
        place.deploy("v2", run="gone", settle_seconds=0, timeout_seconds=8)
    assert place.served() == "v2"
    between.plan = lambda *_: None
    with pytest.raises(RolloutError, match="serves again"):
        place.deploy("v2", run="gone", settle_seconds=0)
    assert place.served() == "v1"
    assert place.ledger() == [("deployed", "v1", "v1"), ("failed", "v2", "v1"), ("rolled_back", "v1", "v1")]
    assert place.deploy("v2", settle_seconds=0) == "deployed"
