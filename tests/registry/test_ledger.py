"""The ledger's order, and the written rule of rollback."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.classifier.errors import LedgerConflict, RegistryError
from components.registry import Ledger, Record
from components.registry.ledger import champion_of, deployments
from components.storage import Store, optimistic
from components.storage.memory import MemoryStore


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


def test_a_decision_is_made_anew_when_another_writer_was_first(store: Store) -> None:
    ledger, other = Ledger(store, "digits"), Ledger(store, "digits")
    seen = []

    def decide(records: list[Record]) -> Record | None:
        seen.append(champion_of(records))
        if len(seen) < 3:
            other.append(draft("deployed", str(len(seen))))
        return None if champion_of(records) == "none" else draft("deployed", f"after {champion_of(records)}")

    record = ledger.append_if(decide)
    assert record is not None
    assert (record.sequence, record.version, seen) == (3, "after 2", ["", "1", "2"])
    assert ledger.append_if(lambda _: None) is None
    assert len(ledger.records()) == 3


def test_a_writer_who_is_never_first_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimistic, "MAX_ATTEMPTS", 3)
    ledger, other = Ledger(MemoryStore.named("crowded"), "digits"), Ledger(MemoryStore.named("crowded"), "digits")

    def overtaken(records: list[Record]) -> Record:
        other.append(draft("held", str(len(records))))
        return draft("deployed", "1")

    with pytest.raises(LedgerConflict, match="others append to memory://crowded/deployments/digits/ all the time; try again later"):
        ledger.append_if(overtaken)
    assert [record.action for record in ledger.records()] == ["held"] * 3


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
