"""OpenLineage events of real steps, at a real receiver, held against OpenLineage's own schemas."""

import json
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema_rs
import pytest
from fastapi import FastAPI, Request

from components.bundle.environment import load_environment
from components.classifier.errors import DataError, UsageError
from components.deploy.local import rollback
from components.deploy.request import DeployRequest
from components.deploy.step import deploy
from components.gate.step import judge
from components.ingest.ingest import ingest
from components.integrations import open_lineage, steps
from components.integrations.open_lineage import identify, parent_id
from components.publish.publishing import publish
from components.registry import Registry
from components.registry.publication import publish_directory
from components.storage import open_store
from tests.integrations.conftest import Serve
from tests.registry import bundles

SCHEMAS = Path(__file__).parent / "openlineage"
RUN = "20260102-030405-1a2b"
RECEIVED: list[dict[str, Any]] = []


@pytest.fixture(scope="module")
def address(serve: Serve) -> str:
    app = FastAPI()

    @app.post("/api/v1/lineage")
    async def take(request: Request) -> dict[str, str]:
        RECEIVED.append(await request.json())
        return {}

    return serve(app)


@pytest.fixture
def events(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What the receiver got in this test."""
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", address)
    monkeypatch.setenv("PENSTOCK_RUN", RUN)
    RECEIVED.clear()
    open_lineage._client.cache_clear()
    yield RECEIVED
    open_lineage._client.cache_clear()


@cache
def schemas() -> dict[str, Any]:
    return {schema["$id"]: schema for schema in (json.loads(file.read_text("utf-8")) for file in SCHEMAS.glob("*.json"))}


def check(event: dict[str, Any]) -> None:
    """Hold an event, and each of its facets, against the schema that it names."""
    registry = jsonschema_rs.Registry(list(schemas().items()))
    facets = [facet for holder in (event["run"], event["job"]) for facet in holder["facets"].values()]
    for data in event["inputs"] + event["outputs"]:
        facets += [facet for kind in ("facets", "inputFacets", "outputFacets") for facet in data.get(kind, {}).values()]
    for part, named in [(event, event["schemaURL"]), *((facet, facet["_schemaURL"]) for facet in facets)]:
        assert named.partition("#")[0] in schemas()
        jsonschema_rs.validator_for({"$ref": named}, registry=registry, validate_formats=True).validate(part)


def told(events: list[dict[str, Any]]) -> list[str]:
    return [f"{event['eventType']} {event['job']['name']}" for event in events]


def test_events_of_a_run_lead_from_the_data_to_the_service_and_fit_their_schemas(events: list[dict[str, Any]], tmp_path: Path) -> None:
    store = tmp_path / "store"
    info = ingest("digits", tmp_path / "dataset", log=lambda line: None, store=str(store))
    bundle = bundles.evaluated(tmp_path / "bundle")
    version = publish(bundle, bundle, store=str(store), name="digits", run=RUN)
    registry = Registry(open_store(str(store)), "digits")
    decision = judge(bundle, registry, version, load_environment("dev"), "dev", "quality", "", "", {"minimum_accuracy": 0.5})
    deploy(registry, DeployRequest(version, "manual", actor="ann", reason="a test"))
    for event in events:
        check(event)
    steps = ("ingest", "publish", "gate", "deploy")
    assert told(events) == [f"{state} penstock.{step}" for step in steps for state in ("START", "COMPLETE")]
    assert {event["run"]["facets"]["parent"]["run"]["runId"] for event in events} == {parent_id(RUN)}
    assert [first["run"]["runId"] == last["run"]["runId"] for first, last in zip(events[::2], events[1::2], strict=True)] == [True] * 4
    (made,) = events[1]["outputs"]
    assert (made["namespace"], made["name"]) == ("file", f"{store}/datasets/{info.digest}")
    assert made["facets"]["version"]["datasetVersion"] == info.digest
    assert made["outputFacets"]["outputStatistics"]["rowCount"] == 1797
    assert events[1]["inputs"][0]["name"] == "digits"
    published, judged = events[3]["outputs"][0], events[5]["inputs"][0]
    assert published["name"] == judged["name"] == f"{store}/models/digits/{version}"
    assertions = {found["assertion"]: found["success"] for found in judged["inputFacets"]["dataQualityAssertions"]["assertions"]}
    assert assertions == {rule.rule: rule.outcome == "pass" for rule in decision.rules if rule.outcome != "skipped"} != {}
    assert events[7]["outputs"][0]["facets"]["version"]["datasetVersion"] == version


def test_a_step_that_fails_says_why_and_raises_what_it_raised(events: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises((DataError, UsageError)) as raised:
        ingest(str(tmp_path / "missing"), tmp_path / "dataset")
    assert told(events) == ["START penstock.ingest", "FAIL penstock.ingest"]
    check(events[1])
    assert events[1]["run"]["facets"]["errorMessage"]["message"] == str(raised.value)[:200]


def test_force_that_the_environment_refuses_is_told_as_a_failure_and_never_as_a_promotion(
    events: list[dict[str, Any]], tmp_path: Path
) -> None:
    bundle = bundles.evaluated(tmp_path / "bundle")
    registry = Registry(open_store(str(tmp_path / "store")), "digits")
    version = publish_directory(registry, bundle).version
    with pytest.raises(UsageError, match="allows strategy quality, not force"):
        judge(bundle, registry, version, load_environment("prod"), "prod", "force", "ann", "a test")
    assert told(events) == ["START penstock.gate", "FAIL penstock.gate"]


@pytest.mark.parametrize(("given", "told"), [("golden", "/models/digits/20260102-030405-0123456789ab/golden.npz"), ("/in", "/in")])
def test_a_scoring_reads_its_input_which_may_be_the_versions_own_pictures(given: str, told: str, tmp_path: Path) -> None:
    plan = SimpleNamespace(store=str(tmp_path), name="digits", version="20260102-030405-0123456789ab", input=given, output=str(tmp_path))
    pictures, version = steps.score(None, plan, "0").inputs
    assert pictures.address.removeprefix(str(tmp_path)) == told
    assert version.version == plan.version


def test_a_step_that_is_ended_from_outside_is_aborted(events: list[dict[str, Any]], tmp_path: Path) -> None:
    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest("digits", tmp_path / "dataset", log=stop)
    assert told(events) == ["START penstock.ingest", "ABORT penstock.ingest"]


def test_a_rollback_by_a_person_is_told_outside_of_runs(
    events: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PENSTOCK_RUN")
    store = str(tmp_path / "store")
    registry = Registry(open_store(store), "digits")
    for content in (b"1", b"2"):
        version = publish_directory(registry, bundles.quick(tmp_path / content.decode(), content)).version
        deploy(registry, DeployRequest(version, "manual", actor="ann", reason="a test"))
    events.clear()
    back = rollback(registry, actor="ann", reason="wrong at night")
    assert told(events) == ["START penstock.rollback", "COMPLETE penstock.rollback"]
    assert events[1]["outputs"][0]["facets"]["version"]["datasetVersion"] == back.champion != version
    assert "parent" not in events[1]["run"]["facets"]
    check(events[1])


def test_a_receiver_that_is_down_fails_no_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__RETRY", '{"total": 0}')
    open_lineage._client.cache_clear()
    assert ingest("digits", tmp_path / "dataset", log=lambda line: None).classes
    open_lineage._client.cache_clear()
    assert capfd.readouterr().err.count("OpenLineage is told nothing more in this step") == 1


def test_a_file_takes_the_events_as_openlineage_yml_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    (tmp_path / "openlineage.yml").write_text(f"transport: {{type: file, log_file_path: {log}, append: true}}\n")
    monkeypatch.chdir(tmp_path)
    open_lineage._client.cache_clear()
    ingest("digits", tmp_path / "dataset", log=lambda line: None)
    open_lineage._client.cache_clear()
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert told(events) == ["START penstock.ingest", "COMPLETE penstock.ingest"]
    for event in events:
        check(event)


def test_datasets_are_named_as_the_specification_says() -> None:
    assert identify("s3://bucket/models/digits") == ("s3://bucket", "models/digits")
    assert identify("https://host:8080/data.tar") == ("https://host:8080", "data.tar")
    assert identify("/data/pets") == ("file", "/data/pets")
    assert identify("mnist") == ("penstock", "mnist")


def test_kubeflows_run_id_stays_and_a_local_one_becomes_the_same_uuid_in_every_step() -> None:
    given = str(uuid.uuid4())
    assert parent_id(given) == given
    assert parent_id(RUN) == parent_id(RUN) != parent_id(RUN + "x")
