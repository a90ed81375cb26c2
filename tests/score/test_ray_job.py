"""A shard that a RayJob scores: the job against KubeRay's schema, what its statuses say, and what the step does with them."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.classifier.errors import EvaluationError, UsageError
from components.integrations.observe import RUN
from components.score.kuberay import RIGHTS, require_kuberay, run_job, score_by_ray_job
from components.score.output import PIECES
from components.score.plan import Plan
from components.score.ray_job import RESULT, cause, fetch_plan, put_plan, ray_job, status_line, work_of
from components.score.shard import ShardResult, score_shard
from components.settings.resources import POD, POD_NAMESPACE
from components.settings.scoring import ScoringSettings, check_pods
from components.storage import open_store
from tests.api_server import api_server
from tests.manifests.building import MANIFESTS
from tests.manifests.pods import restricted_violations
from tests.manifests.schemas import problems
from tests.score import cases
from tests.score.conftest import Model, plan_of
from tests.score.ray_operator import STEP, run_entrypoint

SETTINGS = ScoringSettings(engine="ray", ray_nodes=3, ray_cpu=4, ray_memory="8Gi", ray_gpus=1)
PLAN = Plan(Path("plan"), "s3://models", "digits", "v", "s3://in", "s3://out", ["0"], SETTINGS, [], [], "key")
WORK = work_of(PLAN, "0", "run")
JOB = ray_job(PLAN, WORK, STEP, "nvidia.com/gpu", "2.60.0", "run")


def pods_of(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    templates = [
        cluster["headGroupSpec"]["template"],
        *(it["template"] for it in cluster["workerGroupSpecs"]),
        job["spec"]["submitterPodTemplate"],
    ]
    return {it["spec"]["containers"][0]["name"]: it for it in templates}


def test_the_job_is_one_that_kuberay_takes_and_its_pods_are_restricted() -> None:
    assert problems(JOB) == []
    assert len(JOB["metadata"]["name"]) <= 47, "KubeRay refuses longer ones"
    assert {name: restricted_violations(pod) for name, pod in pods_of(JOB).items()} == {"head": [], "worker": [], "submitter": []}


def test_a_field_that_kuberay_does_not_know_would_be_seen() -> None:
    assert problems({**JOB, "spec": {**JOB["spec"], "restartPolicy": "Never"}}) != []


def test_its_pods_are_like_the_step_s_own() -> None:
    for pod in pods_of(JOB).values():
        (container,) = pod["spec"]["containers"]
        assert container["image"] == "registry.example/penstock-pipeline:1"
        assert (pod["spec"]["serviceAccountName"], pod["spec"]["nodeSelector"]) == ("steps", {"disk": "ssd"})
        assert (pod["spec"]["tolerations"], pod["spec"]["imagePullSecrets"]) == (STEP["spec"]["tolerations"], [{"name": "registry"}])
        names = {it["name"] for it in container["env"]}
        assert {"AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL"} <= names
        assert names.isdisjoint({POD, "ARGO_TEMPLATE"})
        assert [it["name"] for it in pod["spec"]["volumes"]] == ["ca", "ray-tmp"]


def test_the_workers_are_what_the_run_asks_for_and_the_head_only_leads() -> None:
    cluster = JOB["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (3, 3, 3)
    asked = {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "1"}
    assert workers["template"]["spec"]["containers"][0]["resources"] == {"requests": asked, "limits": asked}
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    assert cluster["authOptions"] == {"mode": "token"}


def test_a_step_that_starts_again_in_its_run_finds_its_job_and_others_do_not() -> None:
    steps = (("0", "a"), ("0", "a"), ("1", "a"), ("0", "b"), ("0", ""), ("0", ""))
    names = [work_of(PLAN, *step).name for step in steps]
    names.append(work_of(replace(PLAN, output="s3://other"), "0", "a").name)
    assert names[0] == names[1]
    assert len(set(names)) == 6


def test_statuses_name_the_pods_and_what_they_wait_for() -> None:
    assert status_line({}, []) == "New; it waits for KubeRay's operator, or a queue"
    barred = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}
    pulling = [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]
    pods = [
        {"metadata": {"name": "j-x-workers-a"}, "status": {"phase": "Pending", "conditions": [barred]}},
        {"metadata": {"name": "j-x-head"}, "status": {"phase": "Pending", "containerStatuses": pulling}},
        {"metadata": {"name": "j-x-workers-b"}, "status": {"phase": "Running"}},
    ]
    line = status_line({"jobDeploymentStatus": "Initializing", "rayClusterName": "j-x"}, pods)
    assert line.startswith("Initializing; head Pending (ImagePullBackOff: no such image), ")
    assert "workers-a Pending (Unschedulable: 0/1 nodes are available), workers-b Running" in line
    assert status_line({"jobDeploymentStatus": "Running", "jobStatus": "PENDING"}, []) == "Running PENDING; no pods yet"


def test_a_failure_is_told_by_the_scoring_s_own_error_or_by_what_kuberay_s_reason_means() -> None:
    failed = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}
    message = "Job entrypoint command failed with exit code 1, last available logs:\npiece 1\nerror: no complete plan\n"
    assert cause("j", {**failed, "message": message}, []) == "RayJob j failed: no complete plan"
    assert cause("j", failed, ["piece 1", "error: a bucket is gone", "Job failed"]) == "RayJob j failed: a bucket is gone"
    assert "too little memory" in cause("j", {**failed, "message": "exit code -9"}, [])
    assert "did not end within 24 hours" in cause("j", {"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"}, [])
    assert cause("j", {"reason": "ValidationFailed", "message": "spec is invalid: x"}, []).endswith(
        "KubeRay refuses it (spec is invalid: x)"
    )
    assert "was stopped" in cause("j", {"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, [])
    assert "NewReason" in cause("j", {"jobDeploymentStatus": "Failed", "reason": "NewReason"}, [])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ray_nodes": 2}, "set engine=ray"),
        ({"ray_nodes": 1, "ray_cpu": 1, "engine": "ray"}, "set ray_cpu=2 or ray_nodes=2"),
        ({"ray_nodes": 1, "engine": "ray", "device": "cuda"}, "set ray_gpus=1"),
        ({"ray_nodes": 1, "engine": "ray", "ray_memory": "much"}, "memory 'much' is not an amount"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ScoringSettings.read(settings)


@pytest.mark.parametrize(
    ("store", "given", "output", "named"),
    [("/data/s", "s3://i", "", "store=/data/s"), ("s3://s", "pictures", "", "input=pictures"), ("s3://s", "golden", "/out", "output=/out")],
)
def test_a_place_that_pods_do_not_reach_is_refused_by_name(store: str, given: str, output: str, named: str) -> None:
    with pytest.raises(UsageError, match=f"cannot reach {named}; set"):
        check_pods(SETTINGS, store, given, output, "0")
    check_pods(ScoringSettings(), store, given, output, "1")
    check_pods(SETTINGS, "s3://s", "golden", "", "0")
    with pytest.raises(UsageError, match="gpus=1 would be held by the step that only follows the pods"):
        check_pods(SETTINGS, "s3://s", "golden", "", "1")


def test_a_plan_comes_back_from_the_store_as_it_was_and_is_gone_when_it_is_cleared(model: Model, tmp_path: Path) -> None:
    plan = plan_of(model, tmp_path / "plan", "golden", tmp_path / "output", shards=1)
    store = open_store(str(tmp_path / "store"))
    put_plan(store, "scorings/k", plan.folder)
    back = fetch_plan(store, "scorings/k", tmp_path / "back")
    assert replace(back, folder=plan.folder) == plan
    assert [back.slices(it) for it in back.pieces] == [plan.slices(it) for it in plan.pieces]
    store.delete_all("scorings/k/")
    assert list(store.list("scorings/")) == []


@dataclass
class Cluster:
    """What an API server with KubeRay holds, of one namespace; the statuses of the job follow one another at each look."""

    statuses: list[dict[str, Any]] = field(default_factory=list)
    log: str = ""
    job: dict[str, Any] | None = None
    posted: list[dict[str, Any]] = field(default_factory=list)
    rights: tuple[str, ...] = ("rayjobs", "pods", "pods/log")
    kuberay: bool = True
    operator: bool = False
    looked: threading.Event = field(default_factory=threading.Event)

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        path, _, query = path.partition("?")
        if path == "/apis/ray.io/v1" and self.kuberay:
            return 200, {"kind": "APIResourceList"}
        if path.endswith("/selfsubjectaccessreviews"):
            asked = body["spec"]["resourceAttributes"]
            resource = "/".join(filter(None, (asked["resource"], asked["subresource"])))
            return 201, {"status": {"allowed": asked["namespace"] == "runs" and resource in self.rights}}
        if "/rayjobs" in path and self.kuberay:
            return self._of_jobs(method, path, body)
        if path.endswith("/pods/score-1"):
            return 200, STEP
        if path.endswith("/pods"):
            found = [{"metadata": {"name": "submitter"}, "spec": {"containers": [{"name": "s"}]}}] if "job-name" in query else []
            return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": found}
        if path.endswith("/pods/submitter/log"):
            return 200, self.log
        return 404, {"kind": "Status", "reason": "NotFound"}

    def _of_jobs(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if "rayjobs" not in self.rights:
            return 403, {"kind": "Status", "reason": "Forbidden"}
        if method == "POST":
            if self.job:
                return 409, {"reason": "AlreadyExists"}
            self.posted.append(body)
            self.job = body
            if self.operator:
                threading.Thread(target=self._operate).start()
            return 201, body
        if not self.job:
            return 404, {"kind": "Status", "reason": "NotFound"}
        if method == "DELETE":
            self.job = None
            return 200, {}
        self.looked.set()
        going, self.job["metadata"] = self.job, dict(self.job["metadata"])
        if self.job["metadata"].pop("going", None):
            self.job = None
            return 200, {**going, "metadata": {"name": path.rpartition("/")[2], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
        status = (self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]) if self.statuses else {}
        return 200, {**self.job, "status": status}

    def _operate(self) -> None:
        assert self.job
        status, self.log = run_entrypoint(self.job)
        self.statuses = [status]


RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
COMPLETE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
FAILED = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    held = Cluster()
    monkeypatch.setenv(POD, "score-1")
    monkeypatch.setenv(POD_NAMESPACE, "runs")
    monkeypatch.setattr("components.score.kuberay.run_job", partial(run_job, seconds=0.05))
    with api_server(held.answer, tmp_path, monkeypatch):
        yield held


def said(job: dict[str, Any] = JOB) -> list[str]:
    lines: list[str] = []
    run_job(job, lines.append, seconds=0.01)
    return lines


def test_the_job_is_followed_to_its_end_with_its_log_and_deleted(cluster: Cluster) -> None:
    cluster.statuses, cluster.log = [{}, RUNNING, COMPLETE], "piece 1: 10 rows\npiece 2: 10 rows\n"
    lines = said()
    assert cluster.posted == [JOB]
    assert any("3 pods of registry.example/penstock-pipeline:1" in line for line in lines)
    assert [line for line in lines if line.startswith("piece")] == ["piece 1: 10 rows", "piece 2: 10 rows"]
    assert [line.split("; ")[0] for line in lines if "; " in line][-2:] == [
        f"RayJob {WORK.name}: Running RUNNING",
        f"RayJob {WORK.name}: Complete SUCCEEDED",
    ]
    assert cluster.job is None


def test_a_job_that_failed_is_told_by_its_error_and_deleted(cluster: Cluster) -> None:
    cluster.statuses, cluster.log = [FAILED], "piece 1\nerror: the store is full\n"
    with pytest.raises(EvaluationError, match=f"^RayJob {WORK.name} failed: the store is full$"):
        said()
    assert cluster.job is None


def test_a_job_that_is_there_from_before_the_step_was_lost_is_followed(cluster: Cluster) -> None:
    cluster.statuses, cluster.job = [COMPLETE], JOB
    said()
    assert (cluster.posted, cluster.job) == ([], None)


def test_a_job_that_is_being_deleted_is_waited_for(cluster: Cluster) -> None:
    cluster.statuses, cluster.job = [COMPLETE], {**JOB, "metadata": {**JOB["metadata"], "going": True}}
    said()
    assert cluster.posted == [JOB]


def test_what_the_cluster_lacks_is_named_by_the_plan_step_and_by_the_job(cluster: Cluster) -> None:
    require_kuberay()
    cluster.rights = ("rayjobs", "pods")
    with pytest.raises(UsageError, match="may not get pods/log in namespace runs; apply manifests/components/ray"):
        require_kuberay()
    cluster.rights = ("pods", "pods/log")
    with pytest.raises(UsageError, match="may not create rayjobs in namespace runs; apply manifests/components/ray"):
        require_kuberay()
    with pytest.raises(EvaluationError, match=r"cannot be made \(403 .*\); apply manifests/components/ray"):
        said()
    cluster.kuberay = False
    with pytest.raises(UsageError, match="this cluster does not know; install KubeRay"):
        require_kuberay()
    with pytest.raises(EvaluationError, match=r"cannot be made \(404 .*\); install KubeRay"):
        said()


def test_the_rights_that_are_asked_for_are_those_of_the_manifest() -> None:
    role = yaml.safe_load((MANIFESTS / "components" / "ray" / "role.yaml").read_text())
    triples = (product(rule["verbs"], rule["apiGroups"], rule["resources"]) for rule in role["rules"])
    given = set(chain.from_iterable(triples))
    assert given == set(RIGHTS)


def test_a_step_that_is_stopped_deletes_its_job(cluster: Cluster) -> None:
    cluster.statuses = [RUNNING]
    program = (
        "from components.classifier.stopping import stoppable\nfrom tests.score.test_ray_job import JOB, run_job\n"
        "with stoppable():\n    run_job(JOB, seconds=0.01)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=MANIFESTS.parent) as step:
        assert cluster.looked.wait(60)
        step.send_signal(signal.SIGTERM)
        assert step.wait(60) == 128 + signal.SIGTERM
    assert cluster.job is None


def by_job(plan: Plan) -> dict[str, Any]:
    settings = plan.settings.model_copy(update={"ray_nodes": 2})
    found: dict[str, Any] = json.loads(score_by_ray_job(replace(plan, settings=settings), "0", "nvidia.com/gpu").to_json())
    return found


def parts(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((output / PIECES).iterdir())}


@pytest.mark.integration
@pytest.mark.xdist_group("ray")
def test_the_entrypoint_of_the_job_writes_the_bytes_of_the_engine_on_one_machine(model: Model, cluster: Cluster, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    pictures = cases.folder(tmp_path / "in", 25)
    cases.put(pictures / "cut.png", cases.png(0)[:40])
    local = plan_of(model, tmp_path / "plan-local", pictures, tmp_path / "local", shards=1, batch_size=4)
    score_shard(local, "0")
    cluster.operator = True
    done = by_job(plan_of(model, tmp_path / "plan-ray", pictures, tmp_path / "ray", shards=1, engine="ray", batch_size=4))
    assert (done["scored"], done["failed"], done["device"]) == (26, 0, "cpu")
    assert parts(tmp_path / "ray") == parts(tmp_path / "local")
    assert "piece 0: 26 rows" in cluster.log
    assert list(open_store(model.store).list("scorings/")) == []


def test_an_error_of_the_scoring_is_the_step_s_and_leaves_nothing_in_the_store(model: Model, cluster: Cluster, tmp_path: Path) -> None:
    cluster.operator = True
    plan = plan_of(model, tmp_path / "plan", "golden", tmp_path / "output", shards=1)
    (plan.folder / "plan.json").unlink()
    with pytest.raises(EvaluationError, match=r"RayJob penstock-\w+ failed: no complete plan in "):
        by_job(plan)
    assert list(open_store(model.store).list("scorings/")) == []


def test_a_step_that_finds_the_result_of_its_lost_pod_deletes_the_job(
    model: Model, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv(RUN, "run-1")
    plan = plan_of(model, tmp_path / "plan", "golden", tmp_path / "output", shards=1)
    work = work_of(replace(plan, settings=plan.settings.model_copy(update={"ray_nodes": 2})), "0", "run-1")
    cluster.job = {"metadata": {"name": work.name}}
    store = open_store(model.store)
    store.create(f"{work.folder}/{RESULT}", ShardResult("0", scored=3).to_json().encode())
    assert by_job(plan)["scored"] == 3
    assert [cluster.job, *cluster.posted, *store.list("scorings/")] == [None]
