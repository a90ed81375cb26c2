"""One suite over every store: what the interface promises."""

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.classifier.errors import ObjectExists, ObjectNotFound, StoreError
from components.storage import Entry, Store, open_store

ODD_NAMES = [
    "a b.png", "a+b.png", "50%.png", "a%20b.png", "a%2Fb.png", "a#b.png", "a?b=c&d.png", "x=y;z.png", "'quote\".png", "[1]{2}.png",
    "~home.png",
    "back\\slash.png", "star*.png", "Größe.png", "猫.png", "🐈.png", ".hidden", "trailing.", "e\u0301.png", "a:b@c!$,.png", " lead.png",
]  # fmt: skip


def test_what_is_written_is_read(store: Store) -> None:
    store.create("a/b.json", b"one")
    assert store.read("a/b.json") == b"one" == b"".join(store.chunks("a/b.json"))
    store.replace("a/b.json", b"two")
    store.replace("c", b"")
    assert (store.read("a/b.json"), store.read("c")) == (b"two", b"")
    assert store.exists("a/b.json")
    assert not store.exists("a/b")
    assert not store.exists("a")


def test_another_process_opens_it_by_its_address(store: Store, kind: str) -> None:
    store.create("x", b"1")
    assert open_store(store.url).read("x") == b"1"


def test_a_copy_has_the_bytes_and_stays_when_its_source_changes(store: Store) -> None:
    store.replace("from/a+b %.txt", b"one")
    store.replace("to/x", b"before")
    for _ in range(2):
        store.copy("from/a+b %.txt", "to/x")
    store.replace("from/a+b %.txt", b"two")
    assert store.read("to/x") == b"one"
    store.delete("from/a+b %.txt")
    assert [entry.key for entry in store.list()] == ["to/x"]
    for missing in ("from/a+b %.txt", "to"):
        with pytest.raises(ObjectNotFound, match=re.escape(repr(missing))):
            store.copy(missing, "to/y")


def test_a_span_is_a_part_of_an_object(store: Store) -> None:
    store.replace("x", b"0123456789")
    assert [store.span("x", *span) for span in ((0, 3), (3, 4), (8, 9), (2, 0))] == [b"012", b"3456", b"89", b""]
    with pytest.raises(ObjectNotFound):
        store.span("y", 0, 3)


def test_create_refuses_what_is_there_even_when_it_is_the_same(store: Store) -> None:
    store.create("x", b"first")
    for data in (b"first", b"second"):
        with pytest.raises(ObjectExists, match="'x'"):
            store.create("x", data)
    assert store.read("x") == b"first"


def test_of_racing_creators_one_wins(store: Store) -> None:
    def create(number: int) -> bytes | None:
        try:
            store.create("race", str(number).encode())
        except ObjectExists:
            return None
        return str(number).encode()

    with ThreadPoolExecutor(16) as pool:
        winners = [result for result in pool.map(create, range(16)) if result is not None]
    assert winners == [store.read("race")]


def test_what_is_not_there_is_named(store: Store, tmp_path: Path) -> None:
    store.create("a/b", b"")
    for key in ("nothing", "a", "a/b/c"):
        with pytest.raises(ObjectNotFound, match=repr(key)):
            store.read(key)
    with pytest.raises(ObjectNotFound):
        store.download("nothing", tmp_path / "here" / "file")
    assert not any(path.is_file() for path in (tmp_path / "here").rglob("*"))


def test_lists_are_in_order_and_keep_to_their_prefix(store: Store) -> None:
    for key in ("m/b/2", "m/b/1", "m/a-x/1", "m/a/1", "m/z", "n/1", "m-/1"):
        store.create(key, key.encode())
    assert [entry.key for entry in store.list()] == ["m-/1", "m/a-x/1", "m/a/1", "m/b/1", "m/b/2", "m/z", "n/1"]
    assert list(store.list("m/b/")) == [Entry("m/b/1", 5), Entry("m/b/2", 5)]
    assert [entry.key for entry in store.list("m/a")] == ["m/a-x/1", "m/a/1"]
    assert list(store.names()) == ["m", "m-", "n"]
    assert list(store.names("m/")) == ["a", "a-x", "b", "z"]
    assert list(store.names("nothing/")) == [] == list(store.list("nothing/"))


def test_more_keys_than_one_page_holds(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.replace(f"many/{number:04d}/x", b""), range(1100)))
    assert [entry.key for entry in store.list("many/")] == [f"many/{number:04d}/x" for number in range(1100)]
    assert list(store.names("many/")) == [f"{number:04d}" for number in range(1100)]


def test_deleting_takes_one_object_and_asks_no_question(store: Store) -> None:
    store.create("a/1", b"")
    store.create("a/2", b"")
    store.delete("a/1")
    store.delete("a/1")
    store.delete("never/there")
    assert [entry.key for entry in store.list()] == ["a/2"]
    store.delete("a/2")
    assert list(store.names()) == []
    store.create("a/1", b"again")


@pytest.mark.parametrize("size", [0, 1, 20_000_001])
def test_files_of_any_size_go_up_and_come_back(store: Store, tmp_path: Path, size: int) -> None:
    source, moved = tmp_path / "source", []
    source.write_bytes(os.urandom(size))
    store.upload(source, "big/file", moved.append)
    store.download("big/file", tmp_path / "there" / "back")
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in (source, tmp_path / "there" / "back")]
    assert digests[0] == digests[1]
    assert sum(moved) == size
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["back"]


def test_odd_names_come_back_as_they_were(store: Store, tmp_path: Path) -> None:
    keys = sorted(f"{folder}/{name}" for folder in ("a b+c", "50%#?") for name in ODD_NAMES)
    for key in keys:
        store.create(key, key.encode())
    assert [entry.key for entry in store.list()] == keys
    assert list(store.names()) == ["50%#?", "a b+c"]
    assert list(store.names("50%#?/")) == sorted(ODD_NAMES)
    for key in keys:
        assert store.read(key) == key.encode()
        assert store.exists(key)
    store.upload(Path(__file__), "up %+#/?.py")
    store.download("up %+#/?.py", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == Path(__file__).read_bytes()
    for key in [*keys, "up %+#/?.py"]:
        store.delete(key)
    assert list(store.list()) == []


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../../b", "./a", "a/.", "a\0b"])
def test_keys_that_lead_elsewhere_are_refused(store: Store, tmp_path: Path, key: str) -> None:
    for act in (store.read, store.exists, store.delete, lambda k: store.create(k, b""), lambda k: store.replace(k, b"")):
        with pytest.raises(StoreError, match=r"leads outside|empty part"):
            act(key)
    with pytest.raises(StoreError, match=r"leads outside|empty part"):
        store.upload(Path(__file__), key)


def test_readers_see_the_old_or_the_new(store: Store) -> None:
    old, new = b"o" * 300_000, b"n" * 300_000
    store.create("x", old)

    def write(_: int) -> None:
        for _ in range(5):
            store.replace("x", new)
            store.replace("x", old)

    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(write, 0)
        while not writing.done():
            assert store.read("x") in {old, new}
        writing.result()


def test_an_object_larger_than_allowed_is_not_read_whole(store: Store) -> None:
    store.replace("small", b"12345")
    assert store.read("small", 5) == b"12345"
    with pytest.raises(StoreError, match=r"'small' in .* is larger than 4 bytes"):
        store.read("small", 4)
