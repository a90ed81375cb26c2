"""The optional signatures of manifests, ledger records and model files, by model-signing with an elliptic-curve key (extra `signing`).

Ours is a Sigstore bundle inside the manifest, over the manifest's canonical bytes: one object is written last, so that a
version is never seen without its signature, and two publishers of the same content cannot mix theirs up. The tools of others
do not know it: for them `model.sig` lies beside the files, a detached signature as OpenSSF Model Signing 1.0 defines it.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic_settings import BaseSettings, SettingsConfigDict

from components.bundle.files import MANIFEST, SIGNATURE
from components.classifier.errors import IntegrityError, UsageError


class SigningSettings(BaseSettings):
    """Which keys are used; read from PENSTOCK_SIGNING_KEY, PENSTOCK_VERIFY_KEY and so on."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_", frozen=True, env_ignore_empty=True)
    signing_key: Path | None = None
    """A private key in PEM form: publish signs with it."""
    signing_password: str | None = None
    """The password of the private key, if it has one."""
    verify_key: Path | None = None
    """A public key in PEM form: only versions and ledger records that it verifies are used."""
    verify_name: str = ""
    """The name of the model whose versions a predictor loads; empty: the name that it serves under."""


def sign(data: bytes) -> dict[str, Any] | None:
    """Sign bytes where a private key is configured; returns the Sigstore bundle, or None without a key.

    Raises UsageError for a key that cannot be used.
    """
    key = SigningSettings().signing_key
    if key is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder, "signed")
        body.write_bytes(data)
        bundle: dict[str, Any] = json.loads(_signed(body, key))
    return bundle


def sign_files(files: Mapping[str, Path], model: str) -> bytes | None:
    """Sign the files of a model, by their names in its folder; returns what `model.sig` holds, or None without a private key.

    The manifest, which is written later, is not among them, and verifiers are told to pass it over. Raises UsageError for a key
    that cannot be used.
    """
    key = SigningSettings().signing_key
    if key is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, model)  # the signature carries the folder's name as the model's
        folder.mkdir()
        for name, path in files.items():
            try:
                (folder / name).hardlink_to(path.resolve())
            except OSError:  # another file system
                shutil.copyfile(path, folder / name)
        return _signed(folder, key)


def _signed(content: Path, key: Path) -> bytes:
    """Sign a file, or the files of a folder."""
    key, password = _readable(key, "PENSTOCK_SIGNING_KEY"), SigningSettings().signing_password
    with tempfile.TemporaryDirectory() as scratch:
        signature = Path(scratch, "signature")
        try:
            signing, hashing = _library().signing, _library().hashing
            config = signing.Config().use_elliptic_key_signer(private_key=key, password=password.encode() if password else None)
            if content.is_dir():
                config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[SIGNATURE, MANIFEST], ignore_git_paths=False))
            config.sign(content, signature)
        except (ValueError, TypeError, AttributeError) as error:  # the last for keys without a curve
            raise UsageError(
                f"PENSTOCK_SIGNING_KEY {key} cannot sign ({error}); give an elliptic-curve private key (P-256, P-384 or P-521) in PEM "
                "form, and its password in PENSTOCK_SIGNING_PASSWORD if it has one"
            ) from error
        return signature.read_bytes()


def require_name(found: str, name: str, about: str) -> None:
    """Raise IntegrityError where a public key is configured and a signed version is of another model than is to be served."""
    settings = SigningSettings()
    wanted = settings.verify_name or name
    if settings.verify_key is not None and found != wanted:
        raise IntegrityError(
            f"{about} is a version of model {found!r}, not of {wanted!r}; serve that model's own version, or set PENSTOCK_VERIFY_NAME to "
            f"{found!r} where the service has another name than its model"
        )


def require_signature(data: bytes, signed: dict[str, Any] | None, about: str) -> None:
    """Check the signature of bytes where a public key is configured; without one, unsigned data is accepted.

    `about` names the data in messages. Raises IntegrityError for data that is unsigned, signed with another key, or changed
    since, and UsageError for a key that cannot be used.
    """
    configured = SigningSettings().verify_key
    if configured is None:
        return
    key = _readable(configured, "PENSTOCK_VERIFY_KEY")
    if signed is None:
        raise IntegrityError(f"{about} is not signed, but PENSTOCK_VERIFY_KEY is set; use what was written with PENSTOCK_SIGNING_KEY")
    with tempfile.TemporaryDirectory() as folder:
        body, signature = Path(folder, "signed"), Path(folder, "signature")
        body.write_bytes(data)
        signature.write_text(json.dumps(signed), "utf-8")
        verifying = _library().verifying
        try:
            verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
        except (ValueError, TypeError, AttributeError) as error:  # the last for keys without a curve
            raise UsageError(f"PENSTOCK_VERIFY_KEY {key} cannot verify ({error}); give an elliptic-curve public key in PEM form") from error
        try:
            verifier.verify(body, signature)
        except Exception as error:  # whatever the library finds wrong with it, the version must not be loaded
            raise IntegrityError(
                f"the signature of {about} does not fit the key {key}: it was changed since, or signed with another key; do not use it, "
                "find out who wrote it"
            ) from error


def verifies() -> bool:
    """Say whether a public key is configured, so that signatures are asked for."""
    return SigningSettings().verify_key is not None


def signs() -> bool:
    """Say whether a private key is configured."""
    return SigningSettings().signing_key is not None


def _library() -> ModuleType:
    try:
        import model_signing
    except ImportError as error:
        raise UsageError(f"signatures need the extra `signing` ({error.name} is missing); run `pip install 'penstock[signing]'`") from error
    return model_signing


def _readable(path: Path, setting: str) -> Path:
    try:
        path.read_bytes()
    except OSError as error:
        raise UsageError(f"{setting} {path} cannot be read ({error.strerror}); name a key in PEM form") from error
    return path
