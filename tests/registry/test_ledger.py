"""The ledger's order, and the written rule of rollback."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.classifier.errors import IntegrityError, LedgerConflict, RegistryError, UsageError, VersionNotFound
from components.registry import Ledger, Record, Registry, rollback
from components.registry.ledger import deployments
from components.registry.publication import publish_directory
from components.storage import Store, open_store
from components.storage.memory import MemoryStore
from tests.registry import bundles


def draft(action: str, version: str, **fields: object) -> Record:
    return Record(action=action, version=version, strategy="rollback" if action == "rolled_back" else "force", **fields)


def test_records_are_numbered_and_carry_the_champion(store: Store) -> None:
    ledger = Ledger(store, "digits")
    assert (ledger.records(), ledger.last(), ledger.champion(), ledger.previous()) == ([], None, None, None)
    for action, version in [("held", "0"), ("deployed", "1"), ("held", "2"), ("deployed", "2"), ("failed", "3")]:
        ledger.append(draft(action, version))
    records = Ledger(store, "digits").records()
    assert [(r.sequence, r.champion, r.previous) for r in records] == [
        (1, "", ""),
        (2, "1", ""),
        (3, "1", "1"),
        (4, "2", "1"),
        (5, "2", "2"),
    ]
    assert all(record.time.endswith("+00:00") for record in records)
    assert (ledger.champion(), ledger.previous()) == ("2", "1")
    assert list(store.names("deployments/digits/")) == [f"{n:06d}.json" for n in range(1, 6)]


def test_a_step_run_again_finds_its_record(store: Store) -> None:
    ledger = Ledger(store, "digits")
    first = ledger.append(draft("deployed", "1", run="run-1", environment="prod"))
    ledger.append(draft("held", "2", run="run-2"))
    assert Ledger(store, "digits").append(draft("deployed", "1", run="run-1", environment="prod", reason="again")) == first
    assert ledger.append(draft("deployed", "1", run="run-1", environment="dev")).sequence == 3
    assert ledger.append(draft("deployed", "1", run="")).sequence == 4
    assert ledger.append(draft("deployed", "1", run="")).sequence == 5


def test_a_decision_that_rests_on_an_old_record_is_refused(store: Store) -> None:
    ledger = Ledger(store, "digits")
    ledger.append(draft("deployed", "1"))
    assert ledger.append(draft("deployed", "2"), after=1).sequence == 2
    with pytest.raises(LedgerConflict, match="appended"):
        ledger.append(draft("deployed", "3"), after=1)


def test_a_gap_or_a_changed_record_is_named() -> None:
    store = MemoryStore()
    ledger = Ledger(store, "digits")
    for version in "123":
        ledger.append(draft("deployed", version))
    store.create("deployments/digits/notes.txt", b"not a record")
    assert len(Ledger(store, "digits").records()) == 3
    kept = store.read("deployments/digits/000002.json")
    store.delete("deployments/digits/000002.json")
    with pytest.raises(RegistryError, match=r"lacks record 000002; restore"):
        Ledger(store, "digits").records()
    store.create("deployments/digits/000002.json", kept[:-20])
    with pytest.raises(RegistryError, match=r"000002\.json is not a ledger record"):
        Ledger(store, "digits").records()
    store.replace("deployments/digits/000002.json", store.read("deployments/digits/000003.json"))
    with pytest.raises(RegistryError, match=r"000002\.json says it is record 3"):
        Ledger(store, "digits").records()


def test_more_than_a_hundred_records_stay_in_order() -> None:
    ledger = Ledger(MemoryStore(), "digits")
    for number in range(120):
        ledger.append(draft("deployed", str(number)))
    assert [record.version for record in ledger.records()] == [str(number) for number in range(120)]


def stack(*events: tuple[str, str]) -> list[str]:
    ledger = Ledger(MemoryStore(), "digits")
    for action, version in events:
        ledger.append(draft(action, version))
    return deployments(ledger.records())


def test_rolling_back_is_undo() -> None:
    good = [("deployed", "1"), ("deployed", "2"), ("failed", "3")]
    assert stack(*good) == ["1", "2"]
    assert stack(*good, ("rolled_back", "1")) == ["1"]
    assert stack(*good, ("rolled_back", "1"), ("deployed", "4")) == ["1", "4"]
    assert stack(*good, ("rolled_back", "1"), ("deployed", "4"), ("rolled_back", "1")) == ["1"]
    assert stack(("deployed", "1"), ("deployed", "2"), ("deployed", "3"), ("rolled_back", "1")) == ["1"]
    assert stack(("deployed", "1"), ("deployed", "2"), ("deployed", "1"), ("rolled_back", "2")) == ["1", "2"]
    assert stack(("deployed", "1"), ("deployed", "2"), ("rolled_back", "1"), ("rolled_back", "2")) == ["1", "2"]
    assert stack(("deployed", "1"), ("deployed", "1")) == ["1"]


@given(st.lists(st.tuples(st.sampled_from(["deployed", "held", "failed", "back"]), st.sampled_from("12345")), max_size=30))
def test_the_top_of_the_stack_is_always_the_champion(events: list[tuple[str, str]]) -> None:
    ledger, model = Ledger(MemoryStore(), "digits"), list[str]()
    for action, version in events:
        if action == "back":
            if (previous := ledger.previous()) is None:
                assert len(model) < 2
                continue
            model.pop()
            assert previous == model[-1]
            ledger.append(draft("rolled_back", previous))
        else:
            ledger.append(draft(action, version))
            if action == "deployed" and model[-1:] != [version]:
                model.append(version)
        assert deployments(ledger.records()) == model
        assert ledger.champion() == (model[-1] if model else None)
        assert ledger.previous() == (model[-2] if len(model) > 1 else None)
    assert all(after.previous == before.champion for before, after in itertools.pairwise(ledger.records()))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(open_store(str(tmp_path / "store")), "digits")


def published(registry: Registry, folder: Path, *names: str) -> list[str]:
    return [publish_directory(registry, bundles.quick(folder / name, name.encode())).version for name in names]


def test_rollback_by_the_written_rule_step_by_step(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="nothing of digits has been deployed"):
        rollback(registry)
    one, two, three, four = published(registry, tmp_path, "1", "2", "3", "4")
    registry.ledger.append(draft("deployed", one, environment="dev"))
    registry.ledger.append(draft("deployed", two, environment="dev"))
    registry.ledger.append(draft("failed", three))
    record = rollback(registry, actor="me", reason="night pictures")
    assert (record.action, record.version, record.champion, record.previous) == ("rolled_back", one, one, two)
    assert (record.actor, record.reason, record.environment, record.strategy) == ("me", "night pictures", "dev", "rollback")
    with pytest.raises(RegistryError, match=f"nothing was deployed before the champion {one}"):
        rollback(registry)
    registry.ledger.append(draft("deployed", four))
    assert rollback(registry).champion == one
    assert rollback(registry, to=three).champion == three
    before = len(registry.ledger.records())
    assert rollback(registry, to=three).sequence == before == len(registry.ledger.records())
    assert rollback(registry, to="previous").champion == one


def test_rollback_never_brings_back_what_is_damaged_or_gone(registry: Registry, tmp_path: Path) -> None:
    one, two = published(registry, tmp_path, "1", "2")
    for version in (one, two):
        registry.ledger.append(draft("deployed", version))
    registry.store.replace(f"models/digits/{one}/file0.bin", b"x")
    with pytest.raises(IntegrityError, match=r"file0\.bin was changed"):
        rollback(registry)
    registry.delete(one)
    with pytest.raises(VersionNotFound, match=one):
        rollback(registry)
    with pytest.raises(VersionNotFound):
        rollback(registry, to="20200101-000000-000000000000")
    assert registry.ledger.champion() == two


def test_a_champion_on_a_cluster_is_left_to_the_deployment_pipeline(registry: Registry, tmp_path: Path) -> None:
    one, two = published(registry, tmp_path, "1", "2")
    for version in (one, two):
        registry.ledger.append(draft("deployed", version, target="kserve"))
    with pytest.raises(UsageError, match=r"serves on kserve; run `penstock submit deployment --host URL --set version=previous .*store="):
        rollback(registry)
    with pytest.raises(UsageError, match=f"--set version={one} --set target=kserve"):
        rollback(registry, to=one)
    assert registry.ledger.champion() == two
