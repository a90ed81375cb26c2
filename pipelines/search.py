"""The search pipeline: many short trainings, few long ones, and the best of them through the gate like every other model."""

from typing import NamedTuple

from kfp import dsl

from components.ingest.component import ingest_dataset
from components.preflight.component import check_search
from components.search.component import choose_best, keep_best, plan_trials
from components.settings.search import RUNGS
from components.train.component import train_model, train_trial
from pipelines.challenge import conclude_after, judge, roll_out
from pipelines.descriptions import described
from pipelines.steps import HOUR, MINUTE, RUN_ID, configure, pod_inputs, some, use_pod, within_group

PARALLEL_TRIALS = 4
"""Trials of a rung that train at the same time; Kubeflow takes no run parameter here. On one machine kfp's runner has two at once."""

Outputs = NamedTuple("Outputs", [("version", str), ("decision", str)])  # noqa: UP014 - kfp reads this form


@dsl.pipeline(
    name="penstock-search",
    display_name="Penstock: search for better settings, then gate and deploy",
    description="Tries settings of training by successive halving, and takes the best by validation through the gate.",
)
@described
def search_pipeline(
    source: str = "digits",
    store: str = "s3://penstock",
    name: str = "digits",
    environment: str = "dev",
    architecture: str = "small_cnn",
    pretrained: bool = False,
    device: str = "auto",
    gpus: str = "0",
    strategy: str = "quality",
    actor: str = "",
    reason: str = "",
    target: str = "local",
    namespace: str = "",
    search: dict = {},  # noqa: B006 - kfp reads the default, nothing changes it
    ingest: dict = {},  # noqa: B006
    training: dict = {},  # noqa: B006
    policy: dict = {},  # noqa: B006
    serving: dict = {},  # noqa: B006
    resources: dict = {},  # noqa: B006
) -> Outputs:
    """Search for better settings of training, and let the winner through to production only if it is good.

    1. preflight refuses parameters that cannot work, those of every trial included.
    2. ingest reads and checks the dataset, and seals a test split.
    3. plan chooses the trials: a small grid, or random combinations.
    4. In each of three rungs the trials train a part of their epochs in parallel, and the better ones by validation go on from there.
    5. choose takes the best trial of the last rung by validation, and records all of them.
    6. train goes on from the winner's checkpoint, and exports the model.
    7. evaluate, publish, gate, and deploy or hold follow as in the training pipeline; the test split is opened here, for the winner alone.
    """
    given = dict(locals())
    base = some(given, "name", "architecture", "pretrained", "device", "gpus", "training")

    preflight = check_search(**given)
    configure(preflight, "Preflight", timeout=10 * MINUTE)
    pod = pod_inputs(preflight.outputs)

    data = ingest_dataset(**some(given, "source", "ingest", "store")).after(preflight)
    configure(data, "Ingest", timeout=6 * HOUR)

    plan = plan_trials(**base, search=search).after(data)
    configure(plan, "Plan trials", timeout=10 * MINUTE)

    trials, results = plan.output, []
    for rung in range(1, RUNGS + 1):
        with dsl.ParallelFor(trials, name=f"rung-{rung}", parallelism=PARALLEL_TRIALS) as trial:
            tried = train_trial(dataset=data.outputs["dataset"], trial=trial, store=store, **base, **pod)
            configure(tried, f"Rung {rung}", timeout=24 * HOUR)
            within_group(use_pod(tried, gpus, preflight.outputs))
        results.append(tried.outputs["Output"])
        if rung < RUNGS:
            keep = keep_best(results=dsl.Collected(results[-1]), **base, search=search)
            configure(keep, f"Keep the best {rung}", timeout=10 * MINUTE)
            trials = keep.output

    choose = choose_best(
        dataset=data.outputs["dataset"],
        first=dsl.Collected(results[0]),
        second=dsl.Collected(results[1]),
        third=dsl.Collected(results[2]),
        run=RUN_ID,
        **some(given, "source", "ingest", "store", "search"),
        **base,
    )
    configure(choose, "Choose", timeout=10 * MINUTE)

    train = train_model(
        dataset=data.outputs["dataset"],
        dataset_digest=data.outputs["Output"],
        **{chosen: choose.outputs[chosen] for chosen in ("architecture", "pretrained", "epochs", "training")},
        **some(given, "name", "device", "gpus", "store"),
        **pod,
    )
    configure(train, "Train", timeout=24 * HOUR)
    use_pod(train, gpus, preflight.outputs)

    publish, gate = judge(given, data.outputs["dataset"], train.outputs["model"])
    with dsl.ExitHandler(conclude_after(given), name="rollout"):
        roll_out(given, publish, gate)
    return Outputs(version=publish.outputs["Output"], decision=gate.outputs["Output"])
