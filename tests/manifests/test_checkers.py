"""The checkers of this folder find what they are for: each case is one mistake in an example that is right."""

import copy
from typing import Any

import pytest
import yaml

from tests.manifests.building import EXAMPLE, MANIFESTS, Object
from tests.manifests.pods import predictor_pod, restricted_violations
from tests.manifests.schemas import problems
from tests.manifests.webhook import knative_refusals, refusals

SERVICE: Object = yaml.safe_load((EXAMPLE / "inference-service.yaml").read_text())
RUNTIME: Object = yaml.safe_load((MANIFESTS / "base" / "runtime.yaml").read_text())


def changed(thing: Object, path: str, value: Any) -> Object:
    """A copy with the value set at a dotted path; None takes it out."""
    made = copy.deepcopy(thing)
    *above, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    place: Any = made
    for key in above:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return made


@pytest.mark.parametrize(
    ("thing", "path", "value"),
    [
        (SERVICE, "spec/predictor/minReplica", 1),
        (SERVICE, "spec/predictor/minReplicas", "1"),
        (SERVICE, "spec/predictor/model/storageURI", "s3://models/v1/"),
        (SERVICE, "spec/predictor/model/modelFormat", "penstock"),
        (SERVICE, "spec/predictor/model/modelFormat", {"version": "1"}),
        (SERVICE, "spec/predictor/securityContext/readOnlyRootFilesystem", True),
        (SERVICE, "spec/strategy", {}),
        (RUNTIME, "spec/serviceAccountName", "penstock-predictor"),
        (RUNTIME, "spec/securityContext", {"runAsNonRoot": True}),
        (RUNTIME, "spec/terminationGracePeriodSeconds", 45),
        (RUNTIME, "spec/containers/0/readinessProbe/httpGet", {"path": "/v2/health/ready"}),
        (RUNTIME, "spec/containers/0/lifecycle/preStop/sleep", {"second": 5}),
        (RUNTIME, "spec/containers/0/env/0", {"value": "0.8"}),
        (RUNTIME, "spec/containers", None),
    ],
)
def test_the_schema_refuses(thing: Object, path: str, value: Any) -> None:
    assert problems(thing) == []
    assert problems(changed(thing, path, value)) != []


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("metadata/name", "1digits", "name"),
        ("metadata/name", "digits.v2", "name"),
        ("metadata/annotations/serving.kserve.io~deploymentMode", "Knative", "deploymentStrategy only in Standard"),
        ("metadata/annotations/serving.kserve.io~autoscalerClass", "kpa", "autoscalerClass"),
        ("spec/predictor/maxReplicas", 0, None),
        ("spec/predictor/minReplicas", -1, "replicas"),
        ("spec/predictor/canaryTrafficPercent", 101, "percent"),
        ("spec/predictor/containers", [], "exactly one of model and containers"),
        ("spec/predictor/onnx", {}, "exactly one of model and containers"),
        ("spec/predictor/model/name", "digits", "model.name"),
        ("spec/predictor/model/env", [{"name": "PYTHONPATH", "value": "/tmp"}], "env PYTHONPATH"),
        ("spec/predictor/model/protocolVersion", "v3", "protocol"),
        ("spec/predictor/model/resources", {"limits": {"memory": "1 GB"}}, "quantities"),
        ("spec/predictor/model/storageUri", "models/v1/", "storageUri"),
    ],
)
def test_the_webhook_refuses(path: str, value: Any, reason: str | None) -> None:
    assert refusals(SERVICE) == []
    wrong = copy.deepcopy(SERVICE)
    place: Any = wrong
    *above, last = path.split("/")
    for key in above:
        place = place[key]
    place[last.replace("~", "/")] = value
    assert refusals(wrong) == ([reason] if reason else [])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec/containers/0/securityContext", None),
        ("spec/containers/0/securityContext/allowPrivilegeEscalation", None),
        ("spec/containers/0/securityContext/capabilities", {"drop": ["NET_RAW"]}),
        ("spec/containers/0/securityContext/capabilities", {"drop": ["ALL"], "add": ["SYS_PTRACE"]}),
        ("spec/containers/0/securityContext/runAsNonRoot", False),
        ("spec/containers/0/securityContext/runAsUser", 0),
        ("spec/containers/0/securityContext/seccompProfile", {"type": "Unconfined"}),
        ("spec/containers/0/securityContext/privileged", True),
        ("spec/initContainers/0/securityContext", None),
        ("spec/containers/0/ports/0", {"containerPort": 8080, "hostPort": 8080}),
        ("spec/volumes/0", {"name": "tmp", "hostPath": {"path": "/tmp"}}),
        ("spec/hostNetwork", True),
    ],
)
def test_restricted_refuses(path: str, value: Any) -> None:
    pod = predictor_pod(RUNTIME, SERVICE)
    assert restricted_violations(pod) == []
    assert restricted_violations(changed(pod, path, value)) != []


def test_restricted_refuses_kserves_init_container_as_it_comes() -> None:
    found = restricted_violations(predictor_pod(RUNTIME, SERVICE, patched_initializer=False))
    assert found == ["storage-initializer: allowPrivilegeEscalation", "storage-initializer: capabilities"]


def test_knative_refuses_what_the_component_takes_out() -> None:
    found = knative_refusals(predictor_pod(RUNTIME, SERVICE)["spec"])
    assert found == ["securityContext", "terminationGracePeriodSeconds", "lifecycle", "startupProbe", "livenessProbe's port"]
