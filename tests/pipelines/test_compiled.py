"""What Kubeflow receives: the rules that keep a run from failing in silence, held on the compiled YAML."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from components.classifier.errors import UsageError
from components.step_image import IMAGE, PREDICTOR_IMAGE
from pipelines.catalogue import PIPELINES
from pipelines.compile import check_image, compile_pipelines

FORM = {"source", "store", "name", "environment", "architecture", "epochs", "pretrained", "device", "gpus", "strategy", "actor", "reason"}
FORM |= {"target", "namespace"}
GROUPS = {"ingest", "training", "policy", "serving", "resources"}


class Compiled:
    """One compiled pipeline: its specification and its Kubernetes settings."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text("utf-8")
        self.spec, platforms = yaml.safe_load_all(self.text)
        self.kubernetes: dict[str, Any] = platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"]

    def tasks(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every task with an executor, by its component's name."""
        dags = [self.spec["root"], *self.spec["components"].values()]
        for dag in (component["dag"] for component in dags if "dag" in component):
            for task in dag["tasks"].values():
                name = task["componentRef"]["name"].removeprefix("comp-")
                if "executorLabel" in self.spec["components"][f"comp-{name}"]:
                    yield name, task

    def task(self, name: str) -> dict[str, Any]:
        return dict(self.tasks())[name]

    def container(self, name: str) -> dict[str, Any]:
        return self.spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]

    def conditions(self) -> list[str]:
        dags = [component["dag"] for component in self.spec["components"].values() if "dag" in component]
        triggers = [task.get("triggerPolicy", {}) for dag in dags for task in dag["tasks"].values()]
        return [trigger["condition"] for trigger in triggers if "condition" in trigger]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Compiled]:
    written = compile_pipelines(tmp_path_factory.mktemp("compiled"))
    return {path.stem: Compiled(path) for path in written}


@pytest.fixture(scope="module")
def training(compiled: dict[str, Compiled]) -> Compiled:
    return compiled["training"]


@pytest.fixture(params=list(PIPELINES))
def each(request: pytest.FixtureRequest, compiled: dict[str, Compiled]) -> Compiled:
    return compiled[request.param]


def test_it_is_a_pipeline_specification(each: Compiled) -> None:
    json_format.ParseDict(each.spec, pipeline_spec_pb2.PipelineSpec())


def test_the_same_sources_give_the_same_bytes(compiled: dict[str, Compiled], tmp_path: Path) -> None:
    for path in compile_pipelines(tmp_path):
        assert path.read_text("utf-8") == compiled[path.stem].text


def test_every_parameter_of_the_form_has_a_default_and_a_description(each: Compiled) -> None:
    parameters = each.spec["root"]["inputDefinitions"]["parameters"]
    assert {name for name, p in parameters.items() if "defaultValue" not in p} == set()
    assert {name for name, p in parameters.items() if not p.get("description")} == set()


def test_the_form_asks_for_what_users_set(training: Compiled) -> None:
    assert set(training.spec["root"]["inputDefinitions"]["parameters"]) == FORM | GROUPS


def test_a_form_has_at_most_19_fields(each: Compiled) -> None:
    assert len(each.spec["root"]["inputDefinitions"]["parameters"]) <= 19


def test_every_step_has_a_name_for_people(each: Compiled) -> None:
    assert [name for name, task in each.tasks() if task["taskInfo"]["name"] == name] == []


def test_immutable_images_and_nothing_installed_at_start(each: Compiled) -> None:
    for name, _ in each.tasks():
        container = each.container(name)
        check_image(container["image"])
        assert "pip install" not in str(container["command"])


def test_a_version_is_validated_in_the_image_that_serves_and_all_else_runs_in_the_pipelines(each: Compiled) -> None:
    found = {name: each.container(name)["image"] for name, _ in each.tasks()}
    assert found == {name: PREDICTOR_IMAGE if name == "validate-serving" else IMAGE for name in found}
    assert PREDICTOR_IMAGE != IMAGE


@pytest.mark.parametrize("pipeline", ["training", "search", "retraining", "deployment"])
def test_a_pipeline_that_deploys_validates(pipeline: str, compiled: dict[str, Compiled]) -> None:
    assert compiled[pipeline].container("validate-serving")["image"] == "penstock-predictor:0.1.0"


@pytest.mark.parametrize("image", ["penstock", "registry:5000/penstock", "penstock:latest", "registry:5000/a/penstock:latest"])
def test_an_image_whose_content_can_change_is_refused(image: str) -> None:
    with pytest.raises(UsageError, match="immutable tag or a digest"):
        check_image(image)


@pytest.mark.parametrize("image", ["penstock:0.1.0", "registry:5000/penstock:0.1.0", "penstock@sha256:" + "0" * 64])
def test_a_pinned_image_is_taken(image: str) -> None:
    check_image(image)


def test_the_decision_is_a_text_and_both_branches_are_there(training: Compiled) -> None:
    positive, negative = training.conditions()
    assert positive == "inputs.parameter_values['pipelinechannel--gate-model-Output'] == 'deploy'"
    assert negative == f"!({positive})"
    outputs = training.spec["components"]["comp-gate-model"]["outputDefinitions"]["parameters"]
    assert outputs["Output"]["parameterType"] == "STRING"


def test_retraining_is_training_of_which_all_after_ingest_waits_for_a_change(training: Compiled, compiled: dict[str, Compiled]) -> None:
    retraining = compiled["retraining"]
    assert retraining.spec["root"]["inputDefinitions"] == training.spec["root"]["inputDefinitions"]
    assert sorted(name for name, _ in retraining.tasks()) == sorted(name for name, _ in training.tasks())
    ingested, before = "pipelinechannel--ingest-dataset-Output", "pipelinechannel--check-parameters-trained_on"
    changed = f"inputs.parameter_values['{ingested}'] != inputs.parameter_values['{before}']"
    assert sorted(retraining.conditions()) == sorted([changed, *training.conditions()])
    assert {"check-parameters", "ingest-dataset", "conclude-run"} < set(retraining.spec["root"]["dag"]["tasks"])
    assert "train-model" not in retraining.spec["root"]["dag"]["tasks"]
    compare = [each.task("check-parameters")["inputs"]["parameters"]["compare"] for each in (training, retraining)]
    assert [it["runtimeValue"]["constant"] for it in compare] == [False, True]


def test_what_shapes_the_training_pod_within_the_condition_are_its_own_inputs(compiled: dict[str, Compiled]) -> None:
    task = compiled["retraining"].task("train-model")["inputs"]["parameters"]
    for name in ("pod_gpus", "pod_cpu", "pod_memory", "pod_cpu_limit", "pod_memory_limit", "gpu_resource", "node_selector"):
        assert task[name] == {"componentInputParameter": f"pipelinechannel--check-parameters-{name.removeprefix('pod_')}"}


def test_the_deploy_branch_validates_before_it_deploys(training: Compiled) -> None:
    deploy = training.task("deploy-model")
    assert deploy["inputs"]["parameters"]["version"]["taskOutputParameter"]["producerTask"] == "validate-serving"


def test_nothing_is_cached(each: Compiled) -> None:
    assert [name for name, task in each.tasks() if task["cachingOptions"].get("enableCache")] == []


def test_no_pipeline_feeds_one_of_several_outputs_from_a_cached_branch(each: Compiled) -> None:
    assert "valueFromOneof" not in each.text


def test_no_parameter_of_a_step_is_optional(each: Compiled) -> None:
    sources = "".join(str(each.container(name)["command"]) for name, _ in each.tasks())
    assert "Optional[" not in sources
    assert "| None" not in sources.split("def ", 1)[1].split("->", 1)[0]


def test_gpus_are_a_text_that_becomes_a_limit(training: Compiled) -> None:
    parameters = training.spec["root"]["inputDefinitions"]["parameters"]
    assert (parameters["gpus"]["parameterType"], parameters["gpus"]["defaultValue"]) == ("STRING", "0")
    accelerator = training.container("train-model")["resources"]["accelerator"]
    assert "pipelinechannel--check-parameters-gpus" in accelerator["resourceCount"], "none where other nodes train"
    returned = training.spec["components"]["comp-check-parameters"]["outputDefinitions"]["parameters"]
    assert returned["gpus"]["parameterType"] == "STRING"
    assert "pipelinechannel--check-parameters-gpu_resource" in accelerator["resourceType"]


def test_training_may_go_to_tainted_nodes_that_the_user_selects(training: Compiled) -> None:
    settings = training.kubernetes["exec-train-model"]
    assert settings["tolerations"] == [{"effect": "NO_SCHEDULE", "key": "nvidia.com/gpu", "operator": "Exists"}] or (
        settings["tolerations"][0]["key"],
        settings["tolerations"][0]["operator"],
    ) == ("nvidia.com/gpu", "Exists")
    returned = {"producerTask": "check-parameters", "outputParameterKey": "node_selector"}
    assert settings["nodeSelector"]["nodeSelectorJson"] == {"taskOutputParameter": returned}


def test_what_shapes_the_training_pod_are_values_that_preflight_returns(training: Compiled) -> None:
    """The backend looks up such a placeholder among the task's inputs, and takes text alone."""
    task, container = training.task("train-model"), training.container("train-model")
    returned = training.spec["components"]["comp-check-parameters"]["outputDefinitions"]["parameters"]
    for name, placeholder in (("cpu", "resourceCpuRequest"), ("memory", "resourceMemoryRequest")):
        channel = f"pipelinechannel--check-parameters-{name}"
        assert container["resources"][placeholder] == f"{{{{$.inputs.parameters['{channel}']}}}}"
        assert task["inputs"]["parameters"][channel]["taskOutputParameter"]["producerTask"] == "check-parameters"
        assert returned[name]["parameterType"] == "STRING"


def test_what_shapes_a_pod_is_an_input_of_the_part_of_the_pipeline_in_which_its_step_is(each: Compiled) -> None:
    """Within a loop or a branch Kubeflow finds no step outside of it, nor a parameter that the step itself does not take."""
    for component in each.spec["components"].values():
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            component_name = task["componentRef"]["name"].removeprefix("comp-")
            settings = each.kubernetes.get(f"exec-{component_name}", {})
            if "nodeSelectorJson" in settings.get("nodeSelector", {}):
                source = settings["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"]
                assert source in component["inputDefinitions"]["parameters"]
                assert {"componentInputParameter": source} in task["inputs"]["parameters"].values(), name


def test_trials_of_a_rung_run_beside_each_other_and_the_next_rung_waits_for_all(compiled: dict[str, Compiled]) -> None:
    search = compiled["search"]
    loops = {name: task for name, task in search.spec["root"]["dag"]["tasks"].items() if "parameterIterator" in task}
    assert [task["iteratorPolicy"]["parallelismLimit"] for task in loops.values()] == [4, 4, 4]
    given = [next(name for name in task["dependentTasks"] if name.startswith(("plan", "keep"))) for task in loops.values()]
    assert given == ["plan-trials", "keep-best", "keep-best-2"]
    kept = [search.task(name)["inputs"]["parameters"]["results"]["taskOutputParameter"]["producerTask"] for name in given[1:]]
    assert kept == list(loops)[:2]


def test_a_search_trains_its_winner_before_the_test_split_is_opened(compiled: dict[str, Compiled]) -> None:
    search = compiled["search"]
    inputs = search.task("train-model")["inputs"]["parameters"]
    assert {inputs[name]["taskOutputParameter"]["producerTask"] for name in ("architecture", "pretrained", "epochs", "training")} == {
        "choose-best"
    }
    opened = [name for name, _ in search.tasks() if name.startswith("evaluate")]
    assert opened == ["evaluate-model"]


def test_the_form_of_a_search_is_that_of_a_training_with_search_in_place_of_epochs(compiled: dict[str, Compiled]) -> None:
    assert set(compiled["search"].spec["root"]["inputDefinitions"]["parameters"]) == (FORM | GROUPS | {"search"}) - {"epochs"}


def test_steps_are_retried_with_backoff_but_a_rollout_is_not(each: Compiled) -> None:
    without = [name for name, task in each.tasks() if not task.get("retryPolicy", {}).get("maxRetryCount")]
    assert without == [name for name, _ in each.tasks() if name.startswith("deploy-")]
    for name, task in each.tasks():
        if name not in without:
            assert task["retryPolicy"]["backoffDuration"] == "10s"
            assert task["retryPolicy"]["backoffFactor"] == 2.0


def test_a_pod_that_is_lost_late_is_still_tried_again(each: Compiled) -> None:
    """Argo counts the "max duration" from the first try's start, and ends what runs then."""
    for name, task in each.tasks():
        policy = task.get("retryPolicy", {})
        if tries := int(policy.get("maxRetryCount", 0)):
            deadline = int(each.kubernetes[f"exec-{name}"]["activeDeadlineSeconds"])
            assert int(policy["backoffMaxDuration"].removesuffix("s")) >= (tries + 1) * deadline


def test_every_step_ends_by_itself_and_is_not_root(each: Compiled) -> None:
    for name, _ in each.tasks():
        settings = each.kubernetes[f"exec-{name}"]
        assert int(settings["activeDeadlineSeconds"]) >= 600
        assert settings["securityContext"]["runAsNonRoot"] is True


def test_credentials_come_from_optional_secrets_and_settings(each: Compiled) -> None:
    for name, _ in each.tasks():
        settings = each.kubernetes[f"exec-{name}"]
        secrets = {secret["secretName"] for secret in settings["secretAsEnv"]}
        asks = name.startswith(("deploy-", "conclude-"))
        writes = asks or name.startswith(("publish-", "approve-")) or name == "record-hold"
        expected = {
            "penstock-s3": True,
            "penstock-integrations": True,
            "penstock-service": asks,
            "penstock-signing": writes,
            "penstock-notify": name == "conclude-run",
        }
        assert secrets == {secret for secret, needed in expected.items() if needed}, "only what publishes or writes the ledger can sign"
        assert [volume["secretName"] for volume in settings.get("secretAsVolume", [])] == (["penstock-signing"] if writes else [])
        config, *others = settings["configMapAsEnv"]
        assert config["configMapName"] == "penstock-storage"
        assert [other["configMapName"] for other in others] == ["penstock-verify", "penstock-integrations"]
        assert "AWS_CA_BUNDLE" in {pair["envVar"] for pair in config["keyToEnv"]}
        assert [volume["configMapName"] for volume in settings["configMapAsVolume"]] == [
            "penstock-ca",
            "penstock-verify",
            "penstock-environments",
            "penstock-integrations",
        ]
        kinds = ("secretAsEnv", "secretAsVolume", "configMapAsEnv", "configMapAsVolume")
        assert all(it["optional"] is True for kind in kinds for it in settings.get(kind, []))


def test_every_step_knows_its_run_by_the_label_that_kubeflow_gives_its_pod(each: Compiled) -> None:
    pod = [("PENSTOCK_POD", "metadata.name"), ("PENSTOCK_POD_NAMESPACE", "metadata.namespace")]
    for name, _ in each.tasks():
        more = pod if name in {"plan-shards", "score-images"} else []  # they make pods like their own
        known = [(it["name"], it["fieldPath"]) for it in each.kubernetes[f"exec-{name}"]["fieldPathAsEnv"]]
        assert known == [("PENSTOCK_RUN", "metadata.labels['pipeline/runid']"), *more]


def test_no_secret_value_is_in_the_file(each: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "AWS_SECRET_ACCESS_KEY=" not in each.text
