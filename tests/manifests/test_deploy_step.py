"""The deploy step and the manifests speak of the same things."""

import pytest

from components.deploy.kserve.service import DIGEST, render
from components.settings.serving import KServeSettings
from tests.manifests.building import EXAMPLE, MANIFESTS, Object, built, kustomize, of_kind, only
from tests.manifests.pods import predictor_pod, restricted_violations
from tests.manifests.schemas import problems
from tests.manifests.webhook import refusals

pytestmark = pytest.mark.skipif(not kustomize(), reason="neither kustomize nor kubectl is installed; .ci/kustomize builds one")

VERSION = "20260101-120000-0123456789ab"
URI = f"s3://models/penstock/models/digits/{VERSION}/"


def rendered(**settings: object) -> Object:
    return render("digits", VERSION, URI, KServeSettings(namespace="penstock", **settings))  # type: ignore[arg-type]


def test_the_deploy_step_names_what_is_there() -> None:
    settings, objects = KServeSettings(), built(MANIFESTS / "base")
    runtime = only(objects, "ServingRuntime")
    assert runtime["metadata"]["name"] == settings.runtime
    assert [it["name"] for it in runtime["spec"]["supportedModelFormats"]] == [settings.model_format]
    assert settings.service_account in {it["metadata"]["name"] for it in of_kind(objects, "ServiceAccount")}


@pytest.mark.parametrize(
    "settings", [{}, {"max_replicas": 4}, {"mode": "Knative"}, {"mode": "Knative", "min_replicas": 0, "max_replicas": 3}]
)
def test_what_it_renders_is_taken(settings: dict[str, object]) -> None:
    service = rendered(**settings)
    assert problems(service) == []
    assert refusals(service) == []


def test_its_pods_pass_restricted() -> None:
    assert restricted_violations(predictor_pod(only(built(MANIFESTS / "base"), "ServingRuntime"), rendered())) == []


def test_the_example_is_what_it_would_render() -> None:
    example, mine = only(built(EXAMPLE), "InferenceService"), rendered()
    del mine["metadata"]["annotations"][DIGEST]  # of the spec that follows, by which the step knows its own pods
    assert example["metadata"]["annotations"] == mine["metadata"]["annotations"]
    del mine["spec"]["predictor"]["maxReplicas"], example["spec"]["predictor"]["model"]["modelFormat"]["version"]
    assert example["spec"] == mine["spec"]
