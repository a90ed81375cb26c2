"""Publishing, fetching, resolving, deleting and copying versions, over every store."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from components.bundle import files
from components.classifier.errors import (
    DataError,
    IntegrityError,
    RegistryError,
    StoreError,
    StoreUnavailable,
    StoreUnsuitable,
    UsageError,
    VersionNotFound,
)
from components.registry import Manifest, Record, Registry, differences, verify_directory
from components.registry.publication import copy_version, publish_directory
from components.storage import Store, open_store
from components.storage.local import LocalStore
from components.storage.store import Progress
from tests.registry import bundles


@pytest.fixture
def registry(store: Store) -> Registry:
    return Registry(store, "digits")


def deploy(registry: Registry, version: str) -> Record:
    return registry.ledger.append(Record(action="deployed", version=version, strategy="force"))


def test_a_version_is_what_was_published(registry: Registry, tmp_path: Path) -> None:
    bundle = bundles.evaluated(tmp_path / "bundle")
    published = publish_directory(registry, bundle, run="run-1")
    assert re.fullmatch(r"20260102-030405-[0-9a-f]{12}", published.version)
    assert published.uri == f"{registry.store.url}/models/digits/{published.version}/"
    manifest = registry.get(published.version).manifest
    assert manifest == published.manifest
    for path in bundle.iterdir():
        assert manifest.files[path.name].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert manifest.files[path.name].size == path.stat().st_size
    assert set(manifest.files) == {path.name for path in bundle.iterdir()} | {files.CARD}
    assert (manifest.name, manifest.run, manifest.architecture, manifest.code_version) == ("digits", "run-1", "logistic", "test")
    assert manifest.parameters == {"samples": 1200, "seed": 0}
    assert manifest.metrics == {
        "accuracy": bundles.EVALUATION["accuracy"]["value"],
        "balanced_accuracy": 0.957, "macro_f1": 0.9568, "log_loss": 0.1502, "ece": 0.0123
    }  # fmt: skip
    assert sorted(registry.newest()) == [published.version]
    assert registry.verify(published.version) == []


def test_the_same_files_again_are_the_same_version_and_change_nothing(registry: Registry, tmp_path: Path) -> None:
    bundle = bundles.evaluated(tmp_path / "bundle")
    first = publish_directory(registry, bundle, run="run-1")
    assert publish_directory(registry, bundle, run="run-2") == first
    fetched = registry.fetch(first.version, tmp_path / "fetched")
    assert publish_directory(registry, fetched, run="run-3") == first
    (bundle / ".DS_Store").write_bytes(b"x")
    assert publish_directory(registry, bundle) == first
    assert len(list(registry.store.list("models/"))) == len(first.manifest.files) + 1


def test_fetching_gives_the_files_and_their_manifest(registry: Registry, tmp_path: Path) -> None:
    bundle = bundles.evaluated(tmp_path / "bundle")
    published = publish_directory(registry, bundle)
    fetched = registry.fetch(published.version, tmp_path / "deep" / "fetched")
    for path in bundle.iterdir():
        assert (fetched / path.name).read_bytes() == path.read_bytes()
    assert verify_directory(fetched) == published.manifest
    assert registry.fetch(published.version, fetched) == fetched
    (tmp_path / "empty").mkdir()
    some = registry.fetch(published.version, tmp_path / "empty", files=[files.CONFIG])
    assert sorted(path.name for path in some.iterdir()) == [files.CONFIG, files.MANIFEST]
    with pytest.raises(UsageError, match="not empty"):
        registry.fetch(published.version, bundle)
    with pytest.raises(RegistryError, match=r"no file \['nothing'\]"):
        registry.fetch(published.version, tmp_path / "other", files=["nothing"])
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "store") == ["bundle", "deep", "empty"]


def test_damage_in_the_store_is_named_and_nothing_of_it_is_left(registry: Registry, tmp_path: Path) -> None:
    published = publish_directory(registry, bundles.evaluated(tmp_path / "bundle"))
    folder = f"models/digits/{published.version}/"
    weights = registry.store.read(folder + files.WEIGHTS)
    registry.store.replace(folder + files.WEIGHTS, weights[:-1] + bytes([weights[-1] ^ 1]))
    registry.store.replace(folder + files.ONNX, b"swapped")
    registry.store.delete(folder + files.GOLDEN)
    registry.store.create(folder + "extra.pkl", b"")
    problems = registry.verify(published.version)
    assert [problem.split()[0] for problem in problems] == [files.GOLDEN, "extra.pkl", files.ONNX, files.WEIGHTS]
    with pytest.raises(IntegrityError, match=rf"{files.GOLDEN} is missing; extra\.pkl .*{files.ONNX} was changed"):
        registry.fetch(published.version, tmp_path / "fetched")
    registry.store.replace(folder + files.ONNX, (tmp_path / "bundle" / files.ONNX).read_bytes())
    registry.store.create(folder + files.GOLDEN, (tmp_path / "bundle" / files.GOLDEN).read_bytes())
    registry.store.delete(folder + "extra.pkl")
    with pytest.raises(IntegrityError, match=rf"{files.WEIGHTS} was changed"):
        registry.fetch(published.version, tmp_path / "fetched")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "store") == ["bundle"]


def test_what_has_no_manifest_is_no_version(registry: Registry, tmp_path: Path) -> None:
    published = publish_directory(registry, bundles.quick(tmp_path / "bundle", b"1"))
    partial = "20260101-000000-000000000000"
    registry.store.create(f"models/digits/{partial}/model.onnx", b"half")
    registry.store.create("models/other/20260101-000000-000000000000/manifest.json", b"{}")
    assert list(registry.newest()) == [published.version]
    for act in (registry.get, registry.resolve, registry.verify, lambda v: registry.fetch(v, tmp_path / "x")):
        with pytest.raises(VersionNotFound, match=f"there is {published.version}"):
            act(partial)
    registry.delete(partial)
    assert list(registry.store.names("models/digits/")) == [published.version]


def test_versions_come_in_the_order_of_training(registry: Registry, tmp_path: Path) -> None:
    times = ["2026-03-01T00:00:00Z", "2025-12-31T23:59:59", "2026-03-01T01:30:00+02:00"]
    named = [publish_directory(registry, bundles.quick(tmp_path / str(k), b"x", trained_at=time)).version for k, time in enumerate(times)]
    assert [version[:15] for version in named] == ["20260301-000000", "20251231-235959", "20260228-233000"]
    assert list(registry.newest()) == sorted(named, reverse=True)


def test_champion_and_previous_are_resolved_by_the_ledger(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(VersionNotFound, match="there are none yet"):
        registry.resolve("champion")
    one, two = (publish_directory(registry, bundles.quick(tmp_path / name, name.encode())).version for name in ("a", "b"))
    with pytest.raises(VersionNotFound, match="nothing has been deployed yet"):
        registry.resolve("champion")
    deploy(registry, one)
    with pytest.raises(VersionNotFound, match="nothing was deployed before"):
        registry.resolve("previous")
    deploy(registry, two)
    assert (registry.resolve("champion"), registry.resolve("previous"), registry.resolve(one)) == (two, one, one)
    for wrong in ("latest", "", "../digits", f"{one}/", one[:-1]):
        with pytest.raises(VersionNotFound):
            registry.resolve(wrong)


def test_the_champion_is_never_deleted(registry: Registry, tmp_path: Path) -> None:
    one, two = (publish_directory(registry, bundles.quick(tmp_path / name, name.encode())).version for name in ("a", "b"))
    deploy(registry, one)
    with pytest.raises(RegistryError, match=f"{one} of digits is the champion"):
        registry.delete(one)
    assert registry.verify(one) == []
    registry.delete(two)
    assert sorted(registry.newest()) == [one]
    assert list(registry.store.list(f"models/digits/{two}/")) == []
    with pytest.raises(VersionNotFound):
        registry.delete(two)
    assert publish_directory(registry, tmp_path / "b").version == two


def test_a_version_deployed_while_it_is_deleted_is_kept(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = publish_directory(registry, bundles.quick(tmp_path / "a", b"a")).version
    delete = registry.store.delete
    other = Registry(registry.store, "digits")

    def deployed_meanwhile(key: str) -> None:
        delete(key)
        deploy(other, version)
        monkeypatch.setattr(registry.store, "delete", delete)

    monkeypatch.setattr(registry.store, "delete", deployed_meanwhile)
    with pytest.raises(RegistryError, match="is the champion"):
        registry.delete(version)
    assert registry.verify(version) == []


def test_two_that_fetch_a_version_into_one_folder_at_once_both_have_it(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish_directory(registry, bundles.quick(tmp_path / "a", b"a")).version
    fetch_file = registry.fetch_file

    def other_first(manifest: Manifest, name: str, destination: Path) -> bool:
        Registry(registry.store, "digits").fetch(version, tmp_path / "cache" / version)
        return fetch_file(manifest, name, destination)

    monkeypatch.setattr(registry, "fetch_file", other_first)
    assert registry.fetch(version, tmp_path / "cache" / version) == tmp_path / "cache" / version
    assert verify_directory(tmp_path / "cache" / version).version == version
    assert [folder.name for folder in (tmp_path / "cache").iterdir()] == [version]


@pytest.mark.parametrize("deletions", [1, 3])
def test_a_version_that_is_published_while_it_is_deleted_is_whole_or_gone(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deletions: int
) -> None:
    bundle = bundles.quick(tmp_path / "a", b"a")
    version = publish_directory(registry, bundle).version
    delete, left = registry.store.delete, deletions

    def published_meanwhile(key: str) -> None:
        nonlocal left
        delete(key)
        left -= 1
        if not left:
            publish_directory(Registry(registry.store, "digits"), bundle)

    monkeypatch.setattr(registry.store, "delete", published_meanwhile)
    registry.delete(version)
    assert registry.find(version) is None
    assert registry.sizes(version) == {}


def test_a_version_that_is_deleted_while_it_is_published_again_is_published(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundles.quick(tmp_path / "a", b"a")
    version = publish_directory(registry, bundle).version
    sizes = registry.sizes

    def deleted_meanwhile(version: str) -> dict[str, int]:
        monkeypatch.setattr(registry, "sizes", sizes)
        Registry(registry.store, "digits").delete(version)
        return sizes(version)

    monkeypatch.setattr(registry, "sizes", deleted_meanwhile)
    assert publish_directory(registry, bundle).version == version
    assert registry.verify(version) == []


def test_a_version_that_is_deleted_while_it_is_copied_there_is_whole_in_the_end(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish_directory(registry, bundles.quick(tmp_path / "a", b"a")).version
    target = Registry(LocalStore(tmp_path / "target"), "digits")
    create = target.store.create

    def deleted_before(key: str, data: bytes) -> None:
        if key.endswith(files.MANIFEST):
            Registry(target.store, "digits").delete(version)
        create(key, data)

    monkeypatch.setattr(target.store, "create", deleted_before)
    copy_version(registry, target, version)
    assert target.verify(version) == []


@pytest.mark.parametrize("complete", [True, False])
def test_a_failed_publish_takes_its_files_back_unless_another_one_completed_the_version(tmp_path: Path, complete: bool) -> None:
    bundle = bundles.quick(tmp_path / "bundle", b"a")
    registry = Registry(LocalStore(tmp_path / "store"), "digits")

    class FullAtTheEnd(LocalStore):
        def create(self, key: str, data: bytes) -> None:
            if key.endswith(files.MANIFEST):
                if complete:
                    publish_directory(registry, bundle)
                raise StoreError("the disk is full")
            super().create(key, data)

    with pytest.raises(StoreError, match="the disk is full"):
        publish_directory(Registry(FullAtTheEnd(tmp_path / "store"), "digits"), bundle)
    assert [registry.verify(version) for version in registry.newest()] == ([[]] if complete else [])
    assert complete or list(registry.store.list()) == []


class Failing(LocalStore):
    """A store in a directory that fails when a manifest is written."""

    error: StoreError

    def create(self, key: str, data: bytes) -> None:
        if key.endswith(files.MANIFEST):
            raise self.error
        super().create(key, data)


def test_what_arrived_before_the_store_was_lost_is_kept_whatever_fails_next(tmp_path: Path) -> None:
    bundle, store = bundles.quick(tmp_path / "bundle", b"a"), Failing(tmp_path / "store")
    for store.error in (StoreUnavailable("no answer"), StoreError("the disk is full")):
        with pytest.raises(type(store.error), match=str(store.error)):
            publish_directory(Registry(store, "digits"), bundle)
        assert {Path(entry.key).name for entry in store.list()} == {path.name for path in bundle.iterdir()} | {files.CARD}
    registry = Registry(LocalStore(tmp_path / "store"), "digits")
    assert registry.verify(publish_directory(registry, bundle).version) == []


def test_files_that_another_publisher_took_back_at_the_last_moment_are_written_again(tmp_path: Path) -> None:
    class TakenBack(LocalStore):
        def create(self, key: str, data: bytes) -> None:
            super().create(key, data)
            if key.endswith(files.MANIFEST):
                self.delete(key.replace(files.MANIFEST, "file0.bin"))

    registry = Registry(TakenBack(tmp_path / "store"), "digits")
    assert registry.verify(publish_directory(registry, bundles.quick(tmp_path / "bundle", b"a")).version) == []


def test_a_file_that_arrives_cut_is_not_published(tmp_path: Path) -> None:
    class Cutting(LocalStore):
        def upload(self, source: Path, key: str, progress: Progress | None = None) -> None:
            self.replace(key, source.read_bytes()[:-1])

    registry = Registry(Cutting(tmp_path / "store"), "digits")
    with pytest.raises(IntegrityError, match=r"file0.bin was changed \(0 bytes instead of 1\)"):
        publish_directory(registry, bundles.quick(tmp_path / "bundle", b"a"))
    assert list(registry.newest()) == []


def test_a_store_that_could_overwrite_is_refused_before_anything_is_uploaded(tmp_path: Path) -> None:
    class Overwriting(LocalStore):
        def require_create_only(self) -> None:
            raise StoreUnsuitable("this server overwrites")

        def upload(self, source: Path, key: str, progress: Progress | None = None) -> None:
            pytest.fail("a long upload in vain")

    with pytest.raises(StoreUnsuitable, match="this server overwrites"):
        publish_directory(Registry(Overwriting(tmp_path / "store"), "digits"), bundles.quick(tmp_path / "bundle", b"a"))


def test_copies_are_equal_and_go_on_where_they_broke_off(registry: Registry, kind: str, tmp_path: Path) -> None:
    published = publish_directory(registry, bundles.evaluated(tmp_path / "bundle"))
    other = Registry(open_store(str(tmp_path / "other")), "digits")
    folder = f"models/digits/{published.version}/"
    kept = other.store.root / folder / files.ONNX
    other.store.replace(folder + files.ONNX, (tmp_path / "bundle" / files.ONNX).read_bytes())
    other.store.replace(folder + files.WEIGHTS, b"the half of it")
    written = kept.stat().st_mtime_ns
    moved: list[int] = []
    copied = copy_version(registry, other, published.version, moved.append)
    assert (copied.version, copied.manifest) == (published.version, published.manifest)
    assert other.verify(copied.version) == []
    assert kept.stat().st_mtime_ns == written
    assert sum(moved) == sum(entry.size for entry in published.manifest.files.values())
    assert copy_version(registry, other, published.version).manifest == published.manifest
    back = Registry(open_store(registry.store.url + "-back" if kind != "memory" else "memory://back"), "digits")
    assert copy_version(other, back, published.version).manifest == published.manifest
    assert back.verify(published.version) == []


def test_a_damaged_version_is_not_copied(registry: Registry, tmp_path: Path) -> None:
    version = publish_directory(registry, bundles.evaluated(tmp_path / "bundle")).version
    registry.store.replace(f"models/digits/{version}/{files.REPORT}", b"<p>RePort")
    other = Registry(open_store(str(tmp_path / "other")), "digits")
    with pytest.raises(IntegrityError, match=files.REPORT):
        copy_version(registry, other, version)
    assert list(other.newest()) == []
    with pytest.raises(UsageError, match="another store"):
        copy_version(registry, registry, version)


def test_what_is_no_bundle_is_refused_before_anything_is_written(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(IntegrityError, match=r"config\.json"):
        publish_directory(registry, tmp_path / "empty")
    bundle = bundles.quick(tmp_path / "bundle", b"1")
    (bundle / "folder").mkdir()
    with pytest.raises(DataError, match="'folder'"):
        publish_directory(registry, bundle)
    (bundle / "folder").rmdir()
    (bundle / files.EVALUATION).write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        publish_directory(registry, bundle)
    bundles.quick(tmp_path / "time", b"1", trained_at="yesterday")
    with pytest.raises(DataError, match="'yesterday'"):
        publish_directory(registry, tmp_path / "time")
    assert list(registry.store.list()) == []


@pytest.mark.parametrize("name", ["", "..", "a/b", "-a", "a b", "Digits", "a_b", "1a", "x" * 64])
def test_model_names_that_cannot_be_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot name an InferenceService"):
        Registry(open_store("memory://names"), name)


def test_the_card_has_the_evaluations_numbers_and_no_markup_from_outside(tmp_path: Path) -> None:
    registry = Registry(open_store(str(tmp_path / "store")), "digits")
    version = publish_directory(registry, bundles.evaluated(tmp_path / "bundle", classes=[f"<b>{n}|*" for n in range(10)])).version
    card = registry.store.read(f"models/digits/{version}/{files.CARD}").decode()
    assert card.startswith(f"# digits {version}\n")
    for wanted in (
        "0.9572",
        "0.9324 to 0.9731",
        "0.9568",
        "0.0123",
        "397 pictures",
        r"a\|b | 40 | - | 1.000 | 0.500",
        "8.1% of 8 were taken for 1",
    ):
        assert wanted in card, wanted
    assert "<b>" not in card
    assert "1,200" not in card
    assert "| samples | 1200 |" in card


def test_a_card_of_ones_own_is_kept(tmp_path: Path) -> None:
    registry = Registry(open_store(str(tmp_path / "store")), "digits")
    bundle = bundles.quick(tmp_path / "bundle", b"1")
    (bundle / files.CARD).write_text("# Mine\n")
    version = publish_directory(registry, bundle).version
    assert registry.store.read(f"models/digits/{version}/{files.CARD}") == b"# Mine\n"
    (bundle / files.CARD).write_text("# Mine, with a word changed\n")
    assert publish_directory(registry, bundle).version == version
    assert registry.verify(version) == []


@pytest.mark.parametrize(
    "evaluation",
    [{}, [], None, {"accuracy": None}, {"accuracy": "0.9"}, {"accuracy": {"value": float("nan")}}, {"per_class": "no"},
     {"per_class": [1, {}]},     {"n": True}, {"accuracy": {"value": 10**400}}],
)  # fmt: skip
def test_parts_that_an_evaluation_lacks_are_left_out(tmp_path: Path, evaluation: object) -> None:
    bundle = bundles.quick(tmp_path / "bundle", b"1")
    (bundle / files.EVALUATION).write_text(json.dumps(evaluation))
    published = publish_directory(Registry(open_store(str(tmp_path / "store")), "digits"), bundle)
    assert published.manifest.metrics == {}
    json.dumps(published.manifest.model_dump(mode="json"), allow_nan=False)


def test_differences_are_named_by_section(tmp_path: Path) -> None:
    registry = Registry(open_store(str(tmp_path / "store")), "digits")
    a = publish_directory(registry, bundles.evaluated(tmp_path / "a", samples=600)).manifest
    b = publish_directory(registry, bundles.evaluated(tmp_path / "b", samples=1200, trained_at="2026-02-02T00:00:00+00:00")).manifest
    found = {(d.section, d.field): (d.first, d.second) for d in differences(a, b)}
    assert found["parameters", "samples"] == (600, 1200)
    assert ("files", files.ONNX) in found
    assert ("files", files.EVALUATION) not in found
    assert differences(a, a) == []
    variant = {"kind": "int8", "parents": [{"version": a.version, "sha256": a.content_digest}], "how": "weights rounded"}
    (made,) = differences(a, a.model_copy(update={"parameters": {**a.parameters, "variant": variant}}))
    assert (made.section, made.field, made.first, made.second) == ("origin", "made as", None, f"int8 of {a.version}: weights rounded")
