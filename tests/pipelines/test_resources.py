"""What every step asks of the cluster: requests and limits, by default and by a file."""

from pathlib import Path

import pytest
from kubernetes.utils import parse_quantity

from components.classifier.errors import UsageError
from components.settings.resources import Resources, check_steps, read_steps, step_resources
from pipelines.catalogue import PIPELINES
from tests.pipelines.pods import Object, step_pods
from tests.pipelines.runs import penstock

FILE = """
all:
  labels: {team: vision}
  annotations: {example.com/owner: someone@example.com}
score-images:
  cpu: "3"
  memory: 6Gi
  tolerations: [{key: spot, operator: Exists, effect: NoSchedule}]
merge-scores: {memory_limit: 3Gi, node_selector: {disk: ssd}}
train-model: {labels: {kind: training}}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipelines.compile import compile_pipelines

    folder = tmp_path_factory.mktemp("compiled")
    compile_pipelines(folder)
    return folder


def amounts(pod: Object) -> dict[str, dict[str, str]]:
    (main,) = [it for it in pod["spec"]["containers"] if it["name"] == "main"]
    found: dict[str, dict[str, str]] = main["resources"]
    return found


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_step_of_every_pipeline_has_requests_and_limits_that_two_cores_hold(pipeline: str, compiled: Path) -> None:
    for name, pod in step_pods(compiled / f"{pipeline}.yaml").items():
        found = amounts(pod)
        assert found["requests"].keys() == found["limits"].keys() == {"cpu", "memory"}, name
        for resource, most in (("cpu", "2"), ("memory", "4Gi")):
            asked, limit = (parse_quantity(found[part][resource]) for part in ("requests", "limits"))
            assert asked <= limit <= parse_quantity(most), name
        assert parse_quantity(found["requests"]["cpu"]) <= parse_quantity("500m"), "a node has daemons too"


def test_a_training_run_sets_its_own_amounts_and_a_limit_is_never_below_what_it_asks_for(compiled: Path) -> None:
    asked = Resources.read({"cpu": "6", "memory": "16Gi", "memory_limit": "20Gi"})
    pods = step_pods(compiled / "training.yaml", asked, gpus="1")
    assert amounts(pods["train-model"]) == {
        "requests": {"cpu": "6", "memory": "16Gi"},
        "limits": {"cpu": "6", "memory": "20Gi", "nvidia.com/gpu": "1"},
    }
    assert amounts(pods["gate-model"])["limits"]["memory"] == "2Gi"
    with pytest.raises(UsageError, match=r"memory_limit 1Gi is below memory 2Gi"):
        Resources.read({"memory_limit": "1Gi"})


def test_a_file_sets_amounts_nodes_and_labels_of_single_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "resources.yaml").write_text(FILE)
    monkeypatch.setenv("PENSTOCK_RESOURCES", "resources.yaml")
    done = penstock("compile", "--output", "compiled", cwd=tmp_path)
    assert done.code == 0, done.err
    pods = step_pods(tmp_path / "compiled" / "scoring.yaml") | step_pods(tmp_path / "compiled" / "training.yaml")
    score, merge, train = pods["score-images"], pods["merge-scores"], pods["train-model"]
    assert amounts(score) == {"requests": {"cpu": "3", "memory": "6Gi"}, "limits": {"cpu": "3", "memory": "6Gi"}}
    assert [it["key"] for it in score["spec"]["tolerations"]] == ["spot", "nvidia.com/gpu"]
    assert amounts(merge)["limits"] == {"cpu": "1", "memory": "3Gi"}
    assert merge["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert {pod["metadata"]["annotations"]["example.com/owner"] for pod in pods.values()} == {"someone@example.com"}
    assert {pod["metadata"]["labels"].get("team") for name, pod in pods.items() if name != "train-model"} == {"vision"}
    assert train["metadata"]["labels"] == {"team": "vision", "kind": "training"}


def read_for(steps: list[str], path: Path) -> None:
    given = read_steps(str(path))
    check_steps(given, steps)
    for step in steps:
        step_resources(step, given)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("score: {memory: 2Gi}", "PENSTOCK_RESOURCES has no setting 'score'"),
        ("score-images: {memory: 2 GB}", "memory '2 GB' is not an amount"),
        ("score-images: {node_selector: {a: b}}", "node_selector of score-images, which each run chooses"),
        ("train-model: {cpu: '2'}", "cpu of train-model, which each run chooses"),
        ("all: {priority: high}", "resources of a step has no setting 'priority'"),
        ("all: {labels: {a b: c}}", "labels a b='c' is not a label"),
        ("merge-scores: {tolerations: [{key: a, effect: Never}]}", "unknown tolerations 'Never'"),
        ("- 1", "must hold a mapping for each step"),
        ("{", "cannot be read as YAML"),
    ],
)
def test_a_file_that_cannot_work_is_refused_in_one_line(text: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "resources.yaml").write_text(text)
    with pytest.raises(UsageError) as raised:
        read_for(["score-images", "train-model", "merge-scores"], tmp_path / "resources.yaml")
    assert line in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_the_command_line_refuses_a_step_that_no_pipeline_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "resources.yaml").write_text("score-image: {memory: 2Gi}")
    monkeypatch.setenv("PENSTOCK_RESOURCES", "resources.yaml")
    done = penstock("compile", cwd=tmp_path)
    assert done.code == 2, done.out + done.err
    (only,) = done.err.splitlines()
    assert "PENSTOCK_RESOURCES has no setting 'score-image' (did you mean 'score-images'?)" in only


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"PENSTOCK_RESOURCES=/nowhere/r\.yaml cannot be read"):
        read_steps("/nowhere/r.yaml")


def test_a_steps_own_setting_wins_over_that_for_all() -> None:
    given = {"all": {"cpu": "250m", "labels": {"a": "1"}}, "gate-model": {"cpu": "500m", "labels": {"b": "2"}}}
    assert (step_resources("gate-model", given).cpu, step_resources("publish-model", given).cpu) == ("500m", "250m")
    assert step_resources("gate-model", given).labels == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("less", "more"), [("900m", "1"), ("0.5", "501m"), ("1000000", "1M"), ("1G", "1Gi"), ("1023Mi", "1Gi"), ("9Ki", "1M")]
)
def test_amounts_are_compared_as_kubernetes_does(less: str, more: str) -> None:
    assert parse_quantity(less) <= parse_quantity(more)
    kind = "cpu" if more[-1].isdigit() or more.endswith("m") else "memory"
    step_resources("gate-model", {"all": {kind: less, f"{kind}_limit": more}})
    if parse_quantity(less) < parse_quantity(more):
        with pytest.raises(UsageError, match=f"{kind}_limit {less} is below {kind} {more}"):
            step_resources("gate-model", {"all": {kind: more, f"{kind}_limit": less}})
