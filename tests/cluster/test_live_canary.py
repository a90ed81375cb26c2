"""A version is judged on live requests: by a share of the traffic where it is split, and by a shadow where it is not."""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from components.classifier.errors import InferenceError, RolloutError
from components.inference_client import InferenceClient
from tests.cluster.place import Place
from tests.cluster.router import router
from tests.cluster.test_canary import install_knative

PREDICTOR = "import sys; from components.predictor.__main__ import main; sys.exit(main(sys.argv[1:]))"
SLOW = (
    "import time, components.bundle.model as m; real = m.Classifier.answer\n"
    "m.Classifier.answer = lambda self, *a: (time.sleep(0.2), real(self, *a))[1]\n"
)
"""Right answers, as the golden requests see, and late ones."""


def real(place: Place, name: str, before: str = "", **env: str) -> str:
    """A runtime whose predictor is the real one, on a stand-in's node too."""
    variables = [{"name": key, "value": value} for key, value in {"PENSTOCK_THREADS": "1", **env}.items()]
    return place.runtime(name, {"command": ["python3", "-c", before + PREDICTOR], "env": variables})


@contextmanager
def users(url: str) -> Iterator[list[str]]:
    """People who go on sending pictures of noise; yields which version answered each."""
    stop, answered = threading.Event(), list[str]()

    def send(seed: int) -> None:
        rng, client = np.random.default_rng(seed), InferenceClient(url, "digits")
        while not stop.is_set():
            with contextlib.suppress(InferenceError):
                answered.append(client.infer(rng.integers(0, 256, (1, 8, 8, 1), dtype=np.uint8)).version)
            stop.wait(0.02)

    threads = [threading.Thread(target=send, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def gateway(place: Place, real_kserve: bool) -> Iterator[str]:
    if real_kserve:
        pytest.skip("requests go by the stand-in's router, which plays the gateway and the cluster's names")
    with router(place.api, place.namespace) as url:
        yield url


def test_where_traffic_is_split_versions_are_compared_on_what_users_send(place: Place, gateway: str) -> None:
    install_knative(place.api)
    knative = {"mode": "Knative", "url": gateway, "canary_steps": [50], "canary_requests": 50, "settle_seconds": 0}
    place.deploy("v1", runtime=real(place, "real"), **knative)
    with users(gateway) as answered:
        assert place.deploy("v2", runtime="real", **knative) == "deployed"
        told = next(line for line in place.said if line.endswith("it is not worse"))
        assert "live requests, 0 failed" in told
        answered.clear()
        with pytest.raises(RolloutError, match=r"on live requests: .* answers are slow.* serves again"):
            place.deploy("v3", runtime=real(place, "slow", SLOW), **knative)
        assert {place.versions["v2"], place.versions["v3"]} <= set(answered), "users met it for a while"
    assert place.served() == "v2"
    assert place.ledger()[-2:] == [("failed", "v3", "v2"), ("rolled_back", "v2", "v2")]


def test_where_it_is_not_the_shadow_is_the_canary(place: Place, gateway: str) -> None:
    standard = {
        "settle_seconds": 0,
        "canary": True,
        "canary_requests": 50,
        "shadow_share": 1.0,
        "runtime": real(place, "real", PENSTOCK_SHADOW_URL=gateway),
    }
    place.deploy("v1", **{**standard, "shadow_share": 0.0, "canary_requests": 0, "canary": False})
    with users(gateway) as answered:
        assert place.deploy("v2", **standard) == "deployed"
        assert any("copies no requests, since it was deployed without serving.shadow_share" in line for line in place.said)
        answered.clear()
        assert place.deploy("v3", **standard) == "deployed"
        told = next(line for line in place.said if line.endswith("it is not worse"))
        assert "pictures alike" in told
        answered.clear()
        with pytest.raises(
            RolloutError, match=r"failed as a canary: on live requests: .*agree on .* of \d+ pictures, 99.9% are asked for.*was not touched"
        ):
            place.deploy("v1", canary_agreement=0.999, **standard)
        assert set(answered) == {place.versions["v3"]}, "users never met it"
    assert place.served() == "v3"
    assert place.service("digits-canary") is None
    assert place.ledger()[-1] == ("failed", "v1", "v3")


def test_without_users_a_live_canary_is_undone_with_what_was_missing(place: Place, gateway: str) -> None:
    standard = {
        "settle_seconds": 0,
        "canary": True,
        "canary_requests": 50,
        "shadow_share": 1.0,
        "runtime": real(place, "real", PENSTOCK_SHADOW_URL=gateway),
    }
    place.deploy("v1", **standard)
    with pytest.raises(RolloutError, match=r"only 0 live requests came to it and 0 to the champion in 3 s, and 50 of each were to be seen"):
        place.deploy("v2", canary_seconds=3.0, **standard)
    assert place.served() == "v1"
