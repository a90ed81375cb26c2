"""The steps of batch scoring as Kubeflow sees them."""

from kfp import dsl

from components.step_image import component


@component
def resolve_version(store: str, name: str, version: str = "champion") -> str:
    """Return the model version that scores.

    Args:
        store: Address of the model store.
        name: The model's name.
        version: "champion", "previous", or a version's name.
    """
    from components.score import model

    return model.resolve_version(store, name, version)


@component
def plan_shards(
    plan: dsl.Output[dsl.Dataset],
    store: str,
    name: str,
    version: str,
    input: str,
    output: str = "",
    review_threshold: float = 0.8,
    shards: int = 0,
    batch_size: int = 64,
    probabilities: bool = False,
    image_column: str = "",
    device: str = "auto",
    workers: int = 0,
) -> list:
    """Look through the input, cut it into pieces and deal them to shards; returns the shards' names.

    Args:
        plan: The pieces, and what was passed over.
        store: Address of the model store.
        name: The model's name.
        version: A version's name.
        input: A file, a folder or s3:// prefix; or golden, the version's own golden pictures.
        output: Where the results go; empty is a folder of the model store.
        review_threshold: Answers with less confidence are marked for review.
        shards: How many steps share the work; 0 is as many as are useful.
        batch_size: Pictures a call of the model.
        probabilities: Write the probability of every class.
        image_column: Which column of Parquet files holds the pictures, where several may.
        device: auto, cpu or cuda.
        workers: Decoding threads a shard; 0 is one a CPU, and 10 for objects of a store.
    """
    from pathlib import Path

    from components.score.planning import make_plan
    from components.settings.scoring import ScoringSettings

    settings = ScoringSettings(review_threshold, int(batch_size), probabilities, image_column, device, int(workers))
    made = make_plan(
        Path(plan.path), store=store, name=name, version=version, input=input, output=output, settings=settings, shards=int(shards)
    )
    plan.metadata.update({"input": input, "output": made.output, "version": version, "pieces": len(made.pieces)})
    return made.shards()


@component
def score_images(
    plan: dsl.Input[dsl.Dataset], shard: str, node_selector: dict, gpus: str = "0", gpu_resource: str = "nvidia.com/gpu"
) -> str:
    """Score one shard's pieces, each kept in the output as soon as it is complete; returns what was done, as JSON.

    Args:
        plan: What plan_shards wrote.
        shard: The shard's name.
        node_selector: Labels of the nodes that may score; an input, as those below, since in a loop only a step's own shape its pod.
        gpus: How many GPUs the step is given.
        gpu_resource: The resource that the cluster gives GPUs by.
    """
    from components.score.plan import Plan
    from components.score.scoring import score_shard

    return score_shard(Plan.load(plan.path), shard, gpus).to_json()


@component
def merge_scores(
    plan: dsl.Input[dsl.Dataset],
    results: list,
    predictions: dsl.Output[dsl.Dataset],
    summary: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Put the pieces together in order and commit the output; returns its address.

    Args:
        plan: What plan_shards wrote.
        results: What each shard returned.
        predictions: predictions.parquet, passed_over.parquet and summary.json.
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
