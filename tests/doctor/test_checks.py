"""Each check over tables of what was seen: what it says when all is well, and for each fault."""

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.doctor.registry import REGISTERED, Result, State, run
from components.doctor.report import all_checks, as_json, as_text, checks_page, examine
from components.doctor.seen import DEPLOY_RIGHTS, PREFLIGHT_RIGHTS, RUN_RIGHTS, Scope, Seen, StoreSeen, Unseen
from components.settings.base import amount

ROOT = Path(__file__).parents[2]
SCOPE = Scope(
    "models",
    "kubeflow",
    "kubeflow:pipeline-runner",
    steps={"train": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}},
)
RESOURCES = {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
PASSES = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
GOOD_ARGO = yaml.safe_dump({"spec": {"templateDefaults": {"retryStrategy": {"limit": "2", "retryPolicy": "Always"}}}})


def items(*them: Any) -> dict[str, Any]:
    return {"items": list(them)}


def node(name: str = "n1", taints: Any = None, **allocatable: str) -> dict[str, Any]:
    given = {"cpu": "4", "memory": "8Gi", "pods": "110"} | allocatable
    conditions = [{"type": "Ready", "status": "True"}]
    return {"metadata": {"name": name}, "spec": {"taints": taints or []}, "status": {"conditions": conditions, "allocatable": given}}


def quota(**hard: str) -> dict[str, Any]:
    bounds = {key.replace("_", "."): it for key, it in hard.items()}
    return items({"metadata": {"name": "q"}, "spec": {"hard": bounds}, "status": {"hard": bounds, "used": dict.fromkeys(bounds, "0")}})


def limits(**limit: Any) -> dict[str, Any]:
    return items({"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", **limit}]}})


def service(uri: str = "s3://b/models/digits/v2/", mode: str = "Standard") -> dict[str, Any]:
    return {"metadata": {"annotations": {"serving.kserve.io/deploymentMode": mode}}, "spec": {"predictor": {"model": {"storageUri": uri}}}}


def secret(data: Any = None, **annotations: str | None) -> dict[str, Any]:
    usual = {"s3-endpoint": "minio.minio:9000", "s3-usehttps": "0", "s3-region": "us-east-1"}
    given = usual | {key.replace("_", "-"): it for key, it in annotations.items()}
    written = {f"serving.kserve.io/{key}": it for key, it in given.items() if it is not None}
    return {
        "metadata": {"annotations": written},
        "data": {"AWS_ACCESS_KEY_ID": True, "AWS_SECRET_ACCESS_KEY": True} if data is None else data,
    }


def deployment(image: str, ready: int = 1) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"image": image}]}}}, "status": {"readyReplicas": ready}}


RUNTIME = {
    "kind": "ServingRuntime",
    "metadata": {"name": "penstock-onnx-v1"},
    "spec": {"supportedModelFormats": [{"name": "penstock"}], "containers": [{"resources": RESOURCES}]},
}
LABELS = {"pod-security.kubernetes.io/enforce": "restricted", "penstock/deployer-policy": "enforced"}
THINGS: dict[str, Any] = {
    "Kubernetes version": {"major": "1", "minor": "34+", "gitVersion": "v1.34.4"},
    "API groups": {"groups": [{"name": "serving.kserve.io"}, {"name": "argoproj.io"}]},
    "KServe kinds": {"resources": [{"kind": "InferenceService"}]},
    "KServe controller": deployment("kserve/kserve-controller:v0.20.0"),
    "KServe configuration": {"data": {"deploy": '{"defaultDeploymentMode": "Standard"}'}},
    "namespace": {"metadata": {"labels": LABELS, "annotations": {"penstock/store": "s3://b"}}},
    "ServingRuntime": RUNTIME,
    "ClusterServingRuntime": None,
    "storage initializer": {"spec": {"container": {"securityContext": PASSES}}},
    "InferenceService": service(),
    "predictor's account": {"secrets": [{"name": "penstock-s3"}]},
    "Secret penstock-s3": secret(),
    "Secret of runs": secret(),
    "Kubeflow server": deployment("ghcr.io/kubeflow/kfp-api-server:2.17.0"),
    "Kubeflow server of runs": None,
    "Argo configuration of runs": None,
    "Argo configuration": {"metadata": {"namespace": "kubeflow"}, "data": {"workflowDefaults": GOOD_ARGO}},
    "Kubeflow launcher": {"data": {"defaultPipelineRoot": "s3://mlpipeline/root"}},
    "nodes": items(node()),
    "all pods": items(),
    "system agents": items(),
    "HorizontalPodAutoscalers": items(),
    "NetworkPolicies": items(),
    "admission policy": {"metadata": {"name": "penstock-deployer"}},
    "admission policy's binding": {"spec": {"validationActions": ["Deny"]}},
    **{f"{name}{suffix}": items() for name in ("ResourceQuotas", "LimitRanges", "pods", "events") for suffix in ("", " of runs")},
}
RIGHTS = {
    **{("models", verb, group, resource): True for group, resource, verb in DEPLOY_RIGHTS},
    **{("kubeflow", verb, group, resource): True for group, resource, verb in RUN_RIGHTS},
}
STORE = StoreSeen("s3://b", written=True, server="MinIO", models="s3://b/models/digits/", champion="v2", clock_seconds=0.2)
WELL = Seen(SCOPE, THINGS, RIGHTS, STORE, {"tag_name": "2.17.0"}, 0.1)


def with_things(**changes: Any) -> Seen:
    return replace(WELL, things=THINGS | {key.replace("_", " "): it for key, it in changes.items()})


def results(check: str, seen: Seen) -> list[Result]:
    return list(run(REGISTERED[check], seen))


def test_all_is_well_where_all_is_well() -> None:
    assert {it.check: it.saw for it in examine(WELL) if it.state != State.OK} == {}
    assert {it.check for it in examine(WELL)} == {it.id for it in all_checks()}


WAITING = {
    "metadata": {"name": "digits-1"},
    "spec": {"serviceAccountName": "penstock-predictor"},
    "status": {"containerStatuses": [{"image": "registry.invalid/x:1", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
}
FULL = {"spec": {"nodeName": "n1", "containers": [{"resources": {"requests": {"cpu": "3800m"}}}]}, "status": {"phase": "Running"}}
KNATIVE = replace(WELL, scope=replace(SCOPE, mode="Knative"))
FAULTS: list[tuple[str, Seen, State, str, str]] = [
    (
        "kubernetes-version",
        with_things(Kubernetes_version={"major": "1", "minor": "28", "gitVersion": "v1.28.1"}),
        State.WARNING,
        "v1.28.1",
        "upgrade",
    ),
    ("kserve-installed", with_things(API_groups={"groups": []}), State.BROKEN, "no InferenceServices", "install KServe"),
    ("kserve-installed", with_things(KServe_kinds={"resources": []}), State.BROKEN, "without InferenceServices", "CRDs"),
    ("kserve-installed", with_things(KServe_controller=None), State.WARNING, "no controller", "kubectl get deployments"),
    (
        "kserve-installed",
        with_things(KServe_controller=deployment("x:v0.20.0", 0)),
        State.BROKEN,
        "0 of its controllers",
        "kubectl -n kserve",
    ),
    ("deployment-mode", KNATIVE, State.BROKEN, "no Knative", "mode=Standard"),
    (
        "deployment-mode",
        with_things(InferenceService=service(mode="Serverless")),
        State.BROKEN,
        "runs in mode Serverless",
        "serving.mode=Serverless",
    ),
    (
        "default-deployment-mode",
        with_things(KServe_configuration={"data": {"deploy": '{"defaultDeploymentMode": "Knative"}'}}),
        State.WARNING,
        "Knative",
        "Standard",
    ),
    ("kubeflow-version", replace(WELL, kubeflow={"problem": "http://x answered 302"}), State.BROKEN, "answered 302", "token"),
    (
        "kubeflow-version",
        replace(with_things(Kubeflow_server=None), kubeflow=Unseen("no host")),
        State.WARNING,
        "namespace kubeflow",
        "--host",
    ),
    (
        "argo-retries",
        with_things(Argo_configuration={"data": {"workflowDefaults": GOOD_ARGO.replace("Always", "OnError")}}),
        State.WARNING,
        "OnError",
        "patch configmap",
    ),
    (
        "pipeline-root",
        with_things(Kubeflow_launcher={"data": {"defaultPipelineRoot": "minio://mlpipeline"}}),
        State.WARNING,
        "minio://",
        "s3://mlpipeline",
    ),
    ("room-for-second-pod", with_things(nodes=items()), State.BROKEN, "no node", "kubectl get nodes"),
    ("room-for-second-pod", with_things(all_pods=items(FULL)), State.BROKEN, "cpu 500m", "add a node"),
    (
        "room-for-second-pod",
        with_things(nodes=items(node(taints=[{"key": "x", "effect": "NoSchedule"}]))),
        State.BROKEN,
        "every node is tainted",
        "node",
    ),
    (
        "gpu-nodes",
        with_things(nodes=items(node(taints=[{"key": "gpu", "value": "a", "effect": "NoSchedule"}], **{"nvidia.com/gpu": "1"}))),
        State.WARNING,
        "gpu=a:NoSchedule",
        "kubectl taint nodes n1 gpu=a:NoSchedule-",
    ),
    (
        "autoscaler-without-metrics",
        with_things(HorizontalPodAutoscalers=items({"metadata": {"name": "digits-predictor"}})),
        State.WARNING,
        "digits-predictor",
        "autoscalerClass=none",
    ),
    ("network-policies-enforced", with_things(NetworkPolicies=items({"metadata": {"name": "p"}})), State.WARNING, "(p)", "Calico"),
    (
        "deployer-policy",
        with_things(admission_policy=None),
        State.WARNING,
        "no ValidatingAdmissionPolicy",
        "kubectl apply -f manifests/components/deployer-policy",
    ),
    (
        "deployer-policy",
        replace(WELL, things=THINGS | {"admission policy's binding": {"spec": {"validationActions": ["Audit"]}}}),
        State.WARNING,
        "a binding that denies",
        "kubectl apply",
    ),
    (
        "deployer-policy",
        with_things(namespace={"metadata": {"annotations": {"penstock/store": "s3://b"}}}),
        State.WARNING,
        "models has no label penstock/deployer-policy=enforced",
        "kubectl label namespace models",
    ),
    (
        "deployer-policy",
        with_things(namespace={"metadata": {"labels": LABELS, "annotations": {"penstock/store": "s3://a", "penstock/runtime": "r"}}}),
        State.BROKEN,
        "let through runtime r, store s3://a only",
        "--overwrite penstock/runtime=penstock-onnx-v1 penstock/store=s3://b",
    ),
    ("clocks", replace(WELL, clock_seconds=-120.0), State.WARNING, "120 s behind", "timedatectl"),
    ("clocks", replace(WELL, store=replace(STORE, clock_seconds=1800.0)), State.BROKEN, "the store is 1800 s ahead", "timedatectl"),
    ("namespaces-exist", with_things(namespace=None), State.BROKEN, "models does not exist", "kubectl create namespace models"),
    (
        "serving-runtime",
        with_things(ServingRuntime=None),
        State.BROKEN,
        "no ServingRuntime penstock-onnx-v1",
        "apply your overlay of manifests/ again (kubectl apply -k …); where this namespace has none:\nkubectl kustomize",
    ),
    (
        "serving-runtime",
        with_things(ServingRuntime=RUNTIME | {"spec": {"supportedModelFormats": [{"name": "onnx"}]}}),
        State.BROKEN,
        "takes onnx",
        "patch servingruntime",
    ),
    (
        "serving-runtime",
        with_things(ServingRuntime=RUNTIME | {"spec": {"disabled": True}}),
        State.BROKEN,
        "disabled",
        "patch servingruntime",
    ),
    (
        "deploy-rights",
        replace(WELL, rights=RIGHTS | {("models", "patch", "serving.kserve.io", "inferenceservices"): False}),
        State.BROKEN,
        "may not patch inferenceservices in namespace models",
        "kind: RoleBinding",
    ),
    (
        "run-rights",
        replace(WELL, rights=RIGHTS | {("kubeflow", "get", "", "pods"): False}),
        State.BROKEN,
        "may not get pods in namespace kubeflow",
        "kind: Role",
    ),
    ("storage-secret", replace(WELL, things=THINGS | {"predictor's account": None}), State.BROKEN, "no ServiceAccount", "kustomize"),
    (
        "storage-secret",
        replace(WELL, things=THINGS | {"predictor's account": {}}),
        State.WARNING,
        "lists no Secret",
        "patch serviceaccount",
    ),
    ("storage-secret", with_things(**{"Secret_penstock-s3": None}), State.BROKEN, "not in namespace models", "create secret generic"),
    (
        "storage-secret",
        with_things(**{"Secret_penstock-s3": secret(data={})}),
        State.BROKEN,
        "no AWS_ACCESS_KEY_ID and no AWS_SECRET",
        "patch secret",
    ),
    (
        "storage-secret",
        with_things(**{"Secret_penstock-s3": secret(s3_endpoint="http://minio:9000/")}),
        State.BROKEN,
        "'http://minio:9000/'",
        "s3-endpoint=minio:9000 serving.kserve.io/s3-usehttps=0",
    ),
    (
        "storage-secret",
        with_things(**{"Secret_penstock-s3": secret(s3_endpoint="minio.minio.:9000")}),
        State.BROKEN,
        "'minio.minio.:9000'",
        "s3-endpoint=minio.minio:9000",
    ),
    ("storage-secret", with_things(**{"Secret_penstock-s3": secret(s3_usehttps="false")}), State.BROKEN, "'false'", "usehttps"),
    ("storage-secret", with_things(**{"Secret_penstock-s3": secret(s3_region=None)}), State.WARNING, "no s3-region", "region"),
    (
        "storage-secret",
        with_things(**{"Secret_penstock-s3": secret(s3_usevirtualbucket="1")}),
        State.WARNING,
        "virtualbucket",
        "usevirtualbucket=0",
    ),
    (
        "steps-secret",
        with_things(Secret_of_runs=secret(data={"AWS_ACCESS_KEY_ID": True})),
        State.WARNING,
        "Secret penstock-s3 in kubeflow has no AWS_SECRET_ACCESS_KEY",
        "kubectl -n kubeflow patch secret penstock-s3",
    ),
    (
        "pod-security",
        with_things(storage_initializer=None),
        State.BROKEN,
        "no ClusterStorageContainer default",
        "install KServe's cluster resources",
    ),
    (
        "pod-security",
        with_things(storage_initializer={"spec": {"container": {}}}),
        State.BROKEN,
        "no securityContext that passes",
        "kubectl patch clusterstoragecontainer",
    ),
    (
        "resource-quota",
        with_things(ResourceQuotas=quota(requests_memory="256Mi")),
        State.BROKEN,
        "leaves requests.memory 256Mi",
        "patch resourcequota",
    ),
    ("resource-quota", with_things(ResourceQuotas_of_runs=quota(limits_cpu="8")), State.BROKEN, "step train have none", "kind: LimitRange"),
    ("resource-quota", with_things(ResourceQuotas=quota(pods="1")), State.BROKEN, "leaves 1 pods", "patch resourcequota"),
    ("limit-range", with_things(LimitRanges=limits(max={"memory": "256Mi"})), State.BROKEN, "max memory 256Mi", "patch limitrange"),
    ("limit-range", with_things(LimitRanges_of_runs=limits(min={"cpu": "2"})), State.BROKEN, "min cpu 2", "/spec/limits/0/min/cpu"),
    (
        "images-pulled",
        with_things(pods=items(WAITING)),
        State.BROKEN,
        "registry.invalid/x:1: ImagePullBackOff",
        "create secret docker-registry",
    ),
    ("store-usable", replace(WELL, store=StoreSeen("s3://b", "no bucket b at x; create it")), State.BROKEN, "no bucket b", "create it"),
    ("buckets-made-unasked", replace(WELL, store=replace(STORE, server="SeaweedFS 4.34")), State.WARNING, "SeaweedFS 4.34", "a key that"),
    ("buckets-made-unasked", replace(WELL, store=replace(STORE, made_bucket=True)), State.WARNING, "makes a missing bucket", "a key that"),
    (
        "service-agrees-with-ledger",
        with_things(InferenceService=service("s3://b/models/digits/v1/")),
        State.WARNING,
        "serves s3://b/models/digits/v1/",
        "digits/v2/",
    ),
]


@pytest.mark.parametrize(("check", "seen", "state", "saw", "mend"), FAULTS)
def test_a_fault_is_named_with_what_mends_it(check: str, seen: Seen, state: State, saw: str, mend: str) -> None:
    (it,) = [it for it in results(check, seen) if it.state != State.OK]
    assert it.state == state
    assert saw in it.saw
    assert mend in it.mend
    assert it.breaks


def test_every_check_has_a_fault_in_the_table() -> None:
    assert {it.id for it in all_checks()} == {check for check, *_ in FAULTS}


@pytest.mark.parametrize("thing", THINGS)
def test_what_cannot_be_seen_is_said_and_fails_nothing(thing: str) -> None:
    others = (
        {"ServingRuntime": None} if thing == "ClusterServingRuntime" else {"NetworkPolicies": items({})} if thing == "system agents" else {}
    )
    found = examine(replace(WELL, kubeflow=Unseen("no --host"), things=THINGS | others | {thing: Unseen("forbidden (403)")}))
    assert {it.state for it in found} <= {State.OK, State.NOT_SEEN}
    assert any(it.state == State.NOT_SEEN and "forbidden (403)" in it.saw for it in found)


def test_nothing_seen_at_all_is_no_error() -> None:
    assert {it.state for it in examine(Seen(SCOPE))} == {State.NOT_SEEN}


@pytest.mark.parametrize(
    ("quotas", "ranges"),
    [(quota(limits_cpu="8"), limits(default={"cpu": "1"})), (quota(requests_memory="8Gi"), items()), (quota(count_pods="50"), items())],
)
def test_a_quota_that_leaves_room_is_well(quotas: dict[str, Any], ranges: dict[str, Any]) -> None:
    assert {it.state for it in results("resource-quota", with_things(ResourceQuotas_of_runs=quotas, LimitRanges_of_runs=ranges))} == {
        State.OK
    }


def test_a_policy_is_enforced_by_what_enforces() -> None:
    policies = items({"metadata": {"name": "p"}})
    agents = items({"metadata": {"name": "calico-node"}})
    assert results("network-policies-enforced", with_things(NetworkPolicies=policies, system_agents=agents))[0].state == State.OK
    groups = {"groups": [{"name": "cilium.io"}]}
    assert results("network-policies-enforced", with_things(NetworkPolicies=policies, API_groups=groups))[0].state == State.OK


def test_a_role_of_aws_needs_no_secret() -> None:
    account = {"metadata": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}}}
    assert results("storage-secret", replace(WELL, things=THINGS | {"predictor's account": account}))[0].state == State.OK


def test_other_secrets_of_an_account_are_not_judged() -> None:
    account = {"secrets": [{"name": "dockercfg"}, {"name": "penstock-s3"}]}
    things = THINGS | {"predictor's account": account, "Secret dockercfg": {"data": {".dockercfg": True}}}
    assert {it.state for it in results("storage-secret", replace(WELL, things=things))} == {State.OK}


def test_finished_pods_take_no_room() -> None:
    done = copy.deepcopy(FULL) | {"status": {"phase": "Succeeded"}}
    assert results("room-for-second-pod", with_things(all_pods=items(done)))[0].state == State.OK


@pytest.mark.parametrize(
    ("written", "number"),
    [("500m", 0.5), ("1Gi", 2**30), (2, 2), ("", 0), (None, 0), ("a lot", 0), (".5", 0.5), ("1e3", 1000), ("1E", 1e18)],
)
def test_amounts(written: Any, number: float) -> None:
    assert amount(written) == number


def test_the_rights_are_those_of_the_role_in_the_manifests() -> None:
    role = next(it for it in yaml.safe_load_all((ROOT / "manifests/base/deployer-role.yaml").read_text()) if it["kind"] == "Role")
    given = {
        (group, resource, verb) for it in role["rules"] for group in it["apiGroups"] for resource in it["resources"] for verb in it["verbs"]
    }
    assert {*DEPLOY_RIGHTS, *PREFLIGHT_RIGHTS} == given


def test_text_counts_and_json_keeps_the_fields() -> None:
    found = examine(with_things(namespace=None))
    text = as_text(found)
    lines = ("✗ namespaces-exist: namespace models does not exist", "    breaks nothing can be deployed there")
    assert "\n".join((*lines, "    mend  kubectl create namespace models\n")) in text
    assert "1 will break" in text.rpartition("\n")[2]
    assert json.loads(json.dumps(as_json(found)))[0].keys() == {"check", "state", "saw", "breaks", "mend"}


def test_a_check_is_described() -> None:
    page = checks_page()
    assert all(f"**{it.id}**: " in page for it in all_checks())


def test_importing_costs_no_heavy_library() -> None:
    code = "import sys, components.doctor, components.doctor.seen, pipelines.cli.doctor; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"kfp", "torch", "kubernetes", "kserve", "boto3"} & set(done.stdout.split())


def test_an_account_that_may_make_pods_is_not_limited_and_not_warned_about() -> None:
    may = replace(WELL, rights=RIGHTS | {("models", "create", "", "pods"): True}, things=THINGS | {"admission policy": None})
    (it,) = results("deployer-policy", may)
    assert (it.state, "may make any pod in models anyway" in it.saw) == (State.OK, True)
