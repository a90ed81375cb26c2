"""The manifest of a model version: what belongs to it, and the digests by which every reader checks it.

VERSION is `YYYYMMDD-HHMMSS-DIGEST`: the time of training (UTC) and the first 12 hexadecimal digits of the content digest, the
SHA-256 over the sorted names and SHA-256s of all files but the manifest, the model card and the signature. So the name of a
version commits to its content, and publishing the same files again finds the same name.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from components.bundle.config import VARIANT, Variant
from components.bundle.files import CARD, MANIFEST, SIGNATURE
from components.bundle.formats import parsed
from components.classifier.errors import DataError, IntegrityError
from components.registry.signing import require_signature

SCHEMA_VERSION = 1
MAX_BYTES = 16 << 20
"""The largest manifest or ledger record that is read: they hold names and numbers, and are parsed in memory."""
_ORIGIN = ("architecture", "dataset_digest", "code_version", "trained_at", "run")
VERSION_PATTERN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{12}")


class FileEntry(BaseModel):
    """One file: its SHA-256 (64 hexadecimal digits) and its size in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Manifest(BaseModel):
    """What `manifest.json` holds. Times are UTC, ISO 8601."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    schema_version: int = SCHEMA_VERSION
    name: str
    version: str
    created: str
    """When it was published."""
    trained_at: str
    run: str
    """The pipeline run that published it, may be empty."""
    dataset_digest: str
    code_version: str
    architecture: str
    classes: list[str]
    parameters: dict[str, Any]
    metrics: dict[str, float] = {}
    """The evaluation's headline numbers, so that a list of versions need not open every evaluation."""
    files: dict[str, FileEntry]
    signature: dict[str, Any] | None = None
    """A Sigstore bundle over this manifest without signature and checksum, by model-signing."""
    checksum: str = ""
    """SHA-256 of this manifest without signature and checksum: finds edits by hand. Only a signature withstands an attacker."""

    @property
    def content_digest(self) -> str:
        """The digest over names and contents of which the version's name carries the first 12 digits."""
        return content_digest(self.files)

    def body(self) -> bytes:
        """Return the canonical bytes that the checksum and the signature are about."""
        fields = self.model_dump(mode="json", exclude={"signature", "checksum"})
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()

    def sealed(self, signature: dict[str, Any] | None = None) -> "Manifest":
        """Return this manifest with its checksum, and its signature if there is one."""
        return self.model_copy(update={"signature": signature, "checksum": hashlib.sha256(self.body()).hexdigest()})

    def require_signature(self) -> None:
        """Check the signature where a public key is configured; raises IntegrityError as signing.require_signature does."""
        require_signature(self.body(), self.signature, f"version {self.version} of {self.name}")

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return (self.model_dump_json(indent=1) + "\n").encode()


def parse(data: bytes, where: str) -> Manifest:
    """Parse the bytes of a manifest; `where` is its address for messages.

    Raises IntegrityError when it is damaged, was edited, or its name does not belong to its files.
    """
    again = "publish the model version again"
    manifest = parsed(Manifest, data, where, again, IntegrityError)
    if manifest.schema_version != SCHEMA_VERSION:
        raise IntegrityError(
            f"{where} has schema version {manifest.schema_version}, this release reads {SCHEMA_VERSION}; use the release that wrote it"
        )
    if manifest.checksum != hashlib.sha256(manifest.body()).hexdigest():
        raise IntegrityError(f"{where} was changed after it was published: its checksum does not fit; {again}")
    if manifest.version != version_name(manifest.trained_at, manifest.content_digest):
        raise IntegrityError(f"{where} names version {manifest.version}, but its files' digests make another; {again}")
    return manifest


def content_digest(files: Mapping[str, FileEntry]) -> str:
    """Hash the sorted names and digests of all files but the manifest and what may differ for equal files: the card and the signature."""
    significant = sorted((name, entry.sha256) for name, entry in files.items() if name not in {MANIFEST, CARD, SIGNATURE})
    return hashlib.sha256(json.dumps(significant, separators=(",", ":")).encode()).hexdigest()


def version_name(trained_at: str, digest: str) -> str:
    """Make a version's name from the time of training (ISO 8601; without an offset it is UTC) and the content digest.

    Raises DataError for a time of another form.
    """
    try:
        time = aware(trained_at)
    except ValueError as error:
        raise DataError(f"config.json says trained_at {trained_at!r}, which is not an ISO 8601 time; train again") from error
    return f"{time.astimezone(UTC):%Y%m%d-%H%M%S}-{digest[:12]}"


def aware(time: str) -> datetime:
    """Read a time in ISO 8601, which without an offset is UTC; raises ValueError for another form."""
    found = datetime.fromisoformat(time)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def hash_file(path: Path) -> FileEntry:
    """Hash one file, streaming."""
    with path.open("rb", buffering=0) as file:
        sha = hashlib.file_digest(file, "sha256")
        return FileEntry(sha256=sha.hexdigest(), size=file.seek(0, 2))


def hash_files(files: Mapping[str, Path]) -> dict[str, FileEntry]:
    """Hash files by name, several at a time; hashlib releases the interpreter's lock."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip(files, pool.map(hash_file, files.values()), strict=True))


def verify_directory(directory: Path) -> Manifest:
    """Check a local model folder that holds manifest.json (such as /mnt/models): every digest, and that nothing was added.

    Where PENSTOCK_VERIFY_KEY names a public key, the signature too. Raises IntegrityError naming each bad file.
    """
    try:
        with (directory / MANIFEST).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise IntegrityError(
            f"{directory / MANIFEST} cannot be read ({error.strerror}), so it is not a complete model version; fetch it again"
        ) from error
    if len(data) > MAX_BYTES:
        raise IntegrityError(f"{directory / MANIFEST} is larger than {MAX_BYTES:,} bytes, which no manifest is; fetch it again")
    manifest = parse(data, str(directory / MANIFEST))
    manifest.require_signature()
    problems = directory_problems(directory, manifest)
    if problems:
        raise IntegrityError(f"{directory} is not version {manifest.version}: {'; '.join(problems)}; fetch it again")
    return manifest


def holds(directory: Path, version: str) -> bool:
    """Say whether a local folder holds this version; raises IntegrityError where it has a manifest and is not what that says."""
    return (directory / MANIFEST).exists() and verify_directory(directory).version == version


def directory_problems(directory: Path, manifest: Manifest) -> list[str]:
    """Name each missing, changed and extra file of a local model folder."""
    present = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if not path.is_dir()}
    present.pop(MANIFEST, None)
    sizes = {name: path.stat().st_size for name, path in present.items() if path.is_file()}
    problems = size_problems(sizes, manifest)
    suspects = {name: path for name, path in present.items() if name in manifest.files and sizes.get(name) == manifest.files[name].size}
    found = hash_files(suspects)
    return problems + [f"{name} was changed" for name in sorted(found) if found[name] != manifest.files[name]]


def size_problems(sizes: Mapping[str, int], manifest: Manifest) -> list[str]:
    """Name each file that is missing, extra or of another size, before anything is hashed."""
    wanted = manifest.files
    return [
        *(f"{name} is missing" for name in sorted(wanted.keys() - sizes.keys())),
        *(f"{name} does not belong to it" for name in sorted(sizes.keys() - wanted.keys() - {MANIFEST})),
        *(
            f"{name} was changed ({sizes[name]:,} bytes instead of {wanted[name].size:,})"
            for name in sorted(sizes.keys() & wanted.keys())
            if sizes[name] != wanted[name].size
        ),
    ]


@dataclass(frozen=True)
class Difference:
    """One field that differs; None where a version does not have it."""

    section: str
    """`origin`, `classes`, `parameters`, `metrics` or `files`."""
    field: str
    first: Any
    second: Any


def differences(first: Manifest, second: Manifest) -> list[Difference]:
    """Compare two manifests; files by their digests. Equal fields are left out."""
    a, b = _fields(first), _fields(second)
    return [
        Difference(section, field, a[section].get(field), b[section].get(field))
        for section in a
        for field in sorted(a[section].keys() | b[section].keys())
        if a[section].get(field) != b[section].get(field)
    ]


def _fields(manifest: Manifest) -> dict[str, dict[str, Any]]:
    variant = Variant.of(manifest.parameters)
    made = {"made as": str(variant)} if variant else {}
    return {
        "origin": {field: getattr(manifest, field) for field in _ORIGIN} | made,
        "classes": {name: position for position, name in enumerate(manifest.classes)},
        "parameters": {name: value for name, value in manifest.parameters.items() if name != VARIANT},
        "metrics": manifest.metrics,
        "files": {name: entry.sha256 for name, entry in manifest.files.items()},
    }
