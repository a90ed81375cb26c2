"""The scoring pipeline: from a folder of pictures to a Parquet file of answers."""

from typing import NamedTuple

from kfp import dsl

from components.score.component import merge_scores, plan_shards, resolve_version, score_images
from pipelines.steps import HOUR, MINUTE, configure, use_gpus

Outputs = NamedTuple("Outputs", [("version", str), ("output", str)])  # noqa: UP014 - kfp reads this form


@dsl.pipeline(
    name="penstock-scoring",
    display_name="Penstock: score pictures in batch",
    description="Scores pictures with the champion or a named model version and writes one Parquet file.",
)
def scoring_pipeline(
    input: str = "golden",
    output: str = "",
    store: str = "s3://penstock",
    name: str = "digits",
    version: str = "champion",
    review_threshold: float = 0.8,
    probabilities: bool = False,
    image_column: str = "",
    shards: int = 0,
    batch_size: int = 64,
    workers: int = 0,
    device: str = "auto",
    gpus: str = "0",
    gpu_resource: str = "nvidia.com/gpu",
    node_selector: dict = {},  # noqa: B006 - kfp reads the default, nothing changes it
) -> Outputs:
    """Score pictures with one model version.

    1. resolve says which version "champion" is now; all other steps use that one.
    2. plan looks through the input, sets aside what is no picture, and cuts the rest into pieces and shards.
    3. For each shard, score decodes and classifies, and keeps each finished piece in the output: a run that was stopped goes on there.
    4. merge puts the pieces together in order and commits predictions, summary and manifest.

    Args:
        input: A folder of pictures, or of .npy, IDX, Parquet, tar and zip files, or one such file; local or s3://. golden is the
            version's own golden pictures.
        output: Where the results go: a directory or s3://bucket/prefix. Empty is a folder below scores/ in the model store.
        store: Model store: s3://bucket/prefix, or a directory for local runs.
        name: The model's name.
        version: champion, previous, or a version's name.
        review_threshold: Answers with less confidence than this are marked needs_review.
        probabilities: Write the probability of every class, not only of the winner.
        image_column: Which column of Parquet files holds the pictures, where several may.
        shards: How many steps share the work; 0 is one for every 50,000 pictures, 16 at most.
        batch_size: Pictures a call of the model; with a GPU take 256 or more.
        workers: Decoding threads a shard; 0 is one a CPU, and 10 for objects of a store.
        device: auto, cpu or cuda.
        gpus: GPUs a shard, as text; "0" for none.
        gpu_resource: The resource that the cluster gives GPUs by.
        node_selector: Labels of the nodes that may score, such as {"cloud.google.com/gke-accelerator": "nvidia-l4"}.
    """
    resolve = resolve_version(store=store, name=name, version=version)
    configure(resolve, "Resolve version", timeout=10 * MINUTE)

    plan = plan_shards(
        store=store,
        name=name,
        version=resolve.output,
        input=input,
        output=output,
        review_threshold=review_threshold,
        shards=shards,
        batch_size=batch_size,
        probabilities=probabilities,
        image_column=image_column,
        device=device,
        workers=workers,
    )
    configure(plan, "Plan", timeout=2 * HOUR)

    with dsl.ParallelFor(plan.outputs["Output"], name="shards") as shard:
        score = score_images(plan=plan.outputs["plan"], shard=shard, gpus=gpus, gpu_resource=gpu_resource, node_selector=node_selector)
        configure(score, "Score", timeout=24 * HOUR)
        use_gpus(score, gpus, gpu_resource, node_selector)
        score.set_cpu_request("500m").set_memory_request("1Gi")

    merge = merge_scores(plan=plan.outputs["plan"], results=dsl.Collected(score.output))
    configure(merge, "Merge", timeout=2 * HOUR)

    return Outputs(version=resolve.output, output=merge.outputs["Output"])
