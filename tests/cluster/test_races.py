"""Two deployers at once: one wins, the other is told so, and what is served is the last record."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from components.classifier.errors import RolloutConflict
from components.deploy.kserve.rollout import deploy_kserve
from components.registry import Registry
from tests.cluster.place import Place

ROUNDS = int(os.environ.get("CLUSTER_TESTS_ROUNDS", "5"))


def test_of_two_deployers_one_wins_and_the_other_gets_a_conflict(place: Place) -> None:
    place.deploy("v1", settle_seconds=0)
    now = "v1"
    for turn in range(ROUNDS):
        others = [short for short in ("v1", "v2", "v3") if short != now]
        start = threading.Barrier(2)

        def go(short: str, turn: int = turn, start: threading.Barrier = start) -> str:
            own = Registry(place.registry.store, "digits")
            request = place.request(short, run=f"{turn}-{short}", settle_seconds=1.0)
            start.wait()
            try:
                return deploy_kserve(own, request, lambda _: None)
            except RolloutConflict as error:
                return str(error)

        before = len(place.ledger())
        with ThreadPoolExecutor(2) as pool:
            results = dict(zip(others, pool.map(go, others), strict=True))
        winners = [short for short, result in results.items() if result == "deployed"]
        assert len(winners) == 1, results
        (loser,) = set(others) - set(winners)
        assert "another deployer changed digits" in results[loser], results
        assert place.served() == winners[0], results
        assert place.ledger()[before:] == [("deployed", winners[0], winners[0])], results
        now = winners[0]


def test_of_two_first_deployers_one_wins(place: Place) -> None:
    start = threading.Barrier(2)

    def go(short: str) -> str:
        own = Registry(place.registry.store, "digits")
        start.wait()
        try:
            return deploy_kserve(own, place.request(short, settle_seconds=1.0), lambda _: None)
        except RolloutConflict as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        results = dict(zip(("v1", "v2"), pool.map(go, ("v1", "v2")), strict=True))
    assert sorted(result == "deployed" for result in results.values()) == [False, True], results
    (winner,) = [short for short, result in results.items() if result == "deployed"]
    assert place.served() == winner
    assert place.ledger() == [("deployed", winner, winner)]
