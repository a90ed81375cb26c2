"""A version for the Hugging Face Hub: the card by the Hub's own classes, and a push to a server that speaks the Hub's commit API."""

import base64
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from fastapi import FastAPI, HTTPException, Request
from huggingface_hub import ModelCard, constants
from typer.testing import CliRunner

from components.bundle.files import EVALUATION, ONNX
from components.registry import Registry
from components.registry.publication import publish_directory
from components.storage import open_store
from pipelines.cli import app
from tests.integrations.conftest import Serve
from tests.registry import bundles

COMMITS: dict[str, dict[str, bytes]] = {}
CREATED: dict[str, str] = {}


@pytest.fixture(scope="module")
def hub(serve: Serve) -> str:
    """Takes repositories and commits of `team`, as the Hub does, and refuses what another owner would get."""
    app = FastAPI()

    @app.post("/api/repos/create")
    async def create(request: Request) -> dict[str, Any]:
        body = await request.json()
        if request.headers.get("authorization") != "Bearer hf_secret" or body.get("organization") != "team":
            raise HTTPException(403, "no right to write")
        CREATED[body["name"]] = body["visibility"]
        return {"url": f"{request.base_url}team/{body['name']}"}

    @app.post("/api/validate-yaml")
    async def validate(request: Request) -> dict[str, Any]:
        return {"errors": [], "warnings": []}

    @app.post("/api/models/team/{name}/preupload/main")
    async def preupload(name: str, request: Request) -> dict[str, Any]:
        files = (await request.json())["files"]
        return {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]}

    @app.post("/api/models/team/{name}/commit/main")
    async def commit(name: str, request: Request) -> dict[str, Any]:
        lines = [json.loads(line) for line in (await request.body()).splitlines()]
        COMMITS[lines[0]["value"]["summary"]] = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
        }
        return {"commitUrl": f"{request.base_url}team/{name}/commit/abc", "commitOid": "abc", "success": True}

    return serve(app)


@pytest.fixture
def store(tmp_path: Path) -> str:
    address = str(tmp_path / "store")
    publish_directory(Registry(open_store(address), "digits"), bundles.evaluated(tmp_path / "bundle"))
    return address


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["models", "push-hub", *arguments])


def test_the_card_carries_what_the_hub_reads(store: str, tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    done = invoke("2026", "--output", str(folder), "--license", "apache-2.0", "--store", store, "--json")
    assert done.exit_code == 0, done.output
    assert {file.name for file in folder.iterdir()} == set(json.loads(done.stdout)["files"])
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.pipeline_tag, card.data.library_name) == ("apache-2.0", "image-classification", "onnx")
    assert "penstock" in card.data.tags
    figures = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert (figures["accuracy"], figures["f1"]) == (0.9571788413098237, 0.9568)
    assert {result.dataset_split for result in card.data.eval_results} == {"test"}
    assert card.text.lstrip().startswith("# digits ")
    assert (folder / ONNX).read_bytes() == (tmp_path / "bundle" / ONNX).read_bytes()
    assert json.loads((folder / "config.json").read_text())["id2label"]["3"] == "3"
    assert json.loads((folder / "preprocessor_config.json").read_text())["size"] == {"height": 8, "width": 8}
    (tmp_path / "file").touch()
    for there in (folder, tmp_path / "file"):
        refused = invoke("2026", "--output", str(there), "--store", store)
        assert "exists already; name a new folder" in str(refused.exception)


@pytest.mark.parametrize(("source", "told"), [("/home/me/secret/pets", "pets"), ("s3://data/pets.tar", "s3://data/pets.tar")])
def test_the_card_does_not_tell_where_a_dataset_lies_on_this_machine(source: str, told: str, tmp_path: Path) -> None:
    bundle = bundles.evaluated(tmp_path / "bundle", samples=100)
    (bundle / EVALUATION).write_text(json.dumps({**bundles.EVALUATION, "source": source}))
    publish_directory(Registry(open_store(str(tmp_path / "store")), "pets"), bundle)
    assert invoke("2026", "--output", str(tmp_path / "hub"), "--store", str(tmp_path / "store")).exit_code == 0
    card = ModelCard.load(tmp_path / "hub" / "README.md")
    assert {result.dataset_name for result in card.data.eval_results} == {told}
    assert "secret" not in card.content


@pytest.fixture
def endpoint(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does, which is read when the library is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", hub)
    monkeypatch.setattr(huggingface_hub.hf_api.constants, "ENDPOINT", hub)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")


@pytest.mark.usefixtures("endpoint")
def test_a_version_is_pushed_as_one_commit(store: str) -> None:
    done = invoke("2026", "team/digits", "--private", "--store", store)
    assert done.exit_code == 0, done.output
    assert "team/digits/commit/abc" in done.output
    assert CREATED == {"digits": "private"}
    ((summary, files),) = COMMITS.items()
    assert summary.startswith("digits 2026")
    assert set(files) == {"README.md", "config.json", "preprocessor_config.json", ONNX}
    assert files["README.md"].startswith(b"---\n")


@pytest.mark.usefixtures("endpoint")
def test_a_hub_that_refuses_is_one_line(store: str) -> None:
    done = invoke("2026", "others/digits", "--store", store)
    assert done.exit_code == 1
    assert "the Hub did not take others/digits" in str(done.exception)
    assert "HF_TOKEN" in str(done.exception)


@pytest.mark.usefixtures("endpoint")
def test_a_name_that_is_no_repository_is_wrong_usage(store: str) -> None:
    done = invoke("2026", "a/b/c", "--store", store)
    assert "give OWNER/NAME" in str(done.exception)
    assert "not both" in str(invoke("2026", "team/digits", "--output", "x", "--store", store).exception)
