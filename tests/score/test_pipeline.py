"""The pipeline as it is compiled, and as kfp's local runner runs it."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from kfp import compiler

from components.score.component import merge_scores, plan_shards, resolve_version, score_images
from pipelines.scoring import scoring_pipeline
from tests.pipelines.runs import penstock
from tests.score import cases
from tests.score.conftest import Model


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("compiled") / "scoring.yaml"
    compiler.Compiler().compile(scoring_pipeline, str(path))
    return dict(next(yaml.safe_load_all(path.read_text())))


def test_no_step_is_ever_cached_since_all_of_them_look_outside(compiled: dict[str, Any]) -> None:
    dags = [component["dag"] for component in [compiled["root"], *compiled["components"].values()] if "dag" in component]
    tasks = {name: task for dag in dags for name, task in dag["tasks"].items() if not name.startswith(("for-loop", "condition"))}
    assert set(tasks) == {"resolve-version", "plan-shards", "score-images", "merge-scores"}
    assert [name for name, task in tasks.items() if task.get("cachingOptions", {}).get("enableCache")] == []


def test_what_shapes_a_pod_in_the_loop_is_an_input_of_that_task(compiled: dict[str, Any]) -> None:
    inputs = compiled["components"]["comp-for-loop-2"]["dag"]["tasks"]["score-images"]["inputs"]["parameters"]
    assert {"gpus", "gpu_resource", "node_selector"} <= set(inputs)
    resources = compiled["deploymentSpec"]["executors"]["exec-score-images"]["container"]["resources"]
    assert "accelerator" in resources


def test_every_parameter_is_described_and_has_a_default(compiled: dict[str, Any]) -> None:
    parameters = compiled["root"]["inputDefinitions"]["parameters"]
    assert [name for name, p in parameters.items() if not p.get("description") or "defaultValue" not in p] == []


@pytest.mark.integration
def test_it_runs_under_the_local_runner_and_ends_after_the_plan_when_nothing_has_changed(model: Model, tmp_path: Path) -> None:
    folder, output = cases.folder(tmp_path / "in", 10), tmp_path / "output"
    given = [f"--set={name}={value}" for name, value in (("input", folder), ("output", output), ("shards", 3), ("batch_size", 4))]
    ran = penstock("run", "scoring", *given, f"--store={model.store}", "--json", cwd=tmp_path)
    assert ran.code == 0, ran.out + ran.err
    assert ran.json["outputs"] == {"version": model.version, "output": str(output)}
    assert sorted(ran.steps) == ["merge-scores", "plan-shards", "resolve-version", *["score-images"] * 3]
    assert pq.read_table(output / "predictions.parquet")["input"].to_pylist() == sorted(f"{k}.png" for k in range(10))
    again = penstock("run", "scoring", *given, f"--store={model.store}", "--json", cwd=tmp_path)
    assert (again.code, again.json["outputs"], again.json["not_taken"]) == (0, ran.json["outputs"], ["changed"])
    assert sorted(again.steps) == ["plan-shards", "resolve-version"]
    told = penstock("run", "scoring", *given, f"--store={model.store}", cwd=tmp_path)
    assert told.code == 0, told.out + told.err
    assert "nothing has changed: nothing is scored" in told.out
    assert "10 rows: 10 scored" in told.out


def test_each_step_by_itself(model: Model, tmp_path: Path) -> None:
    from kfp import dsl

    folder = cases.folder(tmp_path / "in", 10)
    version = resolve_version.python_func(store=model.store, name="digits")
    plan = dsl.Dataset(uri=str(tmp_path / "plan"))
    given = {"store": model.store, "name": "digits", "version": version, "input": str(folder), "output": str(tmp_path / "output")}
    planned, shards, address = plan_shards.python_func(plan=plan, **given, shards=3.0)
    assert (planned, shards, address) == ("score", ["0", "1", "2"], given["output"])
    assert plan.metadata["version"] == model.version
    results = [score_images.python_func(plan=plan, shard=shard, node_selector={}) for shard in shards]
    predictions, summary, metrics = (kind(uri=str(tmp_path / kind.__name__)) for kind in (dsl.Dataset, dsl.Markdown, dsl.Metrics))
    assert merge_scores.python_func(plan=plan, results=results, predictions=predictions, summary=summary, metrics=metrics) == str(
        tmp_path / "output"
    )
    assert metrics.metadata["rows"] == 10
    assert "| 10 | 0 |" in Path(summary.path).read_text()
    assert (Path(predictions.path) / "predictions.parquet").exists()
    assert plan_shards.python_func(plan=dsl.Dataset(uri=str(tmp_path / "again")), **given, shards=3.0)[0] == "unchanged"
    assert (tmp_path / "again" / "summary.json").read_bytes() == (Path(predictions.path) / "summary.json").read_bytes()
