"""A person deploys a version, or goes back: the same steps on this machine as on a cluster."""

import json
from pathlib import Path

import pytest

from components.bundle.files import EVALUATION
from components.classifier.errors import RolloutError, UsageError, VersionNotFound
from components.deploy.component import choose_version, deploy_version
from components.deploy.request import DeployRequest
from components.deploy.step import deploy, select_version
from components.registry import Registry
from components.registry.publication import publish_directory
from tests import tiny
from tests.gate.cases import good
from tests.gate.versions import publish, registry_in
from tests.pipelines.runs import penstock


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return registry_in(tmp_path)


@pytest.fixture
def versions(registry: Registry, tmp_path: Path) -> list[str]:
    return [publish(registry, tmp_path / f"model{day}", good(), day=day)[0] for day in (1, 2, 3)]


def step(registry: Registry, version: str, asked: str = "", run: str = "run", **changes: object) -> str:
    fixed = {"environment": "dev", "actor": "ann", "reason": "needed", "target": "local", "namespace": ""} | changes
    return str(
        deploy_version.python_func(version=version, asked=asked or version, store=registry.store.url, name="digits", run=run, **fixed)
    )


def test_previous_is_undo_and_recorded_as_a_rollback(registry: Registry, versions: list[str]) -> None:
    for number, version in enumerate(versions[:2]):
        assert step(registry, version, run=f"{number}") == "deployed"
    before = registry.resolve("previous")
    assert step(registry, before, "previous", run="back") == "deployed"
    assert step(registry, before, "previous", run="back") == "unchanged"
    record = registry.ledger.last()
    assert record is not None
    assert (record.action, record.champion, record.strategy, record.actor) == ("rolled_back", versions[0], "rollback", "ann")
    with pytest.raises(VersionNotFound, match="nothing was deployed before the champion"):
        registry.resolve("previous")
    assert step(registry, versions[2], run="later") == "deployed"
    assert registry.resolve("previous") == versions[0]


def test_going_back_is_refused_when_it_would_lead_elsewhere_by_now(registry: Registry, versions: list[str]) -> None:
    for number, version in enumerate(versions):
        step(registry, version, run=f"{number}")
    with pytest.raises(RolloutError, match=f"going back would bring {versions[1]}, not {versions[0]}"):
        step(registry, versions[0], "previous", run="back")


def test_what_is_asked_for_is_looked_at_before_anything_is_done(registry: Registry, versions: list[str]) -> None:
    store = registry.store.url
    assert select_version(f" {versions[0]} ", store, "digits", "dev", "ann", "needed", "local", {}) == versions[0]
    for asked, actor, target, serving, error, message in (
        ("", "ann", "local", {}, UsageError, "name the version to deploy, or previous"),
        (versions[0], "", "local", {}, UsageError, "needs actor"),
        (versions[0], "ann", "moon", {}, UsageError, "use local or kserve"),
        (versions[0], "ann", "local", {"mode": "Standard"}, UsageError, "serving is for target kserve"),
        (versions[0], "ann", "kserve", {}, UsageError, "s3://bucket/prefix"),
        (versions[0], "ann", "kserve", {"mod": 1}, UsageError, "no setting 'mod'"),
        ("previous", "ann", "local", {}, VersionNotFound, "nothing has been deployed yet"),
        ("20260101-000000-000000000000", "ann", "local", {}, VersionNotFound, "no version"),
    ):
        with pytest.raises(error, match=message):
            select_version(asked, store, "digits", "dev", actor, "needed", target, serving)


def test_the_cluster_is_never_reached_with_a_store_that_it_cannot_read(registry: Registry, versions: list[str]) -> None:
    with pytest.raises(UsageError, match="needs a store that the cluster can read"):
        deploy(registry, DeployRequest(versions[0], "manual", actor="ann", reason="needed", target="kserve"))


def test_the_first_step_names_the_version(registry: Registry, versions: list[str]) -> None:
    given = {"environment": "dev", "actor": "ann", "reason": "needed", "target": "local", "namespace": ""}
    assert choose_version.python_func(version=versions[1], store=registry.store.url, name="digits", **given) == versions[1]


@pytest.mark.integration
def test_the_command_deploys_and_goes_back(registry: Registry, tmp_path: Path) -> None:
    versions = []
    for day in (1, 2):
        bundle = tiny.write_bundle(tmp_path / f"v{day}", samples=600 * day, trained_at=f"2026-01-0{day}T03:04:05+00:00")
        (bundle / EVALUATION).write_text(json.dumps({"classes": tiny.CLASSES}))
        versions.append(publish_directory(registry, bundle).version)

    def run(version: str) -> str:
        settings = [f"version={version}", "actor=ann", "reason=needed"]
        given = [part for setting in settings for part in ("--set", setting)]
        done = penstock("run", "deployment", "--store", registry.store.url, "--name", "digits", *given, "--json", cwd=tmp_path)
        assert done.code == 0, done.out + done.err
        assert done.steps == ["choose-version", "validate-serving", "deploy-version", "conclude-run"]
        return str(done.json["outputs"]["outcome"])

    assert run(versions[0]) == "deployed"
    assert run(versions[1]) == "deployed"
    assert run("previous") == "deployed"
    assert registry.ledger.champion() == versions[0]
