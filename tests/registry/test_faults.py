"""A store behind a network that breaks: bounded time, no false conflict, no half version."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.classifier.errors import StoreUnavailable
from components.registry import Record, Registry, verify_directory
from components.registry.publication import publish_directory
from components.storage import open_store
from tests.registry import bundles
from tests.storage.fixtures import new_address, use
from tests.storage.proxy import FAULTS, Fault, FaultProxy, faults
from tests.storage.servers import Server

pytestmark = pytest.mark.integration


@pytest.fixture
def proxy(ministack_server: Server, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Iterator[FaultProxy]:
    use(ministack_server, monkeypatch)
    with faults(ministack_server.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        yield running


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Small files, and one that goes up in parts."""
    directory = bundles.quick(tmp_path / "bundle", b"0123456789" * 100)
    (directory / "large.bin").write_bytes(os.urandom(18 << 20))
    return directory


@pytest.mark.parametrize("fault", FAULTS)
def test_many_a_broken_request_changes_nothing(
    proxy: FaultProxy, bundle: Path, tmp_path: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    if waits := "stall" in fault or fault == "drip":  # each stall costs the time that the store waits for an answer
        monkeypatch.setenv("PENSTOCK_S3_TIMEOUT_S", "2")
    every = 8 if waits else 3
    proxy.plan = lambda n, *_: fault if n % every == 2 else None
    address = new_address()
    registry = Registry(open_store(address), "digits")
    published = publish_directory(registry, bundle)
    numbers = [registry.ledger.append(Record(action="deployed", version=published.version, strategy="force")).sequence for _ in range(5)]
    verify_directory(registry.fetch(published.version, tmp_path / "fetched"))
    proxy.plan = lambda *_: None
    again = Registry(open_store(address), "digits")
    assert numbers == [1, 2, 3, 4, 5] == [record.sequence for record in again.ledger.records()]
    assert sorted(again.newest()) == [published.version]
    assert again.verify(published.version) == []
    assert sum(broken is not None for _, _, broken in proxy.requests) >= 4


@pytest.mark.parametrize("fault", ["lost", "500 after", "stall after", "truncate"])
def test_a_success_whose_answer_is_lost_is_no_conflict(proxy: FaultProxy, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    if "stall" in fault:
        monkeypatch.setenv("PENSTOCK_S3_TIMEOUT_S", "2")
    store = open_store(new_address())
    store.create("warm", b"")
    broken: list[int] = []

    def once(n: int, method: str, path: str) -> Fault | None:
        if method == "PUT" and not broken:
            broken.append(n)
            return fault
        return None

    for number in range(3):
        proxy.plan = once
        broken.clear()
        store.create(f"record{number}", b"the same bytes")
        assert broken
    proxy.plan = lambda *_: None
    ledger = Registry(store, "digits").ledger
    for number in range(1, 4):
        proxy.plan = once
        broken.clear()
        assert ledger.append(Record(action="deployed", version="v", strategy="force")).sequence == number
    assert len(ledger.records()) == 3


@pytest.mark.parametrize("fault", ["500", "503", "stall", "truncate", "reset", "lost"])
def test_a_store_that_never_recovers_ends_in_bounded_time(
    proxy: FaultProxy, bundle: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = new_address()
    Registry(open_store(address), "digits").store.create("warm", b"")
    proxy.plan = lambda *_: fault
    registry = _impatient(address, monkeypatch, "2")
    start = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        publish_directory(registry, bundle)
    assert "\n" not in str(caught.value)
    assert proxy.endpoint in str(caught.value)
    with pytest.raises(StoreUnavailable):
        registry.ledger.append(Record(action="deployed", version="v", strategy="force"))
    assert time.monotonic() - start < 30
    proxy.plan = lambda *_: None
    healthy = Registry(open_store(address), "digits")
    assert healthy.ledger.append(Record(action="deployed", version="v", strategy="force")).sequence == len(healthy.ledger.records())
    version = publish_directory(healthy, bundle).version
    assert healthy.verify(version) == []


@pytest.mark.parametrize("at", range(1, 24, 4))
def test_a_connection_that_dies_for_good_at_any_request_converges(
    proxy: FaultProxy, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = new_address()
    bundle = bundles.quick(tmp_path / "bundle", b"0123456789")
    impatient = _impatient(address, monkeypatch, "1")
    proxy.plan = lambda n, *_: "lost" if n >= at else None
    complete = True
    try:
        publish_directory(impatient, bundle)
    except StoreUnavailable:
        complete = False
    proxy.plan = lambda *_: None
    registry = Registry(open_store(address), "digits")
    seen = sorted(registry.newest())
    assert [registry.verify(version) for version in seen] == [[]] * len(seen)
    assert seen or not complete
    version = publish_directory(registry, bundle).version
    assert sorted(registry.newest()) == [version]
    assert registry.verify(version) == []


def _impatient(address: str, monkeypatch: pytest.MonkeyPatch, seconds: str) -> Registry:
    """A registry that gives up after `seconds`; those that are opened after it wait as long as ever."""
    with monkeypatch.context() as only:
        only.setenv("PENSTOCK_S3_DEADLINE_S", seconds)
        only.setenv("PENSTOCK_S3_TIMEOUT_S", "0.7")
        return Registry(open_store(address), "digits")
