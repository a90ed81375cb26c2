"""Every kustomization, and every mix of components that makes sense, is what KServe and Pod Security take."""

from itertools import product
from pathlib import Path

import pytest

from tests.manifests.building import EXAMPLE, MANIFESTS, Object, built, composed, folders, kustomize, of_kind, only
from tests.manifests.pods import predictor_pod, restricted_violations
from tests.manifests.schemas import problems
from tests.manifests.webhook import knative_refusals, refusals, runtime_refusals

pytestmark = pytest.mark.skipif(not kustomize(), reason="neither kustomize nor kubectl is installed; .ci/kustomize builds one")

KUSTOMIZATIONS = {str(folder.relative_to(MANIFESTS)): folder for folder in folders("Kustomization")}
COMPONENTS = sorted(folder.name for folder in folders("Component"))
SCALING = [(), ("hpa",), ("keda",), ("knative",)]
STORAGE = [(), ("s3-minio",), ("s3-seaweedfs", "private-ca"), ("irsa",)]
OTHERS = ("gpu", "prometheus", "restricted", "deployer-policy", "review", "signing", "trainer", "ray", "watch")
MIXES = [*COMPONENTS, *("+".join((*scaling, *storage, *OTHERS)) for scaling, storage in product(SCALING, STORAGE))]


def test_no_folder_is_left_out() -> None:
    assert {"gpu", "hpa", "irsa", "keda", "knative", "prometheus", "restricted", "s3-minio", "s3-seaweedfs"} <= set(COMPONENTS)
    assert {f"overlays/{it}" for it in ("dev", "prod", "standalone-kfp", "kubeflow-profile")} <= KUSTOMIZATIONS.keys()
    assert set(COMPONENTS) == {it for mix in MIXES if "+" in mix for it in mix.split("+")}


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_a_kustomization_builds_and_is_taken(name: str) -> None:
    objects = built(KUSTOMIZATIONS[name])
    assert objects
    assert_taken(objects)


@pytest.mark.parametrize("mix", MIXES)
def test_components_fit_together(mix: str, tmp_path: Path) -> None:
    objects = composed(tmp_path / "mine", *mix.split("+"))
    assert_taken(objects)
    pod = predictor_pod(only(objects, "ServingRuntime"), only(objects, "InferenceService"))
    assert restricted_violations(pod) == []
    if "knative" in mix and "gpu" not in mix:  # tolerations are a feature to switch on in Knative
        assert knative_refusals(pod["spec"]) == []


@pytest.mark.parametrize("overlay", [it for it in KUSTOMIZATIONS if it.startswith("overlays/") and it.count("/") == 1])
@pytest.mark.parametrize("scaling", ["hpa", "knative"])
def test_a_service_can_be_added_to_an_overlay(overlay: str, scaling: str, tmp_path: Path) -> None:
    resources = (KUSTOMIZATIONS[overlay], EXAMPLE)
    objects = composed(tmp_path / "mine", scaling, resources=resources, namespace=None)
    assert_taken(objects)
    pod = predictor_pod(only(objects, "ServingRuntime"), only(objects, "InferenceService"))
    assert restricted_violations(pod) == []


@pytest.mark.parametrize(
    ("half", "namespace", "components"),
    [("serving", "penstock", ("review", "signing", "prometheus", "deployer-policy")), ("steps", "kubeflow", ("watch", "trainer", "ray"))],
)
def test_components_go_over_the_halves_of_the_overlay_for_two_namespaces(
    half: str, namespace: str, components: tuple[str, ...], tmp_path: Path
) -> None:
    resources = (MANIFESTS / "overlays" / "standalone-kfp" / half,)
    objects = composed(tmp_path / "mine", *components, resources=resources, namespace=namespace)
    assert_taken(objects)
    of_the_cluster = {"Namespace", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    assert {it["metadata"].get("namespace") for it in objects if it["kind"] not in of_the_cluster} == {namespace}
    subjects = [it for binding in of_kind(objects, "RoleBinding") for it in binding["subjects"]]
    assert half == "steps" or {"kind": "ServiceAccount", "name": "pipeline-runner", "namespace": "kubeflow"} in subjects


def assert_taken(objects: list[Object]) -> None:
    for it in objects:
        assert problems(it) == [], it["metadata"]["name"]
    for service in of_kind(objects, "InferenceService"):
        assert refusals(service) == []
    for runtime in of_kind(objects, "ServingRuntime"):
        assert runtime_refusals(runtime) == []
    names = [(it["kind"], it["metadata"].get("namespace"), it["metadata"]["name"]) for it in objects]
    assert len(names) == len(set(names))
