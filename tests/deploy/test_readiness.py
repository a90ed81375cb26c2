"""What an observation means, by tables in which each side wins; among them every way in which Ready was seen to lie."""

from dataclasses import replace
from typing import Any

import pytest

from components.deploy.kserve.readiness import assess, error_in_log
from components.deploy.kserve.service import DIGEST, Object
from components.deploy.kserve.state import SOURCE, ContainerState, DeploymentState, Observation, PodState, read

NEW, OLD = "s3://models/digits/2/", "s3://models/digits/1/"

COMPLETE = DeploymentState("digits-predictor", generation=2, observed=2, replicas=1, updated=1, available=1, total=1)
SERVED = Observation(uri=NEW, deployment=COMPLETE, pods=(PodState("p", ready=True),))


def pod(*containers: ContainerState, **values: Any) -> PodState:
    return PodState("p", containers=containers, **values)


def waiting(deployment: DeploymentState = COMPLETE, **values: Any) -> Observation:
    return Observation(uri=NEW, deployment=replace(deployment, available=0, unavailable=1), **values)


MAIN = ContainerState("kserve-container")
INIT = ContainerState("storage-initializer", init=True)
LATE = "failed to sync secret cache: timed out waiting for the condition"

CASES: dict[str, tuple[Observation, str, str]] = {
    "served": (SERVED, "served", "1 of 1 new pods serve"),
    "nothing there": (Observation(), "replaced", "serves nothing"),
    "another version by now": (replace(SERVED, uri=OLD), "replaced", OLD),
    "not taken up": (Observation(uri=NEW), "waiting", "has not taken up"),
    "the Deployment's controller is behind": (replace(SERVED, deployment=replace(COMPLETE, observed=1)), "waiting", "just now"),
    "an old pod is left": (replace(SERVED, deployment=replace(COMPLETE, total=2)), "waiting", "1 old ones end"),
    "one of two updated": (replace(SERVED, deployment=replace(COMPLETE, replicas=2, total=2)), "waiting", "1 of 2"),
    "one before the autoscaler has made it two": (replace(SERVED, least=2), "waiting", "1 of 2 pods serve; the autoscaler"),
    "one unavailable": (replace(SERVED, deployment=replace(COMPLETE, unavailable=1)), "waiting", "1 of 1"),
    "pod being made": (waiting(pods=(pod(replace(MAIN, waiting="ContainerCreating")),)), "waiting", "being made"),
    "model being fetched": (waiting(pods=(pod(INIT, replace(MAIN, waiting="PodInitializing")),)), "waiting", "storage-initializer runs"),
    "running, not ready": (
        waiting(pods=(pod(replace(INIT, ready=True), MAIN, warning="Readiness probe failed: 503"),)),
        "waiting",
        "runs but is not ready (Readiness probe failed: 503)",
    ),
    "no room": (waiting(pods=(pod(unschedulable="1 Insufficient nvidia.com/gpu."),)), "waiting", "Insufficient nvidia.com/gpu"),
    "first pull error": (waiting(pods=(pod(replace(MAIN, waiting="ErrImagePull", message="not found")),)), "waiting", "ErrImagePull"),
    "second pull error": (
        waiting(pods=(pod(replace(MAIN, waiting="ErrImagePull", message="not found", failed_pulls=2)),)),
        "failed",
        "pod p: the predictor: ErrImagePull: not found",
    ),
    "image cannot be pulled": (
        waiting(pods=(pod(replace(MAIN, waiting="ImagePullBackOff", message="Back-off pulling x")),)),
        "failed",
        "pod p: the predictor: ImagePullBackOff: Back-off pulling x",
    ),
    "secret that is not there": (
        waiting(pods=(pod(replace(INIT, waiting="CreateContainerConfigError", message='secret "penstock-s3" not found')),)),
        "failed",
        'CreateContainerConfigError: secret "penstock-s3" not found',
    ),
    "kubelet that was late": (
        waiting(pods=(pod(replace(INIT, waiting="CreateContainerConfigError", message=LATE)),)),
        "waiting",
        "failed to sync secret cache",
    ),
    "one crash may pass": (waiting(pods=(pod(replace(MAIN, restarts=1, ended="Error", exit_code=3)),)), "waiting", "exit code 3"),
    "crash loop": (
        waiting(
            pods=(
                pod(
                    replace(
                        MAIN, waiting="CrashLoopBackOff", restarts=2, ended="Error", exit_code=3, ended_message="Traceback\n\nno model\n"
                    )
                ),
            )
        ),
        "failed",
        "the predictor ended with exit code 3, 2 restarts: no model",
    ),
    "crashes again and again, seen while running": (
        waiting(pods=(pod(replace(MAIN, restarts=2, ended="Error", exit_code=1)),)),
        "failed",
        "exit code 1",
    ),
    "killed for memory": (
        waiting(pods=(pod(replace(MAIN, waiting="CrashLoopBackOff", restarts=2, ended="OOMKilled", exit_code=137)),)),
        "failed",
        "killed for memory",
    ),
    "storage fails": (
        waiting(
            pods=(
                pod(replace(INIT, waiting="CrashLoopBackOff", restarts=1, ended="Error", exit_code=1, ended_message="403 Forbidden"), MAIN),
            )
        ),
        "failed",
        "the model cannot be fetched (ended with exit code 1, 1 restarts): 403 Forbidden",
    ),
    "a pod may not be made": (
        waiting(not_created='pods "x" is forbidden: violates PodSecurity "restricted:latest"'),
        "failed",
        "no pod can be made: pods",
    ),
    "KServe's init container is not allowed": (
        waiting(
            not_created='pods "x" is forbidden: violates PodSecurity "restricted:latest": seccompProfile (container "storage-initializer")'
        ),
        "failed",
        "restricted/storage-initializer.yaml",
    ),
    "a pod cannot be made for now": (waiting(not_created="Internal error: timeout"), "waiting", "Internal error"),
    "wrong runtime": (Observation(uri=NEW, invalid="RuntimeNotRecognized: no such"), "failed", "RuntimeNotRecognized"),
    "revision not ready": (replace(SERVED, revision_ready=False), "waiting", "revision"),
    "traffic not moved": (replace(SERVED, percent=0), "waiting", "0 of 100 percent"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_look_has_one_meaning(case: str) -> None:
    seen, state, line = CASES[case]
    readiness = assess(seen, NEW, seconds=10)
    assert (readiness.state, line in readiness.line) == (state, True), readiness


def test_a_status_from_before_the_apply_is_not_believed() -> None:
    seen = Observation(uri=NEW, invalid="RuntimeNotRecognized: of the spec before")
    assert assess(seen, NEW, seconds=1).state == "waiting"


def test_once_it_has_served_a_single_crash_counts() -> None:
    crashed = replace(SERVED, pods=(PodState("p", ready=True, containers=(replace(MAIN, restarts=1, ended="Error", exit_code=3),)),))
    assert assess(crashed, NEW, 60).state == "served"
    assert assess(crashed, NEW, 60, settled=True).state == "failed"


def test_the_same_version_by_another_spec_is_not_served_yet() -> None:
    """Another runtime, the same address: the Deployment is complete, of the spec before."""
    ours, before = "d" * 32, deployment(NEW)
    before["spec"]["template"]["metadata"]["annotations"][DIGEST] = "c" * 32
    changed = service(**UP_TO_DATE)
    changed["metadata"]["annotations"] = {DIGEST: ours}
    seen = read(changed, [before], [], [], [], NEW, ours, standard=True)
    assert assess(seen, NEW, 60, digest=ours).state == "waiting"
    before["spec"]["template"]["metadata"]["annotations"][DIGEST] = ours
    assert assess(read(changed, [before], [], [], [], NEW, ours, standard=True), NEW, 60, digest=ours).state == "served"
    other = assess(seen, NEW, 60, digest="e" * 32)
    assert (other.state, "another spec" in other.line) == ("replaced", True)


def test_a_canary_is_served_at_its_own_share() -> None:
    assert assess(replace(SERVED, percent=10), NEW, 60, percent=10).state == "served"
    assert assess(replace(SERVED, percent=10), NEW, 60, percent=50).state == "waiting"


def deployment(uri: str, *, revision: str = "1", uid: str = "d", **status: int) -> Object:
    labels = {"serving.knative.dev/revision": f"digits-predictor-0000{revision}"}
    return {
        "metadata": {"name": "digits-predictor", "uid": uid, "generation": 2, "labels": labels, "annotations": {}},
        "spec": {"replicas": 1, "template": {"metadata": {"annotations": {SOURCE: uri}}}},
        "status": {"observedGeneration": 2, "updatedReplicas": 1, "availableReplicas": 1, "replicas": 1, **status},
    }


def replica_set(uri: str, uid: str, revision: str) -> Object:
    it = deployment(uri, uid=uid)
    it["metadata"] |= {"ownerReferences": [{"uid": "d"}], "annotations": {"deployment.kubernetes.io/revision": revision}}
    return it


def a_pod(name: str, owner: str, **status: Any) -> Object:
    metadata: Object = {"name": name, "uid": name, "ownerReferences": [{"uid": owner}]}
    return {"metadata": metadata, "spec": {"containers": [{"ports": [{"containerPort": 8080}]}]}, "status": {"podIP": "10.0.0.9", **status}}


def service(uri: str = NEW, **status: Any) -> Object:
    ready = [{"type": "Ready", "status": "True"}, {"type": "PredictorReady", "status": "True"}]
    return {
        "metadata": {"name": "digits", "generation": 2},
        "spec": {"predictor": {"model": {"storageUri": uri}}},
        "status": {"conditions": ready, "observedGeneration": 9, "address": {"url": "http://digits"}, **status},
    }


UP_TO_DATE = {"modelStatus": {"transitionStatus": "UpToDate", "states": {"activeModelState": "Loaded", "targetModelState": "Loaded"}}}


def look(live: Object, deployments: list[Object], sets: list[Object], pods: list[Object], standard: bool = True) -> Observation:
    return read(live, deployments, sets, pods, [], NEW, standard=standard)


def test_what_a_pod_waited_for_is_not_said_of_one_that_has_a_node() -> None:
    placed = a_pod("p1", "r1", conditions=[{"type": "PodScheduled", "status": "True"}])
    old = {"involvedObject": {"uid": "p1"}, "reason": "FailedScheduling", "message": "0/1 nodes: Insufficient cpu", "lastTimestamp": "2"}
    new = {"involvedObject": {"uid": "p1"}, "reason": "Unhealthy", "message": "the probe failed", "lastTimestamp": "1"}

    def warning(pod: Object, *events: Object) -> str:
        (seen,) = read(service(), [deployment(NEW)], [replica_set(NEW, "r1", "1")], [pod], events, NEW, standard=True).pods
        return seen.warning

    assert warning(placed, old) == ""
    assert warning(placed, old, new) == "the probe failed"
    assert warning(a_pod("p1", "r1"), old) == "0/1 nodes: Insufficient cpu"


def test_pulls_that_failed_are_counted_for_each_container() -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such host"}}
    statuses = [{"name": name, "state": waiting} for name in ("kserve-container", "agent")]
    about = [{"uid": "p1", "fieldPath": f"spec.containers{{{status['name']}}}"} for status in statuses]
    events = [{"involvedObject": it, "message": "Error: ErrImagePull", "count": count} for it, count in zip(about, (1, 2), strict=True)]
    events.append({"involvedObject": about[0], "message": "Error: ImagePullBackOff", "count": 9})
    pod = a_pod("p1", "r1", containerStatuses=statuses)
    seen = read(service(), [deployment(NEW)], [replica_set(NEW, "r1", "1")], [pod], events, NEW, standard=True)
    assert [container.failed_pulls for container in seen.pods[0].containers] == [1, 2]
    readiness = assess(seen, NEW, 60)
    assert (readiness.state, readiness.line) == ("failed", "pod p1: container agent: ErrImagePull: no such host")


def test_a_runtime_that_is_missing_is_named() -> None:
    failure = {"reason": "RuntimeNotRecognized", "message": "no runtime supports it"}
    live = service(modelStatus={"transitionStatus": "InvalidSpec", "lastFailureInfo": failure})
    live["metadata"]["namespace"], live["spec"]["predictor"]["model"]["runtime"] = "models", "penstock-onnx-v1"
    readiness = assess(look(live, [], [], []), NEW, 60)
    assert (readiness.state, readiness.line.partition("spec: ")[2]) == (
        "failed",
        "RuntimeNotRecognized: no runtime supports it (runtime penstock-onnx-v1 in namespace models)",
    )


def test_ready_of_the_old_revision_is_no_success() -> None:
    """Ready, UpToDate, and an observedGeneration ahead of the generation, all while the Deployment is the old one's."""
    seen = look(service(**UP_TO_DATE), [deployment(OLD)], [replica_set(OLD, "r1", "1")], [a_pod("p1", "r1")])
    assert seen.deployment is None
    assert assess(seen, NEW, 60).state == "waiting"


def test_ready_true_and_up_to_date_while_the_new_pod_crashes_is_a_failure() -> None:
    waits = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    last = {"terminated": {"exitCode": 3, "reason": "Error", "message": "boom"}}
    crashed = {"name": "kserve-container", "state": waits, "lastState": last, "restartCount": 2}
    pods = [a_pod("p1", "r1", conditions=[{"type": "Ready", "status": "True"}]), a_pod("p2", "r2", containerStatuses=[crashed])]
    sets = [replica_set(OLD, "r1", "1"), replica_set(NEW, "r2", "2")]
    seen = look(service(**UP_TO_DATE), [deployment(NEW, replicas=2, unavailableReplicas=1)], sets, pods)
    readiness = assess(seen, NEW, 60)
    assert (readiness.state, readiness.pod) == ("failed", "p2")
    assert "exit code 3, 2 restarts: boom" in readiness.line


def test_ready_unknown_is_no_failure_and_a_failure_info_of_before_is_none() -> None:
    status = {
        "conditions": [{"type": "Ready", "status": "Unknown"}],
        "modelStatus": {"transitionStatus": "InProgress", "lastFailureInfo": {}},
    }
    ready = a_pod("p2", "r2", conditions=[{"type": "Ready", "status": "True"}])
    seen = look(service(**status), [deployment(NEW)], [replica_set(NEW, "r2", "2")], [ready])
    assert assess(seen, NEW, 60).state == "served"
    assert seen.pods[0].address == "http://10.0.0.9:8080"


def test_pods_that_end_and_pods_of_other_replica_sets_do_not_count() -> None:
    ending = a_pod("p0", "r2")
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    sets = [replica_set(OLD, "r1", "1"), replica_set(NEW, "r2", "2")]
    seen = look(service(), [deployment(NEW)], sets, [ending, a_pod("p1", "r1"), a_pod("p2", "r2")])
    assert [p.name for p in seen.pods] == ["p2"]


@pytest.mark.parametrize(
    ("component", "ready", "percent"),
    [
        ({"latestCreatedRevision": "digits-predictor-00002", "latestReadyRevision": "digits-predictor-00001"}, False, 0),
        (
            {
                "latestCreatedRevision": "digits-predictor-00002",
                "latestReadyRevision": "digits-predictor-00002",
                "traffic": [
                    {"revisionName": "digits-predictor-00002", "percent": 10},
                    {"revisionName": "digits-predictor-00001", "percent": 90},
                ],
            },
            True,
            10,
        ),
        ({}, False, 0),
    ],
)
def test_knative_is_ready_when_its_newest_revision_is(component: Object, ready: bool, percent: int) -> None:
    live = service(components={"predictor": component})
    seen = look(live, [deployment(OLD, uid="d1"), deployment(NEW, revision="2")], [], [], standard=False)
    assert (seen.revision_ready, seen.percent) == (ready, percent)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", ""),
        ("one\ntwo\n\n", "two"),
        ('{"event": "failed", "error": "model.onnx was changed"}\nTraceback\n', "model.onnx was changed"),
        ('{"event": "ready"}\n{broken', "{broken"),
        ("[1]\n{}", "{}"),
        ('Killed by the kernel\n{"event": "serving", "level": "info"}\nINFO:     Application startup complete.', "Killed by the kernel"),
        ('{"event": "serving", "level": "info"}', ""),
    ],
)
def test_the_last_words_of_a_log(log: str, words: str) -> None:
    assert error_in_log(log) == words
