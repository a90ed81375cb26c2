"""A namespace that counts requests and limits takes the pod of every step, on a real API server by dry run."""

import copy
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from pipelines.catalogue import PIPELINES
from pipelines.compile import compile_pipelines
from tests.cluster.api import Api
from tests.pipelines.pods import Object, step_pods

HARD = {"requests.cpu": "2", "requests.memory": "4Gi", "limits.cpu": "4", "limits.memory": "8Gi", "pods": "10"}
RANGE = {
    "type": "Container",
    "default": {"cpu": "500m", "memory": "512Mi"},
    "defaultRequest": {"cpu": "10m", "memory": "32Mi"},
    "max": {"cpu": "2", "memory": "4Gi"},
    "min": {"cpu": "10m", "memory": "32Mi"},
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    compile_pipelines(folder)
    return folder


@pytest.fixture(scope="module")
def counted(administrator: Api) -> Iterator[str]:
    """A namespace with a quota on requests and limits, and a range that fills in what Argo's containers lack."""
    namespace = f"penstock-quota-{secrets.token_hex(3)}"
    place = f"/api/v1/namespaces/{namespace}"
    administrator.ask("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    administrator.apply(f"{place}/serviceaccounts/default", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}})
    administrator.ask("POST", f"{place}/limitranges", {"metadata": {"name": "range"}, "spec": {"limits": [RANGE]}})
    administrator.ask("POST", f"{place}/resourcequotas", {"metadata": {"name": "quota"}, "spec": {"hard": HARD}})
    # Kubernetes' controller counts what is used; on an API server alone nobody does, and admission waits for it.
    used = {"status": {"hard": HARD, "used": dict.fromkeys(HARD, "0")}}
    administrator.merge(f"{place}/resourcequotas/quota/status", used)
    yield namespace
    administrator.ask("DELETE", f"/api/v1/namespaces/{namespace}")


def create(api: Api, namespace: str, pod: Object) -> Object:
    made: Object = api.ask("POST", f"/api/v1/namespaces/{namespace}/pods", pod, dryRun="All")
    return made


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_namespace_with_a_quota_and_a_limit_range_takes_every_step(
    pipeline: str, administrator: Api, counted: str, compiled: Path
) -> None:
    for name, pod in step_pods(compiled / f"{pipeline}.yaml").items():
        made = create(administrator, counted, pod)
        main = made["spec"]["containers"][1]
        assert main["resources"] == pod["spec"]["containers"][1]["resources"], f"the range changed what {name} asks for"


def test_without_limits_the_quota_refuses_a_step(administrator: Api, counted: str, compiled: Path) -> None:
    """The check itself: what the pods of earlier releases lacked is refused where no range fills it in."""
    administrator.ask("DELETE", f"/api/v1/namespaces/{counted}/limitranges/range")
    try:
        pod = copy.deepcopy(step_pods(compiled / "training.yaml")["gate-model"])
        for container in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]):
            container["resources"] = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}}
        create(administrator, counted, pod)
        pod["spec"]["containers"][1]["resources"] = {"requests": {"cpu": "100m", "memory": "512Mi"}}
        with pytest.raises(requests.HTTPError, match=r"must specify limits.cpu for: main; limits.memory for: main"):
            create(administrator, counted, pod)
    finally:
        body = {"metadata": {"name": "range"}, "spec": {"limits": [RANGE]}}
        administrator.ask("POST", f"/api/v1/namespaces/{counted}/limitranges", body)
