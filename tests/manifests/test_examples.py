"""The examples, which are applied as they are: by the schemas of those who read them, and by what they name of ours."""

import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from components.bundle.search import TrialResult
from components.registry.kept_dataset import is_kept
from components.registry.manifest import VERSION_PATTERN
from components.settings.search import settings_of_trial
from pipelines.catalogue import load_pipeline
from pipelines.cli import app
from pipelines.parameters import parse_settings
from tests.manifests.building import MANIFESTS, ROOT, Object, only
from tests.manifests.pods import restricted_violations
from tests.manifests.schemas import problems
from tests.manifests.test_checkers import changed

FIGURES = TrialResult(trial=1, settings={}, rung=1, until=1, seed=0, epochs=1, validation_accuracy=1.0, validation_loss=0.0).figures()
"""What `penstock trial` prints."""
EXAMPLES = sorted((MANIFESTS / "examples").rglob("*.yaml"))


def objects_of(*paths: Path) -> list[Object]:
    return [it for path in paths for it in yaml.safe_load_all(path.read_text("utf-8"))]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda it: f"{it.parent.name}/{it.stem}")
def test_an_example_is_taken(path: Path) -> None:
    for it in objects_of(path):
        assert problems(it) == []


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("EventSource", "spec/minio/delivered/bucket", {"named": "data"}),
        ("EventSource", "spec/minio/delivered/endpoint", None),
        ("EventSource", "spec/minio/delivered/filters", {}),
        ("Sensor", "spec/triggers/0/template/k8s/action", "create"),
        ("Sensor", "spec/triggers/0/rateLimit/perHour", 1),
        ("Sensor", "spec/dependencies/0/eventName", None),
        ("LocalModelCache", "spec/modelSize", None),
        ("LocalModelCache", "spec/nodeGroup", "penstock"),
        ("LocalModelNodeGroup", "spec/storageLimit", None),
        ("Experiment", "spec/objective/metricName", "validation_accuracy"),
        ("Experiment", "spec/maxTrialCount", "12"),
        ("Experiment", "spec/parameters/0/feasibleSpace/maximum", "1"),
        ("Experiment", "spec/parameters/0/feasibleSpace/min", 0.0003),
        ("Experiment", "spec/trialTemplate/trialSpec/spec/template/spec/container", []),
    ],
)
def test_the_schemas_refuse(kind: str, path: str, value: Any) -> None:
    example = only(objects_of(*EXAMPLES), kind)
    assert problems(changed(example, path, value)) != []


def test_a_delivery_submits_a_retraining_by_a_command_line_that_is_taken() -> None:
    objects = objects_of(*(MANIFESTS / "examples" / "argo-events").iterdir())
    sensor, source = only(objects, "Sensor"), only(objects, "EventSource")
    (dependency,) = sensor["spec"]["dependencies"]
    assert (dependency["eventSourceName"], dependency["eventName"] in source["spec"]["minio"]) == (source["metadata"]["name"], True)
    job = sensor["spec"]["triggers"][0]["template"]["k8s"]["source"]["resource"]
    pod = job["spec"]["template"]
    assert restricted_violations(pod) == []
    (container,) = pod["spec"]["containers"]
    assert container["command"][:3] == ["python3", "-m", "pipelines.cli"]
    words = [*container["command"][3:], *container["args"]]
    command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]  # it is a group
    given = command.make_context("submit", ["--host=http://ml-pipeline.kubeflow:8888", *words[1:]]).params
    assert (given["pipeline"], "source=s3://data/pets" in given["settings"]) == ("retraining", True)
    assert only(objects, "Role")["rules"] == [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]}]
    assert sensor["spec"]["template"]["serviceAccountName"] == only(objects, "ServiceAccount")["metadata"]["name"]
    watch = objects_of(*(MANIFESTS / "components" / "watch").glob("*.yaml"))
    assert pod["spec"]["serviceAccountName"] == only(watch, "ServiceAccount")["metadata"]["name"]
    assert container["envFrom"][0]["configMapRef"]["name"] == only(watch, "ConfigMap")["metadata"]["name"]
    assert pod["spec"]["volumes"] == only(watch, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["volumes"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert container["image"].endswith(f"/penstock-pipeline-slim:{version}")


def test_a_trial_of_katib_is_a_command_line_that_is_taken_at_both_ends_of_its_space() -> None:
    objects = objects_of(MANIFESTS / "examples" / "katib" / "experiment.yaml")
    spec = only(objects, "Experiment")["spec"]
    template = spec["trialTemplate"]
    pod = template["trialSpec"]["spec"]["template"]
    assert restricted_violations(pod) == []
    assert pod["spec"]["serviceAccountName"] == only(objects, "ServiceAccount")["metadata"]["name"]
    (container,) = pod["spec"]["containers"]
    assert container["name"] == template["primaryContainerName"]
    assert {spec["objective"]["objectiveMetricName"], *spec["objective"]["additionalMetricNames"]} <= set(FIGURES)
    words = [*container["command"], *container["args"]]
    assert words[:4] == ["python3", "-m", "pipelines.cli", "trial"]
    references = {it["name"]: it["reference"] for it in template["trialParameters"]}
    assert set(references.values()) == {it["name"] for it in spec["parameters"]}
    spaces = {it["name"]: it["feasibleSpace"] for it in spec["parameters"]}
    for end in (0, -1):
        chosen = {name: (it.get("list") or [it["min"], it["max"]])[end] for name, it in spaces.items()}
        filled = words
        for name, reference in references.items():
            filled = [word.replace(f"${{trialParameters.{name}}}", chosen[reference]) for word in filled]
        assert not any("$" in word for word in filled)
        assert shlex.split(" ".join(filled)) == filled, "Katib joins the words for a shell, without quotes"
        command = typer.main.get_command(app).commands["trial"]  # type: ignore[attr-defined]  # it is a group
        given = command.make_context("trial", filled[4:]).params
        assert is_kept(given["source"])
        read = parse_settings(load_pipeline("training"), given["settings"])
        options = settings_of_trial(read["training"], read, {})
        assert {name: getattr(options, name) for name in chosen} == {name: yaml.safe_load(value) for name, value in chosen.items()}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert container["image"].endswith(f"/penstock-pipeline:{version}")


def test_the_cached_address_is_that_of_a_version() -> None:
    objects = objects_of(*(MANIFESTS / "examples" / "model-cache").iterdir())
    cache, group = only(objects, "LocalModelCache"), only(objects, "LocalModelNodeGroup")
    *_, models, name, version, end = cache["spec"]["sourceModelUri"].split("/")
    assert (models, end, cache["metadata"]["name"]) == ("models", "", f"{name}-{version}")
    assert VERSION_PATTERN.fullmatch(version)
    assert cache["spec"]["nodeGroups"] == [group["metadata"]["name"]]
