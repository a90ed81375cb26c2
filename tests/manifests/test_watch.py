"""The CronJob that watches: what it calls exists, and its account may do what that asks for."""

import tomllib
from pathlib import Path

import pytest
import typer

from pipelines.cli import app
from tests.manifests.building import MANIFESTS, ROOT, Object, composed, kustomize, of_kind, only
from tests.manifests.pods import restricted_violations

pytestmark = pytest.mark.skipif(not kustomize(), reason="neither kustomize nor kubectl is installed; .ci/kustomize builds one")


@pytest.fixture
def objects(tmp_path: Path) -> list[Object]:
    return composed(tmp_path / "mine", "watch", resources=(MANIFESTS / "base" / "storage",))


def test_the_pod_is_taken_where_restricted_is_enforced_and_has_limits(objects: list[Object]) -> None:
    pod = only(objects, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]
    assert restricted_violations(pod) == []
    assert set(pod["spec"]["containers"][0]["resources"]["limits"]) == {"cpu", "memory"}


def test_its_command_line_is_one_that_the_command_takes(objects: list[Object]) -> None:
    (container,) = only(objects, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"][:3] == ["python3", "-m", "pipelines.cli"]
    words = [*container["command"][3:], *container["args"]]
    command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]  # it is a group
    given = command.make_context("watch", words[1:]).params
    assert (given["once"], given["predictors"], given["settings"]) == (
        True,
        ["http://digits-predictor.penstock"],
        ["source=s3://data/digits"],
    )
    variables = {parameter.envvar for parameter in command.params} | {"PENSTOCK_IMAGE"}
    (settings,) = [it for it in of_kind(objects, "ConfigMap") if it["metadata"]["name"] == "penstock-watch"]
    assert settings["data"].keys() <= variables
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert settings["data"]["PENSTOCK_IMAGE"].endswith(f":{version}")


def test_its_account_may_start_runs_and_nothing_else(objects: list[Object]) -> None:
    account = only(objects, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["serviceAccountName"]
    assert [it["name"] for it in only(objects, "RoleBinding")["subjects"]] == [account]
    (rule,) = only(objects, "Role")["rules"]
    assert (rule["apiGroups"], set(rule["resources"])) == (["pipelines.kubeflow.org"], {"runs", "experiments"})
    assert set(rule["verbs"]) == {"create", "get", "list"}
