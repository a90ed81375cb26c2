"""A rollout on a real API server, with only the rights that the manifests give: it ends well, or what served before serves again."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from components.classifier.errors import RolloutError, UsageError
from components.deploy.kserve.rollout import deploy_kserve
from components.registry import Registry
from components.registry.publication import publish_directory
from components.storage import open_store
from tests.cluster import place as bad
from tests.cluster.api import Api, service_path
from tests.cluster.place import Place, kubeconfig_of


def test_a_first_and_a_second_version_are_rolled_out_and_recorded(place: Place) -> None:
    assert place.deploy("v1") == "deployed"
    assert place.served() == "v1"
    assert place.deploy("v2") == "deployed"
    assert place.served() == "v2"
    assert place.ledger() == [("deployed", "v1", "v1"), ("deployed", "v2", "v2")]
    assert place.last().target == "kserve"
    assert "digits: 1 of 1 new pods serve, the old ones are gone; golden requests agree" in place.said
    service = place.service()
    assert service is not None
    ours = [e for e in service["metadata"]["managedFields"] if e["manager"] == "penstock"]
    assert [e["operation"] for e in ours] == ["Apply"]


def test_the_served_version_again_is_a_stated_no_op(place: Place) -> None:
    place.deploy("v1")
    before = place.service()
    assert place.deploy("v1") == "unchanged"
    after = place.service()
    assert before is not None
    assert after is not None
    assert before["metadata"]["generation"] == after["metadata"]["generation"]
    assert len(place.ledger()) == 1


def test_as_many_pods_as_were_asked_for_serve(place: Place) -> None:
    """KServe calls it Ready with the first; the autoscaler makes the others."""
    assert place.deploy("v1", min_replicas=2, settle_seconds=0) == "deployed"
    assert not any("1 of 1 new pods serve" in line for line in place.said)
    assert "digits: 2 of 2 new pods serve, the old ones are gone; golden requests agree" in place.said


UNDONE_SECONDS = 30
"""From when a bad version shows until the old one serves again, and both are recorded."""


class Sight:
    """Watches a namespace's pods for the first that shows what is wrong with it."""

    def __init__(self, place: Place) -> None:
        self._place, self._stop, self._thread = place, threading.Event(), threading.Thread(target=self._watch)
        self.first = 0.0
        """On time.monotonic's clock; 0: nothing showed."""

    def _watch(self) -> None:
        while not self._stop.wait(0.2) and not self.first:
            pods = self._place.api.ask("GET", f"/api/v1/namespaces/{self._place.namespace}/pods")["items"]
            staying = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
            states = [c["state"] for pod in staying for c in pod.get("status", {}).get("containerStatuses") or []]
            waiting = {state.get("waiting", {}).get("reason", "") for state in states}
            if waiting & {"CrashLoopBackOff", "ErrImagePull", "ImagePullBackOff"} or any(s.get("terminated") for s in states):
                self.first = time.monotonic()

    def __enter__(self) -> "Sight":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "crashes": (bad.CRASHES, "exit code 3"),
    "never-ready": (bad.NEVER_READY, "runs but is not ready"),
    "no-image": (bad.NO_IMAGE, "ErrImagePull.*no-such-image"),
    "gpu": (bad.NEEDS_GPU, "Insufficient nvidia.com/gpu"),
}


@pytest.mark.load
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_version_is_undone_and_the_old_one_serves(place: Place, kind: str) -> None:
    change, reason = BAD[kind]
    place.deploy("v1")
    runtime = place.runtime(kind, change)
    waits = kind in {"never-ready", "gpu"}  # shows by nothing but the time that it takes
    began = time.monotonic()
    with Sight(place) as sight, pytest.raises(RolloutError, match=rf"failed: .*{reason}.*v?; .* serves again") as failure:
        place.deploy("v2", runtime=runtime, timeout_seconds=15.0 if waits else 60.0)
    assert "\n" not in str(failure.value)
    assert time.monotonic() - began < 60
    assert bool(sight.first) is not waits
    if sight.first:
        assert time.monotonic() - sight.first < UNDONE_SECONDS
    assert place.served() == "v1"
    assert place.ledger() == [("deployed", "v1", "v1"), ("failed", "v2", "v1"), ("rolled_back", "v1", "v1")]
    service = place.service()
    assert service is not None
    assert service["spec"]["predictor"]["model"]["runtime"] == "penstock-onnx-v1"
    assert place.deploy("v1") == "unchanged"
    assert place.deploy("v2") == "deployed"


def test_storage_that_fails_is_undone(place: Place) -> None:
    place.deploy("v1")
    with pytest.raises(RolloutError, match=r"the model cannot be fetched .*exit code 1.*: .*; .* serves again"):
        place.deploy("v2", service_account=place.account("without-keys"))
    assert place.served() == "v1"
    assert place.ledger()[-1] == ("rolled_back", "v1", "v1")


def test_a_crash_after_it_was_ready_is_undone(place: Place) -> None:
    place.deploy("v1")
    runtime = place.runtime("crashes-later", bad.CRASHES_LATER)
    with pytest.raises(RolloutError, match=r"exit code 4.* serves again"):
        place.deploy("v2", runtime=runtime, settle_seconds=30.0)
    assert any("golden requests agree" in line for line in place.said)
    assert place.served() == "v1"
    assert place.ledger()[1:] == [("failed", "v2", "v1"), ("rolled_back", "v1", "v1")]


def test_a_version_that_is_deleted_while_it_is_rolled_out_is_undone(place: Place) -> None:
    place.deploy("v1", settle_seconds=0)

    def delete_when_it_serves(line: str) -> None:
        if "golden requests agree" in line and place.registry.find(place.versions["v2"]):
            Registry(place.registry.store, "digits").delete(place.versions["v2"])

    with pytest.raises(RolloutError, match=r"it was deleted from s3://.* meanwhile; .* serves again"):
        deploy_kserve(place.registry, place.request("v2", settle_seconds=0), delete_when_it_serves)
    assert place.served() == "v1"
    assert place.ledger()[1:] == [("failed", "v2", "v1"), ("rolled_back", "v1", "v1")]


def test_other_probabilities_than_evaluated_are_undone(place: Place) -> None:
    place.deploy("v1")
    with pytest.raises(RolloutError, match=r"probabilities .*away.*allowed:? 0\.0001.* serves again"):
        place.deploy("wrong")
    assert place.served() == "v1"


@pytest.mark.parametrize("kind", ["crashes", "no-image"])
def test_a_first_deployment_that_fails_is_taken_away(place: Place, kind: str) -> None:
    with pytest.raises(RolloutError, match=rf"{BAD[kind][1]}.* was deleted again"):
        place.deploy("v1", runtime=place.runtime(kind, BAD[kind][0]))
    assert place.served() == ""
    assert place.ledger() == [("failed", "v1", "")]
    assert place.deploy("v1") == "deployed"


def test_a_runtime_that_is_not_there_is_told_and_undone(place: Place) -> None:
    place.deploy("v1")
    with pytest.raises(RolloutError, match=r"KServe refuses the spec: RuntimeNotRecognized.* serves again"):
        place.deploy("v2", runtime="penstock-onnx-v9")
    assert place.served() == "v1"


@pytest.mark.load
def test_a_pod_that_may_not_be_made_is_quoted_at_once(place: Place) -> None:
    place.deploy("v1")
    runtime = place.runtime("privileged", {"securityContext": {"privileged": True}})
    began = time.monotonic()
    with pytest.raises(RolloutError, match=r"no pod can be made: .*forbidden.* serves again"):
        place.deploy("v2", runtime=runtime)
    assert time.monotonic() - began < 45
    assert place.served() == "v1"


def test_an_account_that_is_not_there_is_told_before_anything_is_changed(place: Place) -> None:
    place.deploy("v1")
    before = place.service()
    with pytest.raises(RolloutError, match=r"no ServiceAccount nobody in .*; nothing was changed"):
        place.deploy("v2", service_account="nobody")
    assert place.service() == before
    assert len(place.ledger()) == 1


def test_missing_rights_are_told_before_anything_is_changed(
    place: Place, administrator: Api, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("other")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig_of(administrator, place.namespace, "default", folder)))
    account = f"system:serviceaccount:{place.namespace}:default"
    with pytest.raises(
        RolloutError, match=rf"{account} may not get inferenceservices in namespace {place.namespace}; .*kubectl .*manifests/base"
    ):
        place.deploy("v1")
    role = {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]}
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{place.namespace}"
    administrator.ask("POST", f"{path}/roles", {"metadata": {"name": "reader"}, **role})
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": place.namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    administrator.ask("POST", f"{path}/rolebindings", {"metadata": {"name": "reader"}, "roleRef": reference, "subjects": [subject]})
    missing = "create inferenceservices, patch inferenceservices, delete inferenceservices"
    with pytest.raises(RolloutError, match=rf"{place.namespace}:default may not {missing} in namespace {place.namespace}"):
        place.deploy("v1")
    assert place.served() == ""
    assert place.ledger() == []


def test_a_field_that_another_tool_owns_is_left_to_it_unless_asked(place: Place) -> None:
    place.deploy("v1")
    service = place.service()
    assert service is not None
    path = service_path(place.namespace)
    uri = service["spec"]["predictor"]["model"]["storageUri"]
    place.api.apply(path, {
        "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": "digits"},
        "spec": {"predictor": {"model": {"modelFormat": {"name": "penstock"}, "storageUri": uri}}},
    }, "argocd")  # fmt: skip
    with pytest.raises(RolloutError, match=r"another tool owns .*argocd.*storageUri.*serving\.take_over"):
        place.deploy("v2")
    assert place.served() == "v1"
    assert place.ledger() == [("deployed", "v1", "v1")]
    assert place.deploy("v2", take_over=True) == "deployed"


@pytest.mark.load
def test_what_the_webhook_and_the_schema_refuse_is_no_fault_of_the_server(place: Place) -> None:
    place.deploy("v1")
    with pytest.raises(UsageError, match=r"runs in mode Standard, which cannot be changed to Knative"):
        place.deploy("v2", mode="Knative")
    began = time.monotonic()
    with pytest.raises(RolloutError, match=r"was refused: .*PYTHONPATH"):
        place.deploy("v2", variables={"PYTHONPATH": "/tmp"})
    assert time.monotonic() - began < 20
    assert place.served() == "v1"
    assert place.ledger() == [("deployed", "v1", "v1")]


def test_rolling_back_is_undo_and_what_is_served_is_the_last_record(place: Place) -> None:
    place.deploy("v1")
    place.deploy("v2")
    with pytest.raises(RolloutError):
        place.deploy("v3", runtime=place.runtime("no-image", bad.NO_IMAGE))
    previous = place.registry.resolve("previous")
    assert previous == place.versions["v1"]
    assert place.deploy(previous, strategy="rollback") == "deployed"
    assert place.served() == "v1"
    assert place.ledger()[-1] == ("rolled_back", "v1", "v1")
    assert place.registry.ledger.previous() is None
    assert place.deploy("v3") == "deployed"
    assert place.registry.resolve("previous") == place.versions["v1"]


def test_a_service_of_another_store_or_model_is_not_touched_unless_it_is_taken_over(place: Place, bundles: Path) -> None:
    place.deploy("v1")
    before = place.service()
    other = Registry(open_store(f"{place.registry.store.url}-typo"), "digits")
    version = publish_directory(other, bundles / "v2").version
    request = place.request(version)
    with pytest.raises(UsageError, match=rf"digits serves .*{place.versions['v1']}/ .*not of {other.store.url}/models/digits/ .*take_over"):
        deploy_kserve(other, request, place.said.append)
    assert place.service() == before
    assert other.ledger.records() == []
    assert deploy_kserve(other, place.request(version, take_over=True), place.said.append) == "deployed"
    assert place.served() == "v2"


def test_the_same_version_by_a_runtime_that_crashes_is_not_called_served(place: Place) -> None:
    place.deploy("v1")
    with pytest.raises(RolloutError, match="exit code 3"):
        place.deploy("v1", runtime=place.runtime("crashes", bad.CRASHES), settle_seconds=0)
    service = place.service()
    assert service is not None
    assert service["spec"]["predictor"]["model"]["runtime"] == "penstock-onnx-v1"


def test_a_service_deleted_behind_our_back_comes_back(place: Place) -> None:
    place.deploy("v1")
    place.api.ask("DELETE", service_path(place.namespace))
    assert place.deploy("v1") == "deployed"
    assert place.served() == "v1"
    assert len(place.ledger()) == 1


def test_the_stand_ins_are_programs_of_their_own() -> None:
    assert subprocess.run([sys.executable, "-c", "import tests.cluster.controller, tests.cluster.kubelet"], check=False).returncode == 0
