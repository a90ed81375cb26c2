"""A version as an OCI image: its files in /models, above the small base by which KServe's modelcars link them to /mnt/models.

The layout on disk is that of the OCI image specification 1.1, one image for each platform of the base. Everything in it follows from the
version and the base: the same version gives the same digests wherever it is made.
"""

import copy
import hashlib
import json
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.bundle.files import MANIFEST
from components.classifier.errors import RegistryError, UsageError, first_line
from components.registry import Registry
from components.registry.manifest import Manifest, aware, hash_file
from components.storage.files import write_file

MODELS = "models"
"""The folder at the image's root in which KServe looks for a model."""
USER = "65532:65532"
"""The predictor image's user: a modelcar's files are read through its process, which only the same user may, and root is often refused."""
ANSWER_SECONDS = 10.0
"""How long a registry may take for its first answer."""
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_REF_NAME = "org.opencontainers.image.ref.name"
_LOCAL = ("localhost", "127.0.0.1", "[::1]")
Json = dict[str, Any]


@dataclass(frozen=True)
class Layout:
    """An OCI layout in a folder, and the digest (`sha256:…`) of its image, which stands for all platforms."""

    folder: Path
    name: str
    version: str
    digest: str

    def archive(self, file: Path) -> None:
        """Write the layout as one tar file, which skopeo, containerd, podman and Docker (any release) load.

        Raises DiskError.
        """
        with tempfile.TemporaryFile() as scratch:
            with tarfile.open(fileobj=scratch, mode="w", format=tarfile.GNU_FORMAT) as tar:
                for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
                    _add(tar, path, path.relative_to(self.folder).as_posix(), 0)
            scratch.seek(0)
            write_file(file, iter(lambda: scratch.read(1 << 20), b""))

    def push(self, repository: str) -> str:
        """Push the image under the version's name as its tag; returns its reference, with tag and digest.

        Credentials are Docker's own (`docker login`). A registry on this machine is spoken to without TLS. Raises UsageError for what is
        not a repository, and RegistryError when the registry refuses or cannot be reached.
        """
        import oras.layout
        import oras.provider

        reference = f"{repository}:{self.version}"
        host = repository.partition("/")[0]
        insecure = host in _LOCAL or host.startswith(tuple(f"{it}:" for it in _LOCAL))
        provider = oras.provider.Registry(insecure=insecure)
        try:
            container = provider.get_container(reference)
        except ValueError as error:
            raise _not_a_repository(repository) from error
        if "/" not in repository or f"{container.registry}/{container.api_prefix}" != repository:
            raise _not_a_repository(repository)
        try:
            provider.session.get(f"{provider.prefix}://{host}/v2/", timeout=ANSWER_SECONDS)  # oras itself would try for two minutes
            provider.auth.load_configs(container)
            oras.layout.NewLayout(str(self.folder)).push_to_registry(provider=provider, target=reference, tag=self.version)
        except (OSError, ValueError) as error:  # requests' errors are OSErrors, and oras raises ValueError for what a registry answers
            raise RegistryError(
                f"{repository} did not take the image ({first_line(error)}); check its address, and `docker login`"
            ) from error
        return f"{reference}@{self.digest}"


def write_image(registry: Registry, version: str, folder: Path) -> Layout:
    """Write a version as an OCI layout into an empty folder; every file is checked by its digest on the way.

    Raises IntegrityError for damaged files, ModuleNotFoundError without the extra `oci`.
    """
    import modelcar_base_image.constants as base
    from modelcar_base_image.embedded_oci_layout import embedded_oci_layout

    blobs = folder / "blobs" / "sha256"
    embedded_oci_layout(folder)
    with registry.opened(version) as bundle:
        manifest = registry.get(version).manifest
        layer = _write_layer(bundle, manifest, blobs)
    (root,) = json.loads((folder / "index.json").read_bytes())["manifests"]
    index = _read(blobs, root)
    notes = _annotations(manifest) | {
        "org.opencontainers.image.base.name": base.ODH_MODELCAR_BASE_IMAGE,
        "org.opencontainers.image.base.digest": root["digest"],
    }
    unused = {root["digest"]}
    for entry in index["manifests"]:
        unused |= {entry["digest"], _read(blobs, entry)["config"]["digest"]}
        entry |= _write_platform(entry, layer, notes, manifest, blobs)
    index["annotations"] = notes
    written = _write(blobs, index)
    for digest in unused:
        (blobs / digest.partition(":")[2]).unlink()
    top = {**root, **written, "annotations": {_REF_NAME: version}}
    (folder / "index.json").write_bytes(_canonical({"schemaVersion": 2, "mediaType": index["mediaType"], "manifests": [top]}))
    first = _read(blobs, index["manifests"][0])
    for_docker = {
        "Config": _path(first["config"]),
        "RepoTags": [f"{registry.name.lower()}:{version}"],
        "Layers": [_path(it) for it in first["layers"]],
    }
    (folder / "manifest.json").write_bytes(_canonical([for_docker]))  # what Docker read before it knew this specification
    return Layout(folder, registry.name, version, written["digest"])


def _write_layer(bundle: Path, manifest: Manifest, blobs: Path) -> Json:
    """The version's files as an uncompressed layer: compressed bytes differ from one zlib to the next, and weights hardly shrink."""
    seconds = int(aware(manifest.trained_at).timestamp())
    scratch = blobs / "layer"
    with tarfile.open(scratch, "w", format=tarfile.GNU_FORMAT) as tar:
        folder = tarfile.TarInfo(MODELS)
        folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, seconds
        tar.addfile(folder)
        for name in sorted({*manifest.files, MANIFEST}):
            _add(tar, bundle / name, f"{MODELS}/{name}", seconds)
    entry = hash_file(scratch)
    scratch.rename(blobs / entry.sha256)
    return {"mediaType": _LAYER, "digest": f"sha256:{entry.sha256}", "size": entry.size}


def _add(tar: tarfile.TarFile, path: Path, name: str, seconds: int) -> None:
    """Add a file that root owns and everybody reads, changed at `seconds`."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = path.stat().st_size, 0o644, seconds
    with path.open("rb") as file:
        tar.addfile(entry, file)


def _write_platform(entry: Json, layer: Json, notes: dict[str, str], manifest: Manifest, blobs: Path) -> Json:
    """The base's image of one platform with the layer above it; returns what changes in its descriptor."""
    image = _read(blobs, entry)
    config = copy.deepcopy(_read(blobs, image["config"]))
    created = aware(manifest.trained_at).isoformat()
    config["created"] = created
    config["config"] |= {"User": USER, "Labels": notes}
    config["rootfs"]["diff_ids"].append(layer["digest"])
    config["history"].append({"created": created, "created_by": f"penstock models image {manifest.version}"})
    image["config"] |= _write(blobs, config)
    image["layers"].append(layer)
    image["annotations"] = notes
    return _write(blobs, image)


def _annotations(manifest: Manifest) -> dict[str, str]:
    return {
        "org.opencontainers.image.title": manifest.name,
        "org.opencontainers.image.version": manifest.version,
        "org.opencontainers.image.created": aware(manifest.trained_at).isoformat(),
        "org.opencontainers.image.description": f"{manifest.architecture} for {len(manifest.classes)} classes",
        "penstock.manifest.digest": f"sha256:{hashlib.sha256(manifest.to_bytes()).hexdigest()}",
        "penstock.content.digest": f"sha256:{manifest.content_digest}",
        "penstock.dataset.digest": manifest.dataset_digest,
    }


def _read(blobs: Path, descriptor: Json) -> Json:
    found: Json = json.loads((blobs / descriptor["digest"].partition(":")[2]).read_bytes())
    return found


def _write(blobs: Path, value: Json) -> Json:
    data = _canonical(value)
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def _path(descriptor: Json) -> str:
    return f"blobs/{descriptor['digest'].replace(':', '/')}"


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _not_a_repository(text: str) -> UsageError:
    return UsageError(f"{text!r} is not a repository; give it as HOST/PATH without a tag, such as registry.example/team/pets")
