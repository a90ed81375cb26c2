"""The ledger's order, and the written rule of rollback."""

import hashlib
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.classifier.errors import IntegrityError, LedgerConflict, RegistryError, StoreUnavailable
from components.registry import Ledger, Record
from components.registry.ledger import champion_of, deployments
from components.storage import Store
from components.storage import store as stores
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
    monkeypatch.setattr(stores, "MAX_ATTEMPTS", 3)
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


def path(sequence: int) -> str:
    return f"deployments/digits/{sequence:06d}.json"


def change(store: Store, sequence: int, /, **fields: object) -> None:
    """Change fields of a record in the store; None takes one away."""
    changed = json.loads(store.read(path(sequence))) | fields
    store.replace(path(sequence), json.dumps({name: value for name, value in changed.items() if value is not None}).encode())


@pytest.fixture
def three() -> MemoryStore:
    store = MemoryStore()
    for version in "123":
        Ledger(store, "digits").append(draft("deployed", version))
    return store


@pytest.mark.parametrize("field", ["champion", "sequence", "previous", "time", "id", "action", "version", "strategy"])
def test_a_record_without_what_every_record_says_is_an_error_and_no_default(three: MemoryStore, field: str) -> None:
    change(three, 3, **{field: None})
    with pytest.raises(RegistryError, match=f"it does not say {field}, as every record must"):
        Ledger(three, "digits").champion()


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"champion": ""}, "it is deployed, but names no champion"),
        ({"action": "held", "champion": "9"}, "it is held, but changes the champion"),
        ({"champion": 3}, "champion: Input should be a valid string"),
        ({"schema_version": 0}, "schema_version: Input should be greater than or equal to 1"),
    ],
)
def test_a_record_that_cannot_be_is_an_error(three: MemoryStore, fields: dict[str, object], cause: str) -> None:
    change(three, 3, **fields)
    with pytest.raises(RegistryError, match=rf"000003\.json is not a ledger record \({cause}"):
        Ledger(three, "digits").champion()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"approval": {"by": "ann"}}, r"has fields that are not known here \(approval\): it has schema_version 2.*which wrote it"),
        ({"schema_version": 3, "release": "0.9.0"}, r"is of a newer schema: it has schema_version 3.*use release 0\.9\.0, which wrote it"),
        ({"schema_version": 3, "release": None}, "reads up to 2; use the release that wrote it"),
        ({"action": "awaiting", "approval": 1, "schema_version": 7, "release": "2.0"}, r"\(approval\).* use release 2\.0"),
    ],
)
def test_a_record_of_a_newer_release_names_that_release(three: MemoryStore, fields: dict[str, object], told: str) -> None:
    change(three, 3, **fields)
    with pytest.raises(RegistryError, match=told) as raised:
        Ledger(three, "digits").champion()
    assert "backup" not in str(raised.value)


def test_each_record_holds_the_digest_of_the_one_before_it(three: MemoryStore) -> None:
    records = Ledger(three, "digits").records()
    assert [record.before for record in records] == ["", *(hashlib.sha256(three.read(path(n))).hexdigest() for n in (1, 2))]
    assert {(record.schema_version, record.model) for record in records} == {(2, "digits")}


@pytest.mark.parametrize("sequence", [1, 2])
def test_a_replaced_record_is_found_by_the_one_after_it(three: MemoryStore, sequence: int) -> None:
    change(three, sequence, reason="forged")
    with pytest.raises(IntegrityError, match=rf"{sequence + 1:06d}\.json does not follow the record before it"):
        Ledger(three, "digits").records()
    with pytest.raises(IntegrityError):
        Ledger(three, "digits").append_if(lambda records: draft("deployed", "4"))


def test_who_saw_the_last_record_notices_that_it_is_gone_or_replaced(three: MemoryStore) -> None:
    watching = Ledger(three, "digits")
    assert watching.champion() == "3"
    kept = three.read(path(3))
    three.delete(path(3))
    for look in (watching.champion, Ledger(three, "digits", watching.head).records, lambda: watching.append(draft("deployed", "4"))):
        with pytest.raises(IntegrityError, match=r"000003\.json was the last record and is gone"):
            look()
    assert Ledger(three, "digits").append(draft("deployed", "4")).sequence == 3
    with pytest.raises(IntegrityError, match=r"000003\.json was replaced by another record"):
        watching.champion()
    three.replace(path(3), kept)
    assert watching.champion() == "3"


def test_a_store_that_lost_all_it_held_is_not_there_and_not_tampered_with(three: MemoryStore) -> None:
    watching = Ledger(three, "digits")
    assert watching.champion() == "3"
    three.create("models/digits/1/manifest.json", b"{}")
    for sequence in (1, 2, 3):
        three.delete(path(sequence))
    with pytest.raises(IntegrityError, match="is gone"):
        watching.champion()
    three.delete("models/digits/1/manifest.json")
    three.create("reviews/digits/pictures/1.png", b"written since")
    with pytest.raises(StoreUnavailable, match=r"is empty, where deployments/digits/000003\.json was before; mount it again"):
        watching.champion()


def test_a_record_of_another_model_and_one_that_lost_its_chain_are_found(three: MemoryStore) -> None:
    for sequence in (1, 2, 3):
        three.create(path(sequence).replace("digits", "letters"), three.read(path(sequence)))
    with pytest.raises(IntegrityError, match="is a record of model 'digits'"):
        Ledger(three, "letters").champion()
    change(three, 3, schema_version=None, before=None)
    with pytest.raises(IntegrityError, match="does not hold the digest of the record before it, although that one does"):
        Ledger(three, "digits").champion()


def test_the_chain_begins_at_the_first_new_record_of_an_old_ledger(three: MemoryStore) -> None:
    for sequence in (1, 2, 3):
        change(three, sequence, schema_version=None, before=None, model=None, release=None, signature=None)
    assert Ledger(three, "digits").append(draft("deployed", "4")).before == hashlib.sha256(three.read(path(3))).hexdigest()
    assert Ledger(three, "digits").previous() == "3"
    change(three, 3, reason="forged")
    with pytest.raises(IntegrityError, match=r"000004\.json does not follow"):
        Ledger(three, "digits").champion()
