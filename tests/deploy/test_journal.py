"""What a killed rollout leaves to go back to: nobody without the key has a spec of their own applied by it."""

import json
from pathlib import Path

import pytest

from components.classifier.errors import IntegrityError, RegistryError
from components.deploy.kserve.journal import Journal
from components.registry import Registry
from components.storage import Store
from components.storage.memory import MemoryStore
from tests.registry.test_signing import key_pair

STABLE = {"spec": {"predictor": {"model": {"storageUri": "s3://models/digits/v1/"}}}}
EVIL = {"spec": {"predictor": {"containers": [{"name": "kserve-container", "image": "registry.invalid/evil:1"}]}}}


def live(generation: int) -> dict[str, object]:
    return {"metadata": {"uid": "u", "generation": generation}}


def entry(store: Store, generation: int, **changed: object) -> None:
    """Change fields of what is noted for a generation; None takes one away."""
    key = f"rollouts/digits/u-{generation}.json"
    fields = json.loads(store.read(key)) | changed
    store.replace(key, json.dumps({name: value for name, value in fields.items() if value is not None}).encode())


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def journal(store: MemoryStore) -> Journal:
    return Journal(Registry(store, "digits"))


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = key_pair(tmp_path, "ours")
    monkeypatch.setenv("PENSTOCK_SIGNING_KEY", str(private))
    monkeypatch.setenv("PENSTOCK_VERIFY_KEY", str(public))


def test_what_is_noted_is_found_by_the_generation_that_it_precedes(journal: Journal) -> None:
    journal.write(live(1), STABLE, "run-1")
    journal.write(live(1), EVIL, "run-2")  # the first one written is right
    assert (journal.known(live(1)), journal.known(live(2))) == (False, True)
    assert (journal.stable(live(2)), journal.run_of(live(2))) == (STABLE, "run-1")
    journal.write(live(7), None)
    assert (journal.stable(live(8)), journal.run_of(live(8))) == (None, "")


def test_with_a_key_only_what_was_signed_for_that_generation_is_gone_back_to(journal: Journal, store: MemoryStore, keys: None) -> None:
    journal.write(live(1), STABLE, "run-1")
    journal.write(live(1), STABLE, "run-1")
    assert (journal.stable(live(2)), journal.run_of(live(2))) == (STABLE, "run-1")
    kept = store.read("rollouts/digits/u-2.json")
    for changed, told in (
        ({"stable": EVIL}, "does not fit the key"),
        ({"run": "run-2"}, "does not fit the key"),
        ({"signature": None}, "is not signed"),
    ):
        entry(store, 2, **changed)
        for look in (journal.stable, journal.run_of):
            with pytest.raises(IntegrityError, match=rf"u-2\.json {told}") as raised:
                look(live(2))
            assert "delete it, then deploy the version that should serve" in str(raised.value)
        store.replace("rollouts/digits/u-2.json", kept)
    store.create("rollouts/digits/u-3.json", kept)
    with pytest.raises(IntegrityError, match=r"u-3\.json does not fit the key"):
        journal.stable(live(3))


def test_with_a_key_a_foreign_entry_stops_a_rollout_before_its_apply(journal: Journal, store: MemoryStore, keys: None) -> None:
    store.create("rollouts/digits/u-2.json", json.dumps({"stable": EVIL, "run": ""}).encode())
    with pytest.raises(IntegrityError, match=r"u-2\.json is not signed"):
        journal.write(live(1), STABLE, "run-1")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"run": "1"}'])
def test_an_entry_that_cannot_be_read_is_named(journal: Journal, store: MemoryStore, data: bytes) -> None:
    store.create("rollouts/digits/u-2.json", data)
    with pytest.raises(RegistryError, match=r"u-2\.json cannot be read; delete it"):
        journal.stable(live(2))


def test_what_releases_before_signatures_noted_is_read(journal: Journal, store: MemoryStore) -> None:
    store.create("rollouts/digits/u-2.json", json.dumps({"stable": STABLE}).encode())
    assert (journal.stable(live(2)), journal.run_of(live(2))) == (STABLE, "")
