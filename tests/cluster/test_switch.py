"""On real nodes, through the real Service: no request is lost when one version takes over from another, or when a bad one is undone."""

import threading
import time
from collections import Counter

import pytest

from components.classifier.errors import InferenceError, RolloutError
from components.deploy.kserve.watch import Golden
from components.inference_client import InferenceClient
from tests.cluster import place as bad
from tests.cluster.place import Place


class Users:
    """Some users who ask the Service, one request after another, each on a new connection."""

    def __init__(self, place: Place) -> None:
        service = place.api.find(f"/api/v1/namespaces/{place.namespace}/services/digits-predictor")
        assert service is not None
        self.address = f"http://{service['spec']['clusterIP']}"
        self._images = Golden.of(place.registry, place.versions["v1"]).images
        self._stop = threading.Event()
        self.answers: Counter[str] = Counter()
        self._names = {full: short for short, full in place.versions.items()}
        self._threads = [threading.Thread(target=self._ask) for _ in range(3)]

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                self.answers[self._names[self.ask()]] += 1
            except InferenceError as error:
                self.answers[str(error)] += 1
            time.sleep(0.02)

    def ask(self) -> str:
        """Send one request on a new connection; returns the version that answered."""
        return InferenceClient(self.address, "digits").infer(self._images).version

    def __enter__(self) -> "Users":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def users(place: Place, real_nodes: bool) -> Users:
    if not real_nodes:
        pytest.skip("needs nodes, on which Services answer")
    place.deploy("v1")
    made = Users(place)
    try:
        made.ask()
    except InferenceError as error:
        pytest.skip(f"the cluster's Services cannot be called from here: {error}")
    return made


def test_no_request_is_lost_at_a_switch(place: Place, users: Users) -> None:
    with users:
        place.deploy("v2", url=users.address)
        place.deploy("v3", url=users.address)
        time.sleep(2)
    assert set(users.answers) == {"v1", "v2", "v3"}, users.answers
    assert users.answers.total() > 100


def test_no_request_is_lost_when_a_bad_version_is_undone(place: Place, users: Users) -> None:
    runtime = place.runtime("crashes", bad.CRASHES)
    with users, pytest.raises(RolloutError, match="serves again"):
        place.deploy("v2", runtime=runtime, url=users.address)
    assert set(users.answers) == {"v1"}, users.answers
    assert users.answers.total() > 100
