"""Every region of every file flipped, files added, removed and swapped, the manifest edited: named, refused, never served."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.bundle import files
from components.bundle.config import BundleConfig
from components.classifier.errors import IntegrityError
from components.registry import Manifest, Registry, verify_directory
from components.registry.manifest import parse
from components.registry.publication import publish_directory
from components.storage import open_store
from tests.registry import bundles


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two versions, and one of them fetched."""
    folder = tmp_path_factory.mktemp("intact")
    registry = Registry(open_store(str(folder / "store")), "digits")
    publish_directory(registry, bundles.evaluated(folder / "other", samples=300, trained_at="2025-01-01T00:00:00+00:00"))
    version = publish_directory(registry, bundles.evaluated(folder / "bundle")).version
    registry.fetch(version, folder / "fetched")
    return folder


NAMES = [*files.TRAINED_FILES, files.EVALUATION, files.PREDICTIONS, files.REFERENCE, files.GOLDEN, files.REPORT, files.CARD]


def test_publishing_again_puts_back_what_is_missing_or_was_changed(intact: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(intact / "store", tmp_path / "store"))
    registry = Registry(open_store(str(store)), "digits")
    (version,) = [found for found in registry.newest() if (intact / "fetched" / files.ONNX).read_bytes() == read(registry, found)]
    folder = store / "models" / "digits" / version
    (folder / files.ONNX).write_bytes(b"damaged")
    (folder / files.REPORT).unlink()
    assert len(registry.verify(version)) == 2
    assert publish_directory(registry, intact / "bundle").version == version
    assert registry.verify(version) == []


def read(registry: Registry, version: str) -> bytes:
    return registry.store.read(registry.key(version, files.ONNX))


def test_a_publisher_puts_back_the_card_that_another_one_took_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other failed after this one had found its card, and removed it just before the manifest was there."""
    registry = Registry(open_store(str(tmp_path / "store")), "digits")
    create = registry.store.create

    def taken(key: str, data: bytes) -> None:
        if key.endswith(files.MANIFEST):
            registry.store.delete(key.replace(files.MANIFEST, files.CARD))
            registry.store.delete(key.replace(files.MANIFEST, files.ONNX))
        create(key, data)

    monkeypatch.setattr(registry.store, "create", taken)
    version = publish_directory(registry, bundles.evaluated(tmp_path / "bundle")).version
    assert registry.verify(version) == []


@pytest.mark.parametrize("name", NAMES)
def test_each_region_of_each_file_flipped_is_named(intact: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(intact / "fetched", tmp_path / "fetched"))
    registry = Registry(open_store(str(shutil.copytree(intact / "store", tmp_path / "store"))), "digits")
    version = verify_directory(folder).version
    original = (folder / name).read_bytes()
    for region in range(16):
        position = min(len(original) - 1, region * len(original) // 16)
        damaged = bytearray(original)
        damaged[position] ^= 1 << region % 8
        (folder / name).write_bytes(damaged)
        with pytest.raises(IntegrityError, match=rf": {name} was changed;"):
            verify_directory(folder)
        registry.store.replace(f"models/digits/{version}/{name}", bytes(damaged))
        assert registry.verify(version) == [f"{name} was changed"]
        with pytest.raises(IntegrityError, match=rf"{name} was changed"):
            registry.fetch(version, tmp_path / "served")
        assert not (tmp_path / "served").exists()
    (folder / name).write_bytes(original)
    verify_directory(folder)


def _in_place_of(path: Path) -> Path:
    path.unlink()
    return path


CHANGES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "added": (lambda folder, _: (folder / "extra.bin").write_bytes(b""), r"extra\.bin does not belong"),
    "added in a folder": (lambda folder, _: ((folder / "sub").mkdir(), (folder / "sub" / "x").write_bytes(b"")), "sub/x does not belong"),
    "hidden": (lambda folder, _: (folder / ".hidden").write_bytes(b""), r"\.hidden does not belong"),
    "removed": (lambda folder, _: (folder / files.GOLDEN).unlink(), r"golden\.npz is missing"),
    "cut": (lambda folder, _: (folder / files.ONNX).write_bytes(b""), r"model\.onnx was changed \(0 bytes"),
    "a folder in its place": (lambda folder, _: _in_place_of(folder / files.REPORT).mkdir(), r"report\.html is missing"),
    "swapped": (lambda folder, other: shutil.copy(other / files.ONNX, folder), r"model\.onnx was changed"),
    "two files exchanged": (
        lambda folder, _: (
            (folder / "x").write_bytes((folder / files.ONNX).read_bytes()), shutil.copy(folder / files.WEIGHTS, folder / files.ONNX),
            (folder / "x").rename(folder / files.WEIGHTS),
        ),
        r"model\.onnx was changed.*model\.safetensors was changed",
    ),
    "a dangling link": (lambda folder, _: _in_place_of(folder / files.REPORT).symlink_to("no"), r"report\.html is missing"),
    "no manifest": (lambda folder, _: (folder / files.MANIFEST).unlink(), r"manifest\.json cannot be read"),
    "an empty manifest": (lambda folder, _: (folder / files.MANIFEST).write_bytes(b""), r"manifest\.json is not what this release writes"),
    "the manifest of another version": (lambda folder, other: shutil.copy(other / files.MANIFEST, folder), "was changed|is not version"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_files_added_removed_and_swapped_are_named(intact: Path, tmp_path: Path, what: str) -> None:
    folder = Path(shutil.copytree(intact / "fetched", tmp_path / "fetched"))
    registry = Registry(open_store(str(intact / "store")), "digits")
    other = registry.fetch(min(registry.newest()), tmp_path / "other")
    change, says = CHANGES[what]
    change(folder, other)
    with pytest.raises(IntegrityError, match=says):
        verify_directory(folder)


def edits(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """One edit for each field, and a few that fit together as a forger would make them."""
    changed = {field: {**manifest, field: _other(value)} for field, value in manifest.items()}
    changed["a file less"] = {**manifest, "files": {k: v for k, v in manifest["files"].items() if k != files.REPORT}}
    changed["a digest"] = json.loads(json.dumps(manifest).replace(manifest["files"][files.ONNX]["sha256"], "0" * 64))
    changed["an unknown field"] = {**manifest, "note": "hello"}
    changed["a field less"] = {k: v for k, v in manifest.items() if k != "run"}
    return changed


def _other(value: Any) -> Any:
    return {int: 2, str: f"{value}0", list: ["x", "y"], dict: {}, type(None): {"signed": "by me"}}[type(value)]


def test_an_edited_manifest_is_refused_in_store_and_folder(intact: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(intact / "fetched", tmp_path / "fetched"))
    registry = Registry(open_store(str(shutil.copytree(intact / "store", tmp_path / "store"))), "digits")
    manifest = json.loads((folder / files.MANIFEST).read_bytes())
    version = manifest["version"]
    cases = edits(manifest)
    assert len(cases) > 15
    for what, edited in cases.items():
        if what == "signature":
            continue  # an unasked-for signature changes nothing that is served; where a key is configured it is checked
        (folder / files.MANIFEST).write_text(json.dumps(edited))
        with pytest.raises(IntegrityError, match=r"manifest\.json"):
            verify_directory(folder)
        registry.store.replace(f"models/digits/{version}/{files.MANIFEST}", json.dumps(edited).encode())
        for act in (registry.get, registry.resolve, lambda v: registry.fetch(v, tmp_path / "served")):
            with pytest.raises(IntegrityError, match=r"manifest\.json"):
                act(version)
        assert len(registry.verify(version)) == 1
        assert not (tmp_path / "served").exists()


def test_a_forger_who_fits_checksum_and_files_is_found_by_the_versions_name(intact: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(intact / "fetched", tmp_path / "fetched"))
    manifest = Manifest.model_validate_json((folder / files.MANIFEST).read_bytes())
    forged = manifest.model_copy(update={"files": {k: v for k, v in manifest.files.items() if k != files.REPORT}}).sealed()
    (folder / files.REPORT).unlink()
    (folder / files.MANIFEST).write_bytes(forged.to_bytes())
    with pytest.raises(IntegrityError, match="its files' digests make another"):
        verify_directory(folder)


def test_a_whole_version_under_another_name_is_refused(intact: Path, tmp_path: Path) -> None:
    registry = Registry(open_store(str(shutil.copytree(intact / "store", tmp_path / "store"))), "digits")
    old, new = sorted(registry.newest())
    shutil.rmtree(tmp_path / "store" / "models" / "digits" / new)
    shutil.copytree(tmp_path / "store" / "models" / "digits" / old, tmp_path / "store" / "models" / "digits" / new)
    with pytest.raises(IntegrityError, match=f"belongs to version {old}"):
        registry.get(new)


def test_a_manifest_of_a_later_release_is_told_as_such(intact: Path, tmp_path: Path) -> None:
    registry = Registry(open_store(str(intact / "store")), "digits")
    manifest = registry.get(min(registry.newest())).manifest
    later = manifest.model_copy(update={"schema_version": 2}).sealed()
    with pytest.raises(IntegrityError, match="schema version 2, this release reads 1; use the release that wrote it"):
        parse(later.to_bytes(), "manifest.json")
    more = json.dumps(manifest.model_dump(mode="json") | {"licence": "MIT"}).encode()
    with pytest.raises(IntegrityError, match=r"licence: .*; use the release that wrote it: this one does not know licence"):
        parse(more, "manifest.json")
    with pytest.raises(IntegrityError, match="publish the model version again"):
        parse(more.replace(b'"architecture"', b'"architectura"'), "manifest.json")
    config = json.loads((intact / "fetched" / files.CONFIG).read_text()) | {"licence": "MIT"}
    (tmp_path / files.CONFIG).write_text(json.dumps(config))
    with pytest.raises(IntegrityError, match="use the release that wrote it: this one does not know licence"):
        BundleConfig.load(tmp_path)


def test_a_version_of_another_model_is_refused(intact: Path, tmp_path: Path) -> None:
    shutil.copytree(intact / "store" / "models" / "digits", tmp_path / "store" / "models" / "letters")
    letters = Registry(open_store(str(tmp_path / "store")), "letters")
    (version, *_) = letters.newest()
    for act in (letters.get, letters.resolve, lambda version: letters.fetch(version, tmp_path / "fetched")):
        with pytest.raises(IntegrityError, match=f"belongs to version {version} of digits"):
            act(version)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_flipped_byte_of_a_manifest_changes_what_it_says(intact: Path, data: st.DataObject) -> None:
    raw = (intact / "fetched" / files.MANIFEST).read_bytes()
    position = data.draw(st.integers(0, len(raw) - 1))
    byte = data.draw(st.integers(0, 255))
    damaged = raw[:position] + bytes([byte]) + raw[position + 1 :]
    try:
        read = parse(damaged, "here")
    except IntegrityError as refused:
        read, said = None, str(refused)
    assert read == parse(raw, "here") if read else ("here" in said and "\n" not in said)


@given(st.binary(max_size=300))
def test_what_is_no_manifest_is_an_integrity_error(raw: bytes) -> None:
    with pytest.raises(IntegrityError):
        parse(raw, "here")
