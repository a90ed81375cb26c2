"""The steps of batch scoring as Kubeflow sees them."""

from typing import NamedTuple

from kfp import dsl

from components.step_image import component, slim_component


@slim_component
def resolve_version(store: str, name: str, version: str = "champion") -> str:
    """Return the model version that scores.

    Args:
        version: "champion", "previous", or a version's name.
    """
    from components.score import model

    return model.resolve_version(store, name, version)


@slim_component
def plan_shards(
    plan: dsl.Output[dsl.Dataset],
    store: str,
    name: str,
    version: str,
    input: str,
    output: str = "",
    environment: str = "dev",
    shards: int = 0,
    gpus: str = "0",
    scoring: dict = {},  # noqa: B006 - kfp reads the default, nothing changes it
) -> NamedTuple("Planned", [("Output", str), ("shards", list), ("address", str)]):  # type: ignore[valid-type]  # kfp reads this form
    """Look through the input, cut it into pieces and deal them to shards.

    Returns "score", or "unchanged" where the output holds the same scores already, the shards' names, and the output's address.

    Args:
        plan: The pieces, and what was passed over.
        version: A version's name.
    """
    from pathlib import Path

    from components.score.plan_step import is_unchanged, make_plan
    from components.settings.scoring import ScoringSettings

    settings = ScoringSettings.in_environment(scoring, environment)
    if settings.ray_nodes:
        from components.score.kuberay import require_kuberay

        require_kuberay()
    made = make_plan(
        Path(plan.path),
        store=store,
        name=name,
        version=version,
        input=input,
        output=output,
        settings=settings,
        shards=int(shards),
        gpus=gpus,
    )
    plan.metadata.update({"input": input, "output": made.output, "version": version, "pieces": len(made.pieces)})
    return "unchanged" if is_unchanged(made) else "score", made.shards(), made.output


@component
def score_images(
    plan: dsl.Input[dsl.Dataset], shard: str, node_selector: dict, gpus: str = "0", gpu_resource: str = "nvidia.com/gpu"
) -> str:
    """Score one shard's pieces, each kept in the output as soon as it is complete; returns what was done, as JSON.

    What shapes the pod is an input because inside ParallelFor KFP sets pod resources only from the step's own inputs. With
    `ray_nodes` the work is done by other pods, a RayJob of KubeRay, which this one starts and follows.

    Args:
        plan: What plan_shards wrote.
        shard: The shard's name.
    """
    from components.score.plan import Plan

    made = Plan.load(plan.path)
    if made.settings.ray_nodes:
        from components.score.kuberay import score_by_ray_job

        return score_by_ray_job(made, shard, gpu_resource).to_json()
    from components.score.shard import score_shard

    return score_shard(made, shard, gpus).to_json()


@slim_component
def merge_scores(
    plan: dsl.Input[dsl.Dataset],
    results: list,
    predictions: dsl.Output[dsl.Dataset],
    summary: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Commit the output that the shards wrote; returns its address.

    Args:
        plan: What plan_shards wrote.
        results: What each shard returned.
        predictions: predictions.parquet unless the rows are a dataset, _passed_over/ and summary.json.
        summary: The run in a few lines of Markdown.
        metrics: Rows, errors, part that needs review, images per second.
    """
    from pathlib import Path

    from components.score.merge import merge
    from components.score.plan import Plan
    from components.score.summary import markdown

    result = merge(Plan.load(plan.path), results, Path(predictions.path))
    Path(summary.path).write_text(markdown(result), "utf-8")
    for key, value in result.figures().items():
        metrics.log_metric(key, value)
    predictions.metadata.update({"output": result.output, "version": result.version, "rows": result.rows})
    return result.output
