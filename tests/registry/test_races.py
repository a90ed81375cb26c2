"""Many processes at once: no torn version, no lost or doubled sequence."""

import itertools
from pathlib import Path

import pytest

from components.registry import Registry
from components.storage import open_store
from tests.registry import bundles, workers

pytestmark = pytest.mark.timeout(900)  # sixteen processes on two CPUs
SIZES = [
    pytest.param("local", 4, 5),
    pytest.param("local", 16, 40, marks=pytest.mark.integration),
    pytest.param("ministack", 16, 20, marks=pytest.mark.release),
    pytest.param("rgw", 16, 3, marks=[pytest.mark.integration, pytest.mark.xdist_group("rgw")]),
]
PUBLISHERS = [
    pytest.param("local", 4, 5),
    pytest.param("local", 16, 10, marks=pytest.mark.integration),
    pytest.param("ministack", 16, 5, marks=pytest.mark.release),
    pytest.param("rgw", 16, 2, marks=[pytest.mark.integration, pytest.mark.xdist_group("rgw")]),
]


@pytest.mark.parametrize(("kind", "processes", "rounds"), SIZES)
def test_every_record_gets_its_own_sequence(address: str, processes: int, rounds: int) -> None:
    found = workers.all_at_once(workers.append_in_rounds, processes, processes * rounds, address, rounds)
    ledger = Registry(open_store(address), "digits").ledger
    records = ledger.records()
    assert [record.sequence for record in records] == list(range(1, processes * rounds + 1))
    assert sorted(found) == [(record.sequence, record.version) for record in records]
    assert len({record.version for record in records}) == processes * rounds
    for before, record in itertools.pairwise(records):
        assert record.previous == before.champion


@pytest.mark.parametrize(("kind", "processes", "rounds"), PUBLISHERS)
def test_publishers_of_the_same_and_of_different_content_do_not_mix(address: str, tmp_path: Path, processes: int, rounds: int) -> None:
    for turn in range(rounds):
        bundles.quick(tmp_path / f"same{turn}", b"same%d" % turn * 5000)
        for number in range(processes):
            bundles.quick(tmp_path / f"own{number}-{turn}", b"own%d-%d" % (number, turn) * 500)
    found = workers.all_at_once(workers.publish_in_rounds, processes, processes * rounds, address, str(tmp_path), rounds)
    registry = Registry(open_store(address), "digits")
    assert all(len({same for turn, _, same, _ in found if turn == t}) == 1 for t in range(rounds))
    assert len({own for _, _, _, own in found}) == processes * rounds
    versions = sorted(registry.newest())
    assert len(versions) == rounds * (processes + 1)
    assert [problem for version in versions for problem in registry.verify(version)] == []
