"""The admission policy: an account that may deploy and may not make pods can make services of ours only."""

import copy
import secrets
import time
from collections.abc import Callable, Iterator

import pytest
import requests
import yaml

from components.deploy.kserve.service import render
from components.settings.serving import KServeSettings
from tests.cluster.api import SERVING, Api, Object
from tests.cluster.place import ROOT, Place

COMPONENT = ROOT / "manifests" / "components" / "deployer-policy"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
POLICIES, BINDINGS = f"{ADMISSION}/validatingadmissionpolicies", f"{ADMISSION}/validatingadmissionpolicybindings"


@pytest.fixture
def guarded(place: Place) -> Iterator[Place]:
    """A namespace in which the policy holds; its cluster-wide objects have names of this test's own."""
    own = f"-{secrets.token_hex(3)}"
    policy, binding = yaml.safe_load_all((COMPONENT / "policy.yaml").read_text())
    for it in (policy, binding):
        it["metadata"]["name"] += own
    binding["spec"]["policyName"] += own
    namespace = f"/api/v1/namespaces/{place.namespace}"
    labels = {"penstock/deployer-policy": f"enforced{own}"}
    binding["spec"]["matchResources"]["namespaceSelector"]["matchLabels"] = labels
    place.api.merge(namespace, {"metadata": {"labels": labels, "annotations": {"penstock/store": place.registry.store.url}}})
    place.api.ask("POST", POLICIES, policy)
    place.api.ask("POST", BINDINGS, binding)
    try:
        deployer = Api(str(place.kubeconfig))
        wait_until(lambda: "penstock-deployer" in attempt(deployer, place, with_container(wanted(place))), "the policy never held")
        yield place
    finally:
        place.api.ask("DELETE", f"{BINDINGS}/{binding['metadata']['name']}")
        place.api.ask("DELETE", f"{POLICIES}/{policy['metadata']['name']}")


def wait_until(holds: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, otherwise
        time.sleep(0.2)


def wanted(place: Place, version: str = "v1") -> Object:
    """What the deploy step applies, in a service of its own."""
    name = place.versions[version]
    settings = KServeSettings(namespace=place.namespace)
    made = render("tried", name, place.registry.uri(name), settings, {"PENSTOCK_REVIEW_THRESHOLD": "0.9", "PENSTOCK_AUDIT_RATE": "0.01"})
    made["metadata"]["namespace"] = place.namespace
    return made


def attempt(account: Api, place: Place, service: Object, method: str = "POST") -> str:
    """Create the service as a dry run, or patch the one that is there; returns the refusal, or nothing."""
    path = f"{SERVING}/v1beta1/namespaces/{place.namespace}/inferenceservices"
    try:
        if method == "POST":
            account.ask("POST", path, service, dryRun="All", fieldValidation="Strict")
        else:
            account.merge(f"{path}/{service['metadata']['name']}", service)
    except requests.HTTPError as error:
        return str(error.response.json()["message"] if error.response is not None else error)
    return ""


def with_container(service: Object) -> Object:
    del service["spec"]["predictor"]["model"]
    service["spec"]["predictor"]["containers"] = [{"name": "kserve-container", "image": "registry.invalid/evil:1"}]
    return service


def predictor(**more: object) -> Callable[[Object], None]:
    return lambda it: it["spec"]["predictor"].update(more)


def model(**more: object) -> Callable[[Object], None]:
    return lambda it: it["spec"]["predictor"]["model"].update(more)


def uri(change: Callable[[str], str]) -> Callable[[Object], None]:
    return lambda it: model(storageUri=change(it["spec"]["predictor"]["model"]["storageUri"]))(it)


def noted(kind: str, **more: str) -> Callable[[Object], None]:
    return lambda it: it["metadata"][kind].update({key.replace("__", "/").replace("_", "-"): value for key, value in more.items()})


SECRET = {"secretKeyRef": {"name": "penstock-s3", "key": "AWS_SECRET_ACCESS_KEY"}}
CONTAINER = {"name": "kserve-container", "image": "registry.invalid/evil:1"}
VOLUME = {"name": "keys", "secret": {"secretName": "penstock-s3"}}
ATTEMPTS: dict[str, tuple[Callable[[Object], object], str]] = {
    "a container of its own": (with_container, "may not set spec.predictor.containers"),
    "a second container": (predictor(containers=[{**CONTAINER, "name": "other"}]), "may not set spec.predictor.containers"),
    "an init container": (predictor(initContainers=[CONTAINER]), "may not set spec.predictor.initContainers"),
    "a volume with a Secret": (predictor(volumes=[VOLUME]), "may not set spec.predictor.volumes"),
    "another ServiceAccount": (predictor(serviceAccountName="default"), "ServiceAccount penstock-predictor only"),
    "the account's token": (predictor(automountServiceAccountToken=True), "without its token"),
    "the host's network": (predictor(hostNetwork=True), "may not set spec.predictor.hostNetwork"),
    "another user": (predictor(securityContext={"runAsUser": 1000}), "only runAsNonRoot and seccompProfile"),
    "pod annotations": (predictor(annotations={"a": "b"}), "may not set spec.predictor.annotations"),
    "another runtime": (model(runtime="other"), "ServingRuntime penstock-onnx-v1 and model format penstock only"),
    "no runtime": (lambda it: it["spec"]["predictor"]["model"].pop("runtime"), "ServingRuntime penstock-onnx-v1 and model format"),
    "another model format": (model(modelFormat={"name": "pytorch"}), "ServingRuntime penstock-onnx-v1 and model format penstock only"),
    "a format that KServe has a runtime for": (
        lambda it: it["spec"].update(predictor={"sklearn": {"storageUri": "s3://x/y/"}}),
        "may not set spec.predictor.sklearn",
    ),
    "another image": (model(image="registry.invalid/evil:1"), "may not set spec.predictor.model.image"),
    "another image by its tag": (model(runtimeVersion="evil"), "may not set spec.predictor.model.runtimeVersion"),
    "another command": (model(command=["sh"]), "may not set spec.predictor.model.command"),
    "more arguments": (model(args=["--model_dir=/tmp"]), "may not set spec.predictor.model.args"),
    "all of a Secret": (model(envFrom=[{"secretRef": {"name": "penstock-s3"}}]), "may not set spec.predictor.model.envFrom"),
    "a Secret in a variable": (model(env=[{"name": "PENSTOCK_AUDIT_RATE", "valueFrom": SECRET}]), "in spec.predictor.model.env, as values"),
    "another key to verify with": (model(env=[{"name": "PENSTOCK_VERIFY_KEY", "value": "/tmp/mine"}]), "may set only PENSTOCK_AUDIT_RATE"),
    "pictures to somebody else": (
        model(env=[{"name": "PENSTOCK_SHADOW_URL", "value": "https://evil.example"}]),
        "may set only PENSTOCK_AUDIT_RATE",
    ),
    "a mounted Secret": (model(volumeMounts=[{"name": "keys", "mountPath": "/keys"}]), "may not set spec.predictor.model.volumeMounts"),
    "storage by a Secret's key": (model(storage={"key": "x", "path": "y"}), "may not set spec.predictor.model.storage"),
    "another bucket": (uri(lambda it: it.replace("s3://", "s3://their-")), "may deploy from s3://"),
    "another prefix of the bucket": (uri(lambda it: it.replace("/models/", "/scores/")), "/models/NAME/VERSION/ only"),
    "another protocol": (uri(lambda it: it.replace("s3://", "https://")), "/models/NAME/VERSION/ only"),
    "a path that climbs": (uri(lambda it: f"{it}../../other/"), "/models/NAME/VERSION/ only"),
    "no slash at the end": (uri(lambda it: it.rstrip("/")), "/models/NAME/VERSION/ only"),
    "a transformer": (lambda it: it["spec"].update(transformer={"containers": [CONTAINER]}), "may set spec.predictor only"),
    "a canary": (
        lambda it: it["spec"].update(canary=[{"trafficPercent": 1, "predictor": {"name": "b", "containers": [CONTAINER]}}]),
        "may set spec.predictor only",
    ),
    "a sidecar by a mesh": (noted("annotations", sidecar_istio_io__proxyImage="registry.invalid/evil:1"), "may set only the annotations"),
    "the label that policies look at": (noted("labels", app_kubernetes_io__name="other"), "may set only the labels"),
}  # fmt: skip


def test_what_is_not_ours_is_refused_and_what_the_step_applies_is_not(guarded: Place) -> None:
    deployer = Api(str(guarded.kubeconfig))
    assert attempt(deployer, guarded, wanted(guarded)) == ""
    for what, (change, words) in ATTEMPTS.items():
        service = wanted(guarded)
        change(service)
        refusal = attempt(deployer, guarded, service)
        assert "denied request" in refusal, f"{what}: {refusal or 'let through'}"
        assert words in refusal, what
        allowed = attempt(guarded.api, guarded, service)  # KServe's own rules refuse some
        assert "penstock-deployer" not in allowed, f"{what}: whoever may make pods is not asked"


def test_a_version_is_rolled_out_and_undone_under_the_policy(guarded: Place) -> None:
    assert guarded.deploy("v1", settle_seconds=0, variables={"PENSTOCK_AUDIT_RATE": "0.01"}) == "deployed"
    assert guarded.deploy("v2", settle_seconds=0, canary=True) == "deployed"
    assert guarded.served() == "v2"
    deployer = Api(str(guarded.kubeconfig))
    live = guarded.service()
    assert live is not None
    assert {"name": "PENSTOCK_VERIFY_NAME", "value": "digits"} in live["spec"]["predictor"]["model"]["env"]
    service = {"metadata": {"name": "digits"}, "spec": {"predictor": {"model": {"image": "registry.invalid/evil:1"}}}}
    assert "may not set spec.predictor.model.image" in attempt(deployer, guarded, service, "PATCH")
    foreign = copy.deepcopy(wanted(guarded))
    guarded.api.ask("POST", f"{SERVING}/v1beta1/namespaces/{guarded.namespace}/inferenceservices", with_container(foreign))
    label = {"metadata": {"name": "tried", "labels": {"app.kubernetes.io/part-of": "penstock"}}}
    assert attempt(deployer, guarded, label, "PATCH") == "", "what others made keeps its spec"
    command = {"metadata": {"name": "tried"}, "spec": {"predictor": {"containers": [{**CONTAINER, "command": ["sh"]}]}}}
    assert "may not set spec.predictor.containers" in attempt(deployer, guarded, command, "PATCH")


def test_the_namespace_says_what_is_ours(guarded: Place) -> None:
    deployer, namespace = Api(str(guarded.kubeconfig)), f"/api/v1/namespaces/{guarded.namespace}"
    other = wanted(guarded)
    model(runtime="ours-v2")(other)
    assert "ServingRuntime penstock-onnx-v1 and model format" in attempt(deployer, guarded, other)
    guarded.api.merge(namespace, {"metadata": {"annotations": {"penstock/runtime": "ours-v2"}}})
    wait_until(lambda: attempt(deployer, guarded, other) == "", "the annotation was never read")
    guarded.api.merge(namespace, {"metadata": {"annotations": {"penstock/store": None}}})
    wait_until(lambda: "penstock/store, which is missing" in attempt(deployer, guarded, other), "without a store all were let through")
    guarded.api.merge(namespace, {"metadata": {"labels": {"penstock/deployer-policy": None}}})
    wait_until(lambda: attempt(deployer, guarded, with_container(wanted(guarded))) == "", "a namespace without the label is not meant")
