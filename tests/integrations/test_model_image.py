"""A version as an OCI image: by the specification's schemas, byte for byte, and pushed to a server of its distribution protocol."""

import gzip
import hashlib
import io
import json
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from jsonschema import Draft4Validator
from referencing import Registry as Schemas
from referencing.jsonschema import DRAFT4
from typer.testing import CliRunner

from components.bundle.files import MANIFEST
from components.registry import Registry, verify_directory
from components.registry.publication import publish_directory
from components.storage import open_store
from pipelines.cli import app
from tests.integrations.conftest import Serve
from tests.registry import bundles

SCHEMAS = json.loads(gzip.decompress((Path(__file__).parent / "oci-schemas.json.gz").read_bytes()))
"""The JSON schemas of the OCI image specification, of May 2026."""


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A store's address, and the version in it, whose time of training has no offset."""
    folder = tmp_path_factory.mktemp("store")
    bundle = bundles.quick(folder / "bundle", b"weights", trained_at="2026-01-02T03:04:05")
    return str(folder / "store"), publish_directory(Registry(open_store(str(folder / "store")), "digits"), bundle).version


def invoke(version: tuple[str, str], *arguments: str) -> Any:
    return CliRunner().invoke(app, ["models", "image", version[1], "--store", version[0], "--json", *arguments])


@pytest.fixture(scope="module")
def image(version: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the tar that the command writes."""
    file = tmp_path_factory.mktemp("image") / "digits.tar"
    done = invoke(version, "--output", str(file))
    assert done.exit_code == 0, done.output
    return unpacked(file.read_bytes())


def unpacked(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}  # type: ignore[union-attr]


def blob(image: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    data = image[f"blobs/{descriptor['digest'].replace(':', '/')}"]
    assert len(data) == descriptor["size"]
    return data


def problems(schema: str, document: Any) -> list[str]:
    known: Schemas[Any] = Schemas(retrieve=lambda uri: DRAFT4.create_resource(SCHEMAS[uri.rpartition("/")[2]]))  # type: ignore[call-arg]
    return [error.message for error in Draft4Validator(SCHEMAS[schema], registry=known).iter_errors(document)]


def images(image: dict[str, bytes]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The manifest and the configuration of each platform."""
    (top,) = json.loads(image["index.json"])["manifests"]
    manifests = [json.loads(blob(image, entry)) for entry in json.loads(blob(image, top))["manifests"]]
    return [(manifest, json.loads(blob(image, manifest["config"]))) for manifest in manifests]


def test_the_specifications_schemas_take_all_of_it(image: dict[str, bytes]) -> None:
    index = json.loads(image["index.json"])
    assert problems("image-layout-schema.json", json.loads(image["oci-layout"])) == []
    assert problems("image-index-schema.json", index) == []
    assert problems("image-index-schema.json", json.loads(blob(image, index["manifests"][0]))) == []
    for manifest, config in images(image):
        assert problems("image-manifest-schema.json", manifest) == []
        assert problems("config-schema.json", config) == []
    assert problems("image-manifest-schema.json", {**manifest, "config": {}}) != []
    assert problems("config-schema.json", {**config, "created": 5}) != []


def test_every_blob_has_its_digest_and_is_used(image: dict[str, bytes]) -> None:
    for name, data in image.items():
        if name.startswith("blobs/"):
            assert hashlib.sha256(data).hexdigest() == name.rpartition("/")[2]
    (top,) = json.loads(image["index.json"])["manifests"]
    entries = json.loads(blob(image, top))["manifests"]
    assert {(entry["platform"]["os"], entry["platform"]["architecture"]) for entry in entries} == {("linux", "amd64"), ("linux", "arm64")}
    used = [top, *entries, *(it for manifest, _ in images(image) for it in (manifest["config"], *manifest["layers"]))]
    assert {it["digest"].rpartition(":")[2] for it in used} == {name.rpartition("/")[2] for name in image if name.startswith("blobs/")}


def test_the_files_in_models_are_the_versions_byte_for_byte(image: dict[str, bytes], version: tuple[str, str], tmp_path: Path) -> None:
    registry = Registry(open_store(version[0]), "digits")
    published = {path.name: path.read_bytes() for path in registry.fetch(version[1], tmp_path / "version").iterdir()}
    for manifest, config in images(image):
        layer = blob(image, manifest["layers"][-1])
        assert unpacked(layer) == {f"models/{name}": data for name, data in published.items()}
        assert config["rootfs"]["diff_ids"][-1] == f"sha256:{hashlib.sha256(layer).hexdigest()}"
        assert config["config"]["User"] == "65532:65532"
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            modes = {(entry.isdir(), entry.mode, entry.uid, entry.mtime) for entry in tar}
            tar.extractall(tmp_path / "image", filter="data")
        assert modes == {(True, 0o755, 0, 1767323045), (False, 0o644, 0, 1767323045)}
    assert verify_directory(tmp_path / "image" / "models").version == version[1]
    assert manifest["annotations"]["penstock.manifest.digest"] == f"sha256:{hashlib.sha256(published[MANIFEST]).hexdigest()}"
    assert manifest["annotations"]["org.opencontainers.image.version"] == version[1]


def test_the_same_version_gives_the_same_image(image: dict[str, bytes], version: tuple[str, str], tmp_path: Path) -> None:
    done = invoke(version, "--output", str(tmp_path / "again.tar"))
    assert unpacked((tmp_path / "again.tar").read_bytes()) == image
    assert json.loads(done.stdout)["digest"] == json.loads(image["index.json"])["manifests"][0]["digest"]


def test_a_changed_file_gives_no_image(tmp_path: Path) -> None:
    address = str(tmp_path / "store")
    found = publish_directory(Registry(open_store(address), "digits"), bundles.quick(tmp_path / "bundle", b"weights")).version
    damaged = tmp_path / "store" / "models" / "digits" / found / "file0.bin"
    damaged.chmod(0o644)
    damaged.write_bytes(b"changed")
    done = invoke((address, found), "--output", str(tmp_path / "image.tar"))
    assert (done.exit_code, (tmp_path / "image.tar").exists()) == (1, False)
    assert "file0.bin was changed" in str(done.exception)


@pytest.fixture(scope="module")
def registry(serve: Serve) -> tuple[str, dict[str, bytes]]:
    """A registry that takes `team/pets`: blobs that have their digest, and manifests whose blobs are there; and what it holds."""
    app, held = FastAPI(), {}

    @app.head("/v2/team/pets/blobs/{digest}")
    async def exists(digest: str) -> Response:
        return Response(status_code=200 if digest in held else 404)

    @app.post("/v2/team/pets/blobs/uploads/")
    async def begin() -> Response:
        return Response(status_code=202, headers={"Location": "/v2/team/pets/blobs/uploads/1"})

    @app.put("/v2/team/pets/blobs/uploads/1")
    async def upload(digest: str, request: Request) -> Response:
        data = await request.body()
        if digest != f"sha256:{hashlib.sha256(data).hexdigest()}":
            return Response(status_code=400)
        held[digest] = data
        return Response(status_code=201)

    @app.put("/v2/team/pets/manifests/{reference}")
    async def manifest(reference: str, request: Request) -> Response:
        data = await request.body()
        document = json.loads(data)
        below = document.get("manifests") or [document["config"], *document["layers"]]
        if any(it["digest"] not in held for it in below):
            return Response(status_code=404)
        held[reference] = held[f"sha256:{hashlib.sha256(data).hexdigest()}"] = data
        return Response(status_code=201)

    return serve(app).removeprefix("http://"), held


def test_a_push_brings_all_of_it_under_the_versions_name(
    registry: tuple[str, dict[str, bytes]], image: dict[str, bytes], version: tuple[str, str]
) -> None:
    address, held = registry
    done = invoke(version, "--push", f"{address}/team/pets")
    assert done.exit_code == 0, done.output
    (top,) = json.loads(image["index.json"])["manifests"]
    assert json.loads(done.stdout)["reference"] == f"{address}/team/pets:{version[1]}@{top['digest']}"
    assert held[version[1]] == blob(image, top)
    assert {name for name in held if name != version[1]} == {
        f"sha256:{name.rpartition('/')[2]}" for name in image if name.startswith("blobs/")
    }


def test_a_registry_that_refuses_is_one_line(registry: tuple[str, dict[str, bytes]], version: tuple[str, str]) -> None:
    done = invoke(version, "--push", f"{registry[0]}/others/pets")
    assert done.exit_code == 1
    assert "others/pets did not take the image" in str(done.exception)
    assert "docker login" in str(done.exception)


def test_a_registry_where_nobody_listens_is_told_at_once(version: tuple[str, str]) -> None:
    began = time.monotonic()
    done = invoke(version, "--push", "127.0.0.1:1/team/pets")
    assert "127.0.0.1:1/team/pets did not take the image" in str(done.exception)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "repository", ["pets", "registry.example/team/pets:1", "registry.example/team/pets@sha256:0", "https://registry/x"]
)
def test_what_is_no_repository_is_wrong_usage(repository: str, version: tuple[str, str]) -> None:
    done = invoke(version, "--push", repository)
    assert "give it as HOST/PATH without a tag" in str(done.exception)


def test_an_image_must_go_somewhere(version: tuple[str, str]) -> None:
    assert "--push HOST/PATH, --output FILE.tar" in str(invoke(version).exception)
