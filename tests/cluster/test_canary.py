"""A version is tried on little before it serves all."""

import time
from collections.abc import Iterator

import pytest
import requests

from components.classifier.errors import RolloutError, UsageError
from tests.cluster import place as bad
from tests.cluster.api import Api
from tests.cluster.place import Place
from tests.cluster.router import router

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SCHEMA = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
KNATIVE = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "services.serving.knative.dev"},
    "spec": {
        "group": "serving.knative.dev",
        "scope": "Namespaced",
        "names": {"plural": "services", "singular": "service", "kind": "Service", "listKind": "ServiceList"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": SCHEMA}}],
    },
}
"""By its API group, the check before a deployment knows that Knative is there."""


def install_knative(api: Api) -> None:
    try:
        api.ask("POST", CRDS, KNATIVE)
    except requests.HTTPError as error:
        if error.response is None or error.response.status_code != 409:  # another process of these tests was first
            raise
    while api.find("/apis/serving.knative.dev/v1") is None:
        time.sleep(0.1)


@pytest.fixture
def knative(real_kserve: bool, place: Place) -> Iterator[dict[str, object]]:
    if real_kserve:
        pytest.skip("Knative is not part of this cluster's KServe; the stand-in plays it")
    install_knative(place.api)
    with router(place.api, place.namespace) as url:
        yield {"mode": "Knative", "url": url, "canary_steps": [20, 50]}


def test_a_version_climbs_by_shares_of_the_traffic(place: Place, knative: dict[str, object]) -> None:
    assert place.deploy("v1", **knative) == "deployed"
    assert place.deploy("v2", **knative) == "deployed"
    told = [line for line in place.said if "percent" in line]
    assert [line.split(": ")[1] for line in told if "answered as evaluated" in line] == [
        "20 percent of the traffic is answered as evaluated", "50 percent of the traffic is answered as evaluated"
    ]  # fmt: skip
    service = place.service()
    assert service is not None
    assert "canaryTrafficPercent" not in service["spec"]["predictor"]
    (share,) = service["status"]["components"]["predictor"]["traffic"]
    assert share["percent"] == 100
    assert place.ledger() == [("deployed", "v1", "v1"), ("deployed", "v2", "v2")]


def test_a_bad_canary_loses_its_traffic_and_the_old_version_serves_all(place: Place, knative: dict[str, object], real_nodes: bool) -> None:
    """A real predictor finds out by itself and does not start; the stand-in's serves, and the golden requests find out."""
    found = "golden pictures give probabilities" if real_nodes else "at 20 percent of the traffic: golden requests get other probabilities"
    place.deploy("v1", **knative)
    with pytest.raises(RolloutError, match=rf"{found}.* serves again"):
        place.deploy("wrong", **knative)
    service = place.service()
    assert service is not None
    assert place.served() == "v1"
    assert "canaryTrafficPercent" not in service["spec"]["predictor"]
    assert place.ledger() == [("deployed", "v1", "v1"), ("failed", "wrong", "v1"), ("rolled_back", "v1", "v1")]


def test_a_canary_that_never_starts_never_gets_traffic(place: Place, knative: dict[str, object]) -> None:
    place.deploy("v1", **knative)
    with pytest.raises(RolloutError, match=r"(ErrImagePull|ImagePullBackOff).* serves again"):
        place.deploy("v2", runtime=place.runtime("no-image", bad.NO_IMAGE), **knative)
    assert place.served() == "v1"


def test_a_canary_without_room_ends_at_its_time_with_the_reason(place: Place, knative: dict[str, object]) -> None:
    place.deploy("v1", **knative)
    runtime = place.runtime("gpu", bad.NEEDS_GPU)
    with pytest.raises(RolloutError, match=r"not served after .*Insufficient nvidia.com/gpu.* serves again"):
        place.deploy("v2", runtime=runtime, timeout_seconds=12.0, **knative)
    assert place.served() == "v1"
    assert place.ledger()[1:] == [("failed", "v2", "v1"), ("rolled_back", "v1", "v1")]


def test_in_standard_mode_a_service_of_its_own_is_tried_and_taken_away(place: Place) -> None:
    place.deploy("v1", settle_seconds=0)
    assert place.deploy("v2", canary=True, settle_seconds=0) == "deployed"
    assert any(line.startswith("digits-canary: 1 of 1 new pods serve") for line in place.said)
    assert place.service("digits-canary") is None
    before = place.service()
    assert before is not None
    with pytest.raises(RolloutError, match=r"failed as a canary: .*(ErrImagePull|ImagePullBackOff).*; digits was not touched"):
        place.deploy("v3", canary=True, runtime=place.runtime("no-image", bad.NO_IMAGE))
    after = place.service()
    assert after is not None
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert place.service("digits-canary") is None
    assert place.ledger()[-1] == ("failed", "v3", "v2")


def test_golden_requests_go_by_the_address_host_and_token_that_were_set(
    place: Place, administrator: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.deploy("v1", settle_seconds=0)
    with router(administrator, place.namespace, host="digits.example", token="secret") as url:
        with pytest.raises(RolloutError, match=r"answers 404.*an ingress that does not know the service: set serving\.host\).* put back"):
            place.deploy("v2", url=url, settle_seconds=0, timeout_seconds=15)
        with pytest.raises(RolloutError, match=r"answers 401.*\(the service asks for an account: set PENSTOCK_KSERVE_TOKEN"):
            place.deploy("v2", url=url, host="digits.example", settle_seconds=0, timeout_seconds=15)
        monkeypatch.setenv("PENSTOCK_KSERVE_TOKEN", "secret")
        assert place.deploy("v2", url=url, host="digits.example", settle_seconds=0) == "deployed"


def test_a_service_of_its_own_is_never_taken_for_a_canary(place: Place) -> None:
    place.deploy("v1", service="digits-canary", settle_seconds=0)
    with pytest.raises(UsageError, match=r"digits-canary is a service of its own, which serves .*, and not a canary of digits"):
        place.deploy("v2", canary=True, settle_seconds=0)
    assert (place.served("digits-canary"), place.served()) == ("v1", "")
