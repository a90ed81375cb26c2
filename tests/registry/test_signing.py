"""Signatures: made at publish with a private key, asked for at load where a public key is configured."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from components.bundle import files
from components.classifier.errors import IntegrityError, UsageError
from components.registry import Manifest, Registry, verify_directory
from components.registry.publication import copy_version, publish_directory
from components.storage import open_store
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
