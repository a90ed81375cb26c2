"""SIGKILL at every step of publishing: no reader ever sees a part of a version, and publishing again converges."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.registry import Registry, verify_directory
from components.registry.publication import publish_directory
from components.storage import open_store
from tests.registry import bundles, workers


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def stores(*names: str) -> pytest.MarkDecorator:
    emulated = pytest.mark.release if "rgw" in names else pytest.mark.integration
    marks = {"local": (), "ministack": emulated, "rgw": (pytest.mark.integration, pytest.mark.xdist_group("rgw"))}
    return pytest.mark.parametrize("kind", [pytest.param(name, marks=marks[name]) for name in names], indirect=True)


def each_step(address: str, bundle: Path, every: int) -> Iterator[tuple[int, str]]:
    """Kill publish at its first, second, … step, each time in a store of its own, until it has no more steps."""
    for step in itertools.count(1, every):
        store = f"{address}-{step}"
        code = workers.run(workers.publish_and_die, store, str(bundle), step)
        yield step, store
        if code == 0:
            return
        assert code == -9


@stores("local", "ministack", "rgw")
def test_a_killed_publish_leaves_no_part_and_converges(address: str, kind: str, tmp_path: Path) -> None:
    bundle = bundles.quick(tmp_path / "bundle", b"0123456789" * 1000)
    expected = publish_directory(Registry(open_store(f"{address}-unbroken"), "digits"), bundle).version
    killed = 0
    for step, store in each_step(address, bundle, every=1 if kind == "local" else 2):
        registry = Registry(open_store(store), "digits")
        for version in registry.newest():
            assert registry.verify(version) == []
            verify_directory(registry.fetch(version, tmp_path / f"seen{step}"))
        assert publish_directory(registry, bundle, run="again").version == expected
        assert registry.verify(expected) == []
        assert list(registry.newest()) == [expected]
        verify_directory(registry.fetch(expected, tmp_path / f"after{step}"))
        killed += 1
    assert killed >= 20


@stores("local", "ministack")
def test_a_killed_append_is_there_once_or_not_and_its_run_finds_it(address: str, kind: str) -> None:
    for step in itertools.count(1):
        store = f"{address}-{step}"
        code = workers.run(workers.append_and_die, store, step)
        ledger = Registry(open_store(store), "digits").ledger
        assert len(ledger.records()) <= 1
        assert workers.run(workers.append_and_die, store, 0) == 0
        assert [(record.sequence, record.run) for record in Registry(open_store(store), "digits").ledger.records()] == [(1, "the run")]
        if code == 0:
            break
    assert step > 5
