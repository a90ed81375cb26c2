"""Signatures: made at publish with a private key, asked for at load where a public key is configured."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from components.bundle import files
from components.classifier.errors import IntegrityError, RegistryError, UsageError
from components.predictor.loaded_model import load
from components.registry import Ledger, Manifest, Record, Registry, verify_directory
from components.registry.ledger import refuse_downgrade
from components.registry.publication import copy_version, publish_directory
from components.registry.record import complete
from components.storage import Store, open_store
from components.storage.memory import MemoryStore
from tests import tiny
from tests.registry import bundles


def key_pair(folder: Path, name: str, password: bytes | None = None) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection))
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(open_store(str(tmp_path / "store")), "digits")


def test_a_signed_version_is_verified_wherever_it_is_loaded(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = key_pair(tmp_path, "ours", b"word")
    monkeypatch.setenv("PENSTOCK_SIGNING_KEY", str(private))
    monkeypatch.setenv("PENSTOCK_SIGNING_PASSWORD", "word")
    published = publish_directory(registry, bundles.quick(tmp_path / "bundle", b"1"))
    monkeypatch.delenv("PENSTOCK_SIGNING_KEY")
    monkeypatch.setenv("PENSTOCK_VERIFY_KEY", str(public))
    assert registry.get(published.version).manifest.signature is not None
    fetched = registry.fetch(published.version, tmp_path / "fetched")
    assert verify_directory(fetched).version == published.version
    other = Registry(open_store(str(tmp_path / "other")), "digits")
    copy_version(registry, other, published.version)
    assert other.verify(published.version) == []


def model_signing(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """OpenSSF's own tool, which knows nothing of ours."""
    command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_the_tool_of_others_verifies_a_published_version(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (private, public), (_, stranger) = key_pair(tmp_path, "ours"), key_pair(tmp_path, "theirs")
    monkeypatch.setenv("PENSTOCK_SIGNING_KEY", str(private))
    version = publish_directory(registry, bundles.quick(tmp_path / "bundle", b"1")).version
    folder = registry.fetch(version, tmp_path / "fetched")

    def verified(key: Path = public) -> str:
        done = model_signing("verify", "key", folder, "--signature", folder / files.SIGNATURE, "--public_key", key)
        return "" if done.returncode == 0 else (done.stdout + done.stderr).replace("\\", "")

    assert verified() == ""
    assert "failed" in verified(stranger).lower()
    config = folder / files.CONFIG
    kept = config.read_bytes()
    config.write_bytes(kept + b"x")
    assert f"Hash mismatch for '{files.CONFIG}'" in verified()
    config.unlink()
    assert f"Missing files in model 'fetched': {files.CONFIG}" in verified()
    config.write_bytes(kept)
    (folder / "more").write_bytes(b"")
    assert "Extra files found in model 'fetched': more" in verified()
    (folder / "more").unlink()
    (folder / files.SIGNATURE).write_bytes(b"{}")
    assert verified() != ""
    with pytest.raises(IntegrityError, match=rf"{files.SIGNATURE} was changed"):
        verify_directory(folder)


def test_publishing_signed_files_again_or_a_fetched_folder_finds_the_same_version(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsigned = publish_directory(Registry(open_store(str(tmp_path / "unsigned")), "digits"), bundles.quick(tmp_path / "bundle", b"1"))
    private, _ = key_pair(tmp_path, "ours")
    monkeypatch.setenv("PENSTOCK_SIGNING_KEY", str(private))
    published = publish_directory(registry, tmp_path / "bundle")
    assert (published.version, files.SIGNATURE in published.manifest.files) == (unsigned.version, True)
    assert publish_directory(registry, tmp_path / "bundle") == published
    folder = registry.fetch(published.version, tmp_path / "fetched")
    assert publish_directory(registry, folder) == published
    other = Registry(open_store(str(tmp_path / "other")), "digits")
    assert publish_directory(other, folder).version == published.version
    copied = Registry(open_store(str(tmp_path / "copied")), "digits")
    assert copy_version(registry, copied, published.version).manifest == published.manifest
    assert registry.verify(published.version) == copied.verify(published.version) == []


def test_of_two_publishers_at_once_one_signature_is_kept_and_fits(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, _ = key_pair(tmp_path, "ours")
    monkeypatch.setenv("PENSTOCK_SIGNING_KEY", str(private))
    bundle = bundles.quick(tmp_path / "bundle", b"1")
    with ThreadPoolExecutor(4) as pool:
        versions = {it.version for it in pool.map(lambda _: publish_directory(registry, bundle), range(4))}
    (version,) = versions
    assert registry.verify(version) == []


def test_unsigned_foreign_and_forged_versions_are_refused(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (private, public), (_, stranger) = key_pair(tmp_path, "ours"), key_pair(tmp_path, "theirs")
    unsigned = publish_directory(registry, bundles.quick(tmp_path / "one", b"1")).version
    monkeypatch.setenv("PENSTOCK_SIGNING_KEY", str(private))
    signed = publish_directory(registry, bundles.quick(tmp_path / "two", b"2")).version
    folder = registry.fetch(signed, tmp_path / "fetched")
    monkeypatch.setenv("PENSTOCK_VERIFY_KEY", str(public))
    for act in (registry.get, registry.resolve, lambda v: registry.fetch(v, tmp_path / "x")):
        with pytest.raises(IntegrityError, match=f"version {unsigned} of digits is not signed"):
            act(unsigned)
    manifest = Manifest.model_validate_json((folder / files.MANIFEST).read_bytes())
    forged = manifest.model_copy(update={"dataset_digest": "f" * 64}).sealed(manifest.signature)
    (folder / files.MANIFEST).write_bytes(forged.to_bytes())
    with pytest.raises(IntegrityError, match=r"signature of version .* does not fit"):
        verify_directory(folder)
    bundle = dict(manifest.signature or {})
    (folder / files.MANIFEST).write_bytes(manifest.sealed({**bundle, "dsseEnvelope": {}}).to_bytes())
    with pytest.raises(IntegrityError, match="does not fit"):
        verify_directory(folder)
    monkeypatch.setenv("PENSTOCK_VERIFY_KEY", str(stranger))
    with pytest.raises(IntegrityError, match="does not fit the key"):
        registry.get(signed)
    assert "does not fit" in registry.verify(signed)[0]


def test_keys_that_cannot_be_used_are_named_before_anything_is_written(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundles.quick(tmp_path / "bundle", b"1")
    locked, _ = key_pair(tmp_path, "locked", b"word")
    wrong = tmp_path / "wrong.key"
    wrong.write_bytes(
        ed25519.Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    garbage = tmp_path / "garbage.key"
    garbage.write_bytes(b"garbage")
    for key in (tmp_path / "nothing.key", locked, wrong, garbage):
        monkeypatch.setenv("PENSTOCK_SIGNING_KEY", str(key))
        with pytest.raises(UsageError, match=f"PENSTOCK_SIGNING_KEY {key}"):
            publish_directory(registry, bundle)
    monkeypatch.delenv("PENSTOCK_SIGNING_KEY")
    assert list(registry.store.list()) == []
    version = publish_directory(registry, bundle).version
    for key in (tmp_path / "nothing.pub", garbage):
        monkeypatch.setenv("PENSTOCK_VERIFY_KEY", str(key))
        with pytest.raises((UsageError, IntegrityError), match="PENSTOCK_VERIFY_KEY"):
            registry.get(version)


def test_a_key_setting_that_is_empty_is_none(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_SIGNING_KEY", "")
    monkeypatch.setenv("PENSTOCK_VERIFY_KEY", "")
    version = publish_directory(registry, bundles.quick(tmp_path / "bundle", b"1")).version
    assert registry.get(version).manifest.signature is None


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = key_pair(tmp_path, "ours")
    monkeypatch.setenv("PENSTOCK_SIGNING_KEY", str(private))
    monkeypatch.setenv("PENSTOCK_VERIFY_KEY", str(public))


def deployed(version: str) -> Record:
    return Record(action="deployed", version=version, strategy="manual")


def rewritten(store: Store, sequence: int, **fields: object) -> None:
    key = f"deployments/digits/{sequence:06d}.json"
    store.replace(key, json.dumps(json.loads(store.read(key)) | fields).encode())


def test_records_are_signed_and_verified_where_keys_are_configured(keys: None) -> None:
    store = MemoryStore()
    for version in "123":
        Ledger(store, "digits").append(deployed(version))
    assert all(record.signature for record in Ledger(store, "digits").records())
    assert Ledger(store, "digits").champion() == "3"


def forge(store: Store) -> None:
    last = Ledger(store, "digits")
    last._count()
    stored = last.stored(3)
    assert stored is not None
    fields = json.loads(stored.data) | {"sequence": 4, "version": "1", "champion": "1", "previous": "3", "before": stored.digest}
    store.create("deployments/digits/000004.json", json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (lambda store: rewritten(store, 3, champion="1", version="1"), r"signature of .*000003\.json does not fit the key"),
        (lambda store: rewritten(store, 3, signature=None), r"000003\.json is not signed"),
        (forge, r"signature of .*000004\.json does not fit the key"),
        (
            lambda store: store.replace("deployments/digits/000003.json", store.read("deployments/digits/000001.json")),
            "says it is record 1",
        ),
    ],
    ids=["forged", "stripped", "replayed", "renumbered"],
)
def test_a_forged_stripped_or_replayed_record_is_refused(tamper: Callable[[Store], None], told: str, keys: None) -> None:
    store = MemoryStore()
    for version in "123":
        Ledger(store, "digits").append(deployed(version))
    tamper(store)
    for look in (Ledger(store, "digits").champion, Ledger(store, "digits").records):
        with pytest.raises(RegistryError, match=told):
            look()


def test_going_back_needs_a_signed_record(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    for version in "12":
        Ledger(store, "digits").append(deployed(version))
    back = Record(action="rolled_back", version="1", strategy="rollback")
    with monkeypatch.context() as stranger:
        stranger.delenv("PENSTOCK_SIGNING_KEY")
        stranger.delenv("PENSTOCK_VERIFY_KEY")
        with pytest.raises(UsageError, match=r"its records are signed.*set PENSTOCK_SIGNING_KEY"):
            Ledger(store, "digits").append(back)  # it would have to be removed by hand
        stored = complete(back, "digits", Ledger(store, "digits").stored(2))
        store.create("deployments/digits/000003.json", stored.data)
    with pytest.raises(IntegrityError, match=r"000003\.json is not signed"):
        Ledger(store, "digits").champion()
    with pytest.raises(IntegrityError, match=r"000003\.json is not signed"):
        Ledger(store, "digits").append(deployed("3"))  # no signed record may cover it up
    store.delete("deployments/digits/000003.json")
    Ledger(store, "digits").append(back)
    assert Ledger(store, "digits").champion() == "1"


def test_who_verifies_and_cannot_sign_changes_nothing(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_SIGNING_KEY")
    store = MemoryStore()
    with pytest.raises(UsageError, match="set PENSTOCK_SIGNING_KEY"):
        Ledger(store, "digits").append(deployed("1"))
    with pytest.raises(UsageError, match="set PENSTOCK_SIGNING_KEY"):
        Ledger(store, "digits").require_key()
    assert list(store.list()) == []


OLD, NEW = "20260101-030405-aaaaaaaaaaaa", "20260102-030405-bbbbbbbbbbbb"


@pytest.mark.parametrize(
    ("record", "allowed"),
    [
        (Record(action="deployed", version=OLD, champion=OLD, strategy="quality"), False),
        (Record(action="deployed", version=OLD, champion=OLD, strategy="force"), True),
        (Record(action="deployed", version=OLD, champion=OLD, strategy="manual"), True),
        (Record(action="rolled_back", version=OLD, champion=OLD, strategy="rollback"), True),
        (Record(action="deployed", version=OLD, champion=OLD, strategy="manual", schema_version=1), True),
        (None, False),
    ],
)
def test_an_older_version_is_served_only_where_a_person_or_a_rollback_says_so(
    record: Record | None, allowed: bool, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if allowed:
        refuse_downgrade(NEW, OLD, record)
    else:
        with pytest.raises(IntegrityError, match=f"{OLD} was trained before {NEW}"):
            refuse_downgrade(NEW, OLD, record)
    refuse_downgrade(OLD, NEW, None)
    refuse_downgrade("", OLD, None)
    monkeypatch.delenv("PENSTOCK_VERIFY_KEY")
    refuse_downgrade(NEW, OLD, record)


def test_an_unsigned_ledger_is_trusted_from_its_first_signed_record_on(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    with monkeypatch.context() as before:
        before.delenv("PENSTOCK_SIGNING_KEY")
        before.delenv("PENSTOCK_VERIFY_KEY")
        Ledger(store, "digits").append(deployed("1"))
    with pytest.raises(IntegrityError, match="is not signed"):
        Ledger(store, "digits").champion()
    Ledger(store, "digits").append(Record(action="held", version="2", strategy="quality"))
    assert Ledger(store, "digits").champion() == "1"


def test_a_signed_version_of_another_model_is_not_served(
    registry: Registry, keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(registry.store, "letters")
    version = publish_directory(registry, tiny.write_bundle(tmp_path / "bundle", samples=300)).version
    folder = registry.fetch(version, tmp_path / "model")
    with pytest.raises(IntegrityError, match=r"is a version of model 'letters', not of 'digits'.*PENSTOCK_VERIFY_NAME"):
        load("digits", folder, 1)
    assert load("letters", folder, 1).version == version
    monkeypatch.setenv("PENSTOCK_VERIFY_NAME", "letters")
    assert load("digits", folder, 1).name == "digits"
