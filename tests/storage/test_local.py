"""A full disk, a read-only one, missing rights and odd file systems: one clear error, nothing left behind."""

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from components.classifier.errors import AccessDenied, ObjectExists, ObjectNotFound, StoreError, StoreUnsuitable
from components.registry import Record, Registry
from components.registry.publication import publish_directory
from components.storage import Store, open_store
from components.storage.local import LocalStore
from components.storage.memory import MemoryStore
from tests.registry import bundles, workers

root_only = pytest.mark.skipif(os.getuid() != 0, reason="mounting and changing users needs root")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "penstock-test", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@root_only
def test_a_full_disk_is_told_and_keeps_nothing_of_the_version(small_disk: Path, tmp_path: Path) -> None:
    registry = Registry(open_store(str(small_disk / "store")), "digits")
    small = publish_directory(registry, bundles.quick(tmp_path / "small", b"1")).version
    before = everything(small_disk)
    bundle = bundles.quick(tmp_path / "bundle", b"0123456789" * 50_000)
    with pytest.raises(StoreError, match="the disk is full; free space"):
        publish_directory(registry, bundle)
    assert list(registry.newest()) == [small]
    assert everything(small_disk) == before
    assert registry.verify(small) == []
    for act in (lambda s: s.create("big", bytes(2 << 20)), lambda s: s.replace("big", bytes(2 << 20))):
        with pytest.raises(StoreError, match="disk is full"):
            act(registry.store)
    assert not registry.store.exists("big")
    with pytest.raises(StoreError, match=f"cannot write {small_disk}.*disk is full"):
        Registry(MemoryStoreWith(tmp_path / "bundle"), "digits").fetch(MemoryStoreWith.version, small_disk / "fetched")
    assert everything(small_disk) == before


class MemoryStoreWith(MemoryStore):
    """A store with one large version."""

    version = ""

    def __init__(self, bundle: Path) -> None:
        super().__init__()
        MemoryStoreWith.version = publish_directory(Registry(self, "digits"), bundle).version


@root_only
def test_a_read_only_disk_is_told(small_disk: Path, tmp_path: Path) -> None:
    registry = Registry(open_store(str(small_disk / "store")), "digits")
    version = publish_directory(registry, bundles.quick(tmp_path / "one", b"1")).version
    registry.ledger.append(Record(action="deployed", version=version, strategy="force"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    other = bundles.quick(tmp_path / "two", b"2")
    for act in (
        lambda: publish_directory(registry, other),
        lambda: registry.ledger.append(Record(action="held", version=version, strategy="force")),
        lambda: registry.store.delete("deployments/digits/000001.json"),
    ):
        with pytest.raises(StoreError, match="read-only; mount it writable"):
            act()
    assert registry.resolve("champion") == version
    assert publish_directory(registry, tmp_path / "one").version == version


@root_only
def test_missing_rights_are_told_and_never_look_like_an_empty_store() -> None:
    # Not below tmp_path: only root may enter pytest's folder, and each pytest that starts makes that so again.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        store, bundle = folder / "store", bundles.quick(folder / "one", b"1")
        publish_directory(Registry(open_store(str(store)), "digits"), bundle)
        store.chmod(0o700)
        assert workers.run(_as_nobody, str(store), str(bundle)) == 0
        store.chmod(0o755)
        assert workers.run(_as_nobody_reading, str(store), str(bundle)) == 0
        assert everything(store / ".tmp") == []


def _as_nobody(address: str, bundle: str) -> None:
    os.setuid(65534)
    registry = Registry(open_store(address), "digits")
    for act in (
        lambda: publish_directory(registry, Path(bundle)),
        lambda: list(registry.newest()),
        lambda: registry.ledger.champion(),
        lambda: registry.store.exists("a"),
        lambda: registry.store.read("a"),
    ):
        with pytest.raises(AccessDenied, match="permission denied for user 65534"):
            act()


def _as_nobody_reading(address: str, bundle: str) -> None:
    os.setuid(65534)
    registry = Registry(open_store(address), "digits")
    (version,) = registry.newest()
    assert registry.verify(version) == []
    assert publish_directory(registry, Path(bundle)).version == version
    for act in (
        lambda: registry.ledger.append(Record(action="held", version=version, strategy="force")),
        lambda: registry.delete(version),
        lambda: registry.store.replace("a", b""),
    ):
        with pytest.raises(AccessDenied, match="permission denied for user 65534"):
            act()
    assert registry.verify(version) == []


def test_a_file_where_the_store_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="a part of the path is a file"):
        open_store(str(tmp_path / "file")).create("a/b", b"")


def test_the_home_of_a_user_who_is_not_there_is_a_folder_of_that_name() -> None:
    assert LocalStore(Path("~nobody-of-this-name/store")).root.name == "store"


def test_a_file_system_without_links_is_unsuitable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)  # no such file system can be mounted here
    with pytest.raises(StoreUnsuitable, match="no hard links"):
        open_store(str(tmp_path)).create("a", b"")
    assert everything(tmp_path) == []


def test_an_object_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, Path]] = []

    def noted(name: str, what: Callable[..., Path]) -> None:
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *arguments: (done.append((name, what(*arguments))), real(*arguments))[1])

    noted("fsync", lambda handle: Path(f"/proc/self/fd/{handle}").readlink())
    noted("link", lambda temporary, _: temporary)
    open_store(str(tmp_path / "store")).create("folder/a", b"1")
    (synced, temporary), (linked, source), (synced_too, folder) = done
    assert (synced, linked, synced_too) == ("fsync", "link", "fsync")
    assert (temporary, folder) == (source, tmp_path / "store" / "folder")


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    store.create("a", b"")
    store.replace("b", b"")
    store.upload(tmp_path / "store" / "a", "c")
    umask = os.umask(0)
    os.umask(umask)
    assert {(tmp_path / "store" / name).stat().st_mode & 0o777 for name in "abc"} == {0o666 & ~umask}


def test_what_a_killed_process_left_goes_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, now = tmp_path / "store" / ".tmp", time.time()
    folder.mkdir(parents=True)
    (folder / "left").write_bytes(b"half")
    assert list(open_store(str(tmp_path / "store")).names()) == [] == list(open_store(str(tmp_path / "store")).list())
    for hours, left in ((23, ["left"]), (25, [])):
        monkeypatch.setattr("components.storage.local.time", SimpleNamespace(time=lambda late=hours * 3600: now + late))
        open_store(str(tmp_path / "store")).replace("a", b"")
        assert everything(folder) == left


def test_an_old_object_that_another_writer_is_copying_does_not_count_as_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path))
    store.create("old", b"1")
    os.utime(tmp_path / "old", (time.time() - 25 * 3600,) * 2)
    replace = os.replace

    def after_another_writer(temporary: Path, path: Path) -> None:
        open_store(str(tmp_path)).create("b", b"2")
        replace(temporary, path)

    monkeypatch.setattr(os, "replace", after_another_writer)
    store.copy("old", "a")
    assert store.read("a") == b"1"


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}", " {}\n"])
def test_addresses_of_a_directory(form: str, tmp_path: Path) -> None:
    store = open_store(form.format(tmp_path / "store"))
    assert isinstance(store, LocalStore)
    store.create("a", b"1")
    assert (tmp_path / "store" / "a").read_bytes() == b"1"
    assert open_store(store.url).read("a") == b"1"


def test_relative_addresses_and_percent_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_store("a%20b").create("x", b"")
    open_store(f"file://{tmp_path}/c%20d").create("x", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a%20b", "c d"]


def test_deleting_writing_and_reading_in_one_folder_at_once(tmp_path: Path) -> None:
    store, stop = open_store(str(tmp_path)), threading.Event()

    def meanwhile(act: Callable[[], object]) -> None:
        while not stop.is_set():
            act()

    def read() -> None:
        with suppress(ObjectNotFound):
            assert store.read("folder/sub/a") == b"1"

    def look() -> None:
        assert all(entry.size == 1 for entry in store.list("folder/"))
        assert set(store.names("folder/")) <= {"sub"}

    with ThreadPoolExecutor() as pool:
        others = [pool.submit(meanwhile, act) for act in (lambda: store.delete("folder/sub/a"), read, look)]
        try:
            for number in range(100):
                store.create(f"folder/sub/{number}", b"1")
                store.replace("folder/sub/a", b"1")
                store.delete(f"folder/sub/{number}")
        finally:
            stop.set()
        for other in others:
            other.result()


@pytest.mark.parametrize("key", ["a/b", "a/b/c"])
def test_an_object_cannot_lie_below_another(key: str, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.create("a", b"1")
    for write in (store.create, store.replace):
        with pytest.raises(StoreError, match=f"cannot write '{key}' .*: a part of the path is a file, not a directory"):
            write(key, b"2")
    assert everything(tmp_path) == ["a"]


def test_a_dangling_link_where_a_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder").symlink_to("nowhere")
    with pytest.raises(StoreError, match="a part of the path is a file, not a directory"):
        open_store(str(tmp_path)).create("folder/a", b"1")


KEYS = st.lists(st.sampled_from(["a", "b", "a-b", "é", "%2F", ".x"]), min_size=1, max_size=3).map("/".join)


class TwoStores(RuleBasedStateMachine):
    """Whatever is done, the store in a directory and the one in memory say the same."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"penstock-{os.getpid()}-{id(self)}"
        self.stores: tuple[Store, Store] = (LocalStore(self.folder), MemoryStore())

    def both(self, act: object) -> None:
        results = []
        for store in self.stores:
            try:
                results.append(act(store))
            except (ObjectExists, ObjectNotFound) as error:
                results.append(type(error))
        assert results[0] == results[1]

    def fits(self, key: str) -> bool:
        """Whether a directory can hold it beside the others: not below a file, nor where a folder is."""
        taken = [entry.key for entry in self.stores[1].list()]
        return not any(other != key and (other.startswith(f"{key}/") or key.startswith(f"{other}/")) for other in taken)

    @rule(key=KEYS, data=st.binary(min_size=1, max_size=3), replace=st.booleans())
    def write(self, key: str, data: bytes, replace: bool) -> None:
        if self.fits(key):
            self.both(lambda store: (store.replace if replace else store.create)(key, data))

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.both(lambda store: store.delete(key))

    @rule(key=KEYS)
    def read(self, key: str) -> None:
        self.both(lambda store: (store.exists(key), store.read(key)))

    @rule(prefix=st.one_of(KEYS, KEYS.map("{}/".format)))
    def look(self, prefix: str) -> None:
        self.both(lambda store: list(store.list(prefix)))

    @rule(folder=KEYS.map("{}/".format))
    def names(self, folder: str) -> None:
        self.both(lambda store: list(store.names(folder)))

    @invariant()
    def hold_the_same(self) -> None:
        self.both(lambda store: (list(store.list()), list(store.names())))

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


TwoStores.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestTwoStores = TwoStores.TestCase


@given(st.lists(st.tuples(KEYS, st.integers(0, 1)), max_size=12, unique_by=lambda entry: entry[0]))
def test_folder_objects_are_dropped_and_nothing_else(entries: list[tuple[str, int]]) -> None:
    store = MemoryStore()
    for key, size in entries:
        store.replace(key, b"x" * size)
    keys = {key for key, _ in entries}
    markers = {key for key, size in entries if size == 0 and any(other.startswith(f"{key}/") for other in keys)}
    assert [entry.key for entry in store.list()] == sorted(keys - markers)
