"""The scoring pipeline: from a folder of pictures to a Parquet file of answers."""

from typing import NamedTuple

from kfp import dsl

from components.score.component import merge_scores, plan_shards, resolve_version, score_images
from pipelines.descriptions import described
from pipelines.steps import HOUR, MINUTE, configure, know_own_pod, some, use_gpus

Outputs = NamedTuple("Outputs", [("version", str), ("output", str)])  # noqa: UP014 - kfp reads this form


@dsl.pipeline(
    name="penstock-scoring",
    display_name="Penstock: score pictures in batch",
    description="Scores pictures with the champion or a named model version and writes one Parquet file.",
)
@described
def scoring_pipeline(
    input: str = "golden",
    output: str = "",
    store: str = "s3://penstock",
    name: str = "digits",
    version: str = "champion",
    environment: str = "dev",
    shards: int = 0,
    gpus: str = "0",
    gpu_resource: str = "nvidia.com/gpu",
    node_selector: dict = {},  # noqa: B006 - kfp reads the default, nothing changes it
    scoring: dict = {},  # noqa: B006
) -> Outputs:
    """Score pictures with one model version.

    1. resolve says which version "champion" is now; all other steps use that one.
    2. plan looks through the input, sets aside what is not a picture, and cuts the rest into pieces and shards. Where the output
       holds the same scores already, the run ends here, and succeeds.
    3. For each shard, score decodes and classifies, and keeps each finished piece in the output: a run that was stopped goes on there.
    4. merge commits what the shards wrote: predictions, summary and manifest.
    """
    given = dict(locals())
    resolve = resolve_version(**some(given, "store", "name", "version"))
    configure(resolve, "Resolve version", timeout=10 * MINUTE)

    plan = plan_shards(
        version=resolve.output, **some(given, "store", "name", "input", "output", "environment", "shards", "gpus", "scoring")
    )
    configure(plan, "Plan", timeout=2 * HOUR)
    know_own_pod(plan)

    with dsl.If(plan.outputs["Output"] == "score", name="changed"):
        with dsl.ParallelFor(plan.outputs["shards"], name="shards") as shard:
            score = score_images(plan=plan.outputs["plan"], shard=shard, gpus=gpus, gpu_resource=gpu_resource, node_selector=node_selector)
            configure(score, "Score", timeout=24 * HOUR)
            know_own_pod(score)
            use_gpus(score, gpus, gpu_resource, node_selector)

        merge = merge_scores(plan=plan.outputs["plan"], results=dsl.Collected(score.output))
        configure(merge, "Merge", timeout=2 * HOUR)

    return Outputs(version=resolve.output, output=plan.outputs["address"])
