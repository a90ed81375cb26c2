"""What Kubeflow Trainer starts for a training on several nodes: taken by its schema, by Pod Security, and with the keys of the steps."""

import yaml

from pipelines.steps import CA_CONFIG, CA_FOLDER, STORAGE_CONFIG, STORAGE_SECRET
from tests.manifests.building import MANIFESTS
from tests.manifests.pods import restricted_violations
from tests.manifests.schemas import problems

RUNTIME = yaml.safe_load((MANIFESTS / "components" / "trainer" / "runtime.yaml").read_text())
(NODE,) = RUNTIME["spec"]["template"]["spec"]["replicatedJobs"]
POD = NODE["template"]["spec"]["template"]


def test_the_runtime_is_one_that_the_trainer_takes_and_its_pod_is_restricted() -> None:
    assert problems(RUNTIME) == []
    assert restricted_violations(POD) == []
    assert (NODE["name"], POD["spec"]["containers"][0]["name"]) == ("node", "node"), "the names by which the Trainer finds it"


def test_a_node_reaches_the_store_as_the_steps_do() -> None:
    (container,) = POD["spec"]["containers"]
    assert {name["name"] for it in container["envFrom"] for name in it.values()} == {STORAGE_CONFIG, STORAGE_SECRET}
    assert {it["mountPath"]: it["name"] for it in container["volumeMounts"]}[CA_FOLDER] == "ca"
    assert {it["name"]: it for it in POD["spec"]["volumes"]}["ca"]["configMap"]["name"] == CA_CONFIG
