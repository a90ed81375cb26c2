"""The Kubeflow Model Registry, by a stand-in that takes only what the registry's own generated models take.

TEST_MODEL_REGISTRY_SERVER names a real server (Go, with its database), over which the same tests then run.
"""

import asyncio
import os
import uuid
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Request
from mr_openapi.models import (
    ModelArtifactCreate,
    ModelVersionCreate,
    ModelVersionUpdate,
    RegisteredModelCreate,
)

from components.deploy.local import rollback
from components.deploy.request import DeployRequest
from components.deploy.step import deploy
from components.integrations.model_registry import _connect
from components.publish.publishing import publish
from components.registry import Registry
from components.registry.publication import publish_directory
from components.storage import open_store
from tests.integrations.conftest import Serve
from tests.registry import bundles

SERVER = os.environ.get("TEST_MODEL_REGISTRY_SERVER", "")
BASE = "/api/model_registry/v1"


def stand_in() -> FastAPI:
    """Keep what is sent, if the models that the registry's OpenAPI document gives take it, and know all of its fields."""
    app = FastAPI()
    models, versions, artifacts = dict[str, Any](), dict[str, Any](), dict[str, Any]()

    async def sent(request: Request, model: Any) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        unknown = body.keys() - model.from_dict(body).to_dict().keys()
        if unknown:
            raise HTTPException(400, f"unknown: {unknown}")
        return body

    def add(kept: dict[str, Any], body: dict[str, Any], **more: str) -> dict[str, Any]:
        identifier = str(len(kept) + 1)
        kept[identifier] = {**body, "id": identifier, **more}
        return dict(kept[identifier])

    def find(kept: dict[str, Any], **wanted: str) -> dict[str, Any]:
        for item in kept.values():
            if all(item.get(key) == value for key, value in wanted.items()):
                return dict(item)
        raise HTTPException(404)

    def page(items: list[Any]) -> dict[str, Any]:
        return {"items": items, "size": len(items), "pageSize": len(items), "nextPageToken": ""}

    @app.get(f"{BASE}/registered_models")
    def list_models() -> dict[str, Any]:
        return page(list(models.values()))

    @app.get(f"{BASE}/registered_model")
    def find_model(name: str) -> dict[str, Any]:
        return find(models, name=name)

    @app.post(f"{BASE}/registered_models", status_code=201)
    async def create_model(request: Request) -> dict[str, Any]:
        return add(models, await sent(request, RegisteredModelCreate))

    @app.get(f"{BASE}/registered_models/{{model}}/versions")
    def list_versions(model: str) -> dict[str, Any]:
        return page([version for version in versions.values() if version["registeredModelId"] == model])

    @app.get(f"{BASE}/model_version")
    def find_version(name: str, parentResourceId: str) -> dict[str, Any]:
        return find(versions, name=name, registeredModelId=parentResourceId)

    @app.post(f"{BASE}/model_versions", status_code=201)
    async def create_version(request: Request) -> dict[str, Any]:
        body = await sent(request, ModelVersionCreate)
        assert body["registeredModelId"] in models
        return add(versions, body)

    @app.patch(f"{BASE}/model_versions/{{version}}")
    async def update_version(version: str, request: Request) -> dict[str, Any]:
        versions[version] |= await sent(request, ModelVersionUpdate)
        return dict(versions[version])

    @app.post(f"{BASE}/model_versions/{{version}}/artifacts", status_code=201)
    async def create_artifact(version: str, request: Request) -> dict[str, Any]:
        assert version in versions
        return add(artifacts, await sent(request, ModelArtifactCreate), version=version)

    @app.get(f"{BASE}/model_artifact")
    def find_artifact(name: str, parentResourceId: str) -> dict[str, Any]:
        return find(artifacts, name=name, version=parentResourceId)

    return app


@pytest.fixture(scope="module")
def address(serve: Serve) -> str:
    return SERVER or serve(stand_in())


@pytest.fixture
def name(address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model's name that the registry has not seen."""
    monkeypatch.setenv("PENSTOCK_MODEL_REGISTRY", address)
    return f"digits-{uuid.uuid4().hex[:8]}"


def registered(name: str) -> dict[str, dict[str, Any]]:
    """The versions that the registry knows, by its client: their properties, and their artifacts' address and format."""
    with asyncio.Runner() as runner:
        registry = _connect(runner.run)
        found = {}
        for version in registry.get_model_versions(name):
            artifact = registry.get_model_artifact(name, version.name)
            assert artifact is not None
            found[version.name] = {**(version.custom_properties or {}), "uri": artifact.uri, "format": artifact.model_format_name}
        return found


def test_a_version_is_registered_once_with_its_address_its_digests_and_its_figures(name: str, tmp_path: Path) -> None:
    store, bundle = str(tmp_path / "store"), bundles.evaluated(tmp_path / "bundle")
    version = publish(bundle, bundle, store=store, name=name, run="r")
    assert publish(bundle, bundle, store=store, name=name, run="r") == version
    registry = Registry(open_store(store), name)
    manifest = registry.get(version).manifest
    (found,) = registered(name).values()
    assert (found["uri"], found["format"], found["live"]) == (registry.uri(version), "onnx", False)
    assert (found["content_digest"], found["dataset_digest"]) == (manifest.content_digest, manifest.dataset_digest)
    assert {figure: found[figure] for figure in manifest.metrics} == manifest.metrics != {}


def test_the_live_version_is_the_one_that_serves_also_after_going_back(name: str, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    registry, versions = Registry(open_store(store), name), []
    for samples in (1200, 800):
        bundle = bundles.evaluated(tmp_path / str(samples), samples=samples)
        versions.append(publish(bundle, bundle, store=store, name=name, run=f"r{samples}"))
        deploy(registry, DeployRequest(versions[-1], "manual", actor="ann", reason="a test"))
    first, second = versions
    assert {version: found["live"] for version, found in registered(name).items()} == {first: False, second: True}
    rollback(registry, actor="ann", reason="wrong at night")
    assert {version: found["live"] for version, found in registered(name).items()} == {first: True, second: False}
    assert len(registered(name)[first]) > 8  # its facts are kept


def test_what_serves_and_was_never_registered_is_passed_over(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    registry = Registry(open_store(str(tmp_path / "store")), name)
    version = publish_directory(registry, bundles.quick(tmp_path / "bundle", b"1")).version
    assert deploy(registry, DeployRequest(version, "manual", actor="ann", reason="a test")) == "deployed"
    assert capfd.readouterr().err == ""


def test_a_registry_that_is_down_fails_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PENSTOCK_MODEL_REGISTRY", "http://127.0.0.1:9")
    bundle = bundles.evaluated(tmp_path / "bundle")
    assert publish(bundle, bundle, store=str(tmp_path / "store"), name="digits", run="r")
    assert capfd.readouterr().err.count("Model Registry is told nothing more in this step") == 1
