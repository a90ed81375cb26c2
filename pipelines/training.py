"""The training pipeline: from a dataset's address to a model version that serves, or to a recorded reason why not.

`retraining` is the same for schedules and triggers: it ends before training when nothing has changed. It is a pipeline of its own,
because there the steps from train on lie inside a condition, and so inside the exit handler: Kubeflow takes no exit handler within a
condition, shows such steps two levels deeper, and starts a pod more per level.
"""

from typing import Any, NamedTuple

from kfp import dsl

from components.ingest.component import ingest_dataset
from components.preflight.component import check_parameters
from components.step_image import IMAGE, IMAGE_VARIABLE
from components.train.component import train_model
from pipelines.challenge import conclude_after, judge, roll_out
from pipelines.descriptions import described
from pipelines.steps import HOUR, MINUTE, configure, pod_inputs, some, use_pod, within_group

Outputs = NamedTuple("Outputs", [("version", str), ("decision", str)])  # noqa: UP014 - kfp reads this form
Outcome = NamedTuple("Outcome", [("outcome", str)])  # noqa: UP014 - a pipeline returns nothing from within an exit handler


def _prepare(given: dict[str, Any], *, compare: bool = False) -> tuple[dsl.PipelineTask, dsl.PipelineTask]:
    preflight = check_parameters(**given, compare=compare)
    configure(preflight, "Preflight", timeout=10 * MINUTE)
    data = ingest_dataset(**some(given, "source", "ingest", "store")).after(preflight)
    configure(data, "Ingest", timeout=6 * HOUR)
    return preflight, data


def _train(
    given: dict[str, Any], preflight: dsl.PipelineTask, data: dsl.PipelineTask, *, conditional: bool = False
) -> tuple[dsl.PipelineTask, dsl.PipelineTask]:
    """Add the steps from train to gate, `conditional` within a condition; returns the tasks publish and gate."""
    train = train_model(
        dataset=data.outputs["dataset"],
        dataset_digest=data.outputs["Output"],
        **some(given, "name", "architecture", "pretrained", "epochs", "device", "gpus", "store", "training", "resources"),
        **pod_inputs(preflight.outputs),
        pod_gpus=preflight.outputs["gpus"],
    )
    configure(train, "Train", timeout=24 * HOUR)
    use_pod(train, preflight.outputs["gpus"], preflight.outputs)
    train.set_env_variable(IMAGE_VARIABLE, IMAGE)  # that of further nodes
    if conditional:
        within_group(train)
    return judge(given, data.outputs["dataset"], train.outputs["model"])


@dsl.pipeline(
    name="penstock-training",
    display_name="Penstock: train, evaluate, gate, deploy",
    description="Trains an image classifier, evaluates it on a sealed test split and deploys it if it is good enough.",
)
@described
def training_pipeline(
    source: str = "digits",
    store: str = "s3://penstock",
    name: str = "digits",
    environment: str = "dev",
    architecture: str = "small_cnn",
    pretrained: bool = False,
    epochs: str = "auto",
    device: str = "auto",
    gpus: str = "0",
    strategy: str = "quality",
    actor: str = "",
    reason: str = "",
    target: str = "local",
    namespace: str = "",
    ingest: dict = {},  # noqa: B006 - kfp reads the default, nothing changes it
    training: dict = {},  # noqa: B006
    policy: dict = {},  # noqa: B006
    serving: dict = {},  # noqa: B006
    resources: dict = {},  # noqa: B006
) -> Outputs:
    """Train an image classifier and let it through to production only if it is good.

    1. preflight refuses parameters that cannot work.
    2. ingest reads and checks the dataset, and seals a test split.
    3. train fits the network on the training split and exports it.
    4. evaluate scores the exported model on the test split, beside the champion.
    5. publish makes the candidate an immutable model version.
    6. gate decides by the environment's policy: deploy or hold.
    7. On deploy, validate_serving boots the real server on the version and compares its answers; deploy makes it the champion.
       On hold, the decision and its reasons are recorded.
    8. However that ends, conclude makes sure that a version which was not seen to serve does not stay, and tells the outcome.
    """
    given = dict(locals())
    preflight, data = _prepare(given)
    publish, gate = _train(given, preflight, data)
    with dsl.ExitHandler(conclude_after(given), name="rollout"):
        roll_out(given, publish, gate)
    return Outputs(version=publish.outputs["Output"], decision=gate.outputs["Output"])


@dsl.pipeline(
    name="penstock-retraining",
    display_name="Penstock: train again if something changed",
    description="The training pipeline for schedules: it trains only when data, settings or code are not those of the last run.",
)
@described
def retraining_pipeline(
    source: str = "digits",
    store: str = "s3://penstock",
    name: str = "digits",
    environment: str = "dev",
    architecture: str = "small_cnn",
    pretrained: bool = False,
    epochs: str = "auto",
    device: str = "auto",
    gpus: str = "0",
    strategy: str = "quality",
    actor: str = "",
    reason: str = "",
    target: str = "local",
    namespace: str = "",
    ingest: dict = {},  # noqa: B006 - kfp reads the default, nothing changes it
    training: dict = {},  # noqa: B006
    policy: dict = {},  # noqa: B006
    serving: dict = {},  # noqa: B006
    resources: dict = {},  # noqa: B006
) -> Outcome:
    """Train again, if the data, the settings or the code have changed since the last run of this environment that was judged.

    1. preflight refuses parameters that cannot work, and looks up which dataset the last run trained on, with the same settings and code.
    2. ingest reads and checks the dataset, as in the training pipeline; its digest says whether it is the same.
    3. If it is another, all steps of the training pipeline follow. If it is the same, none of them do, and the run succeeds.
    4. conclude tells the outcome: that nothing was trained, too.
    """
    given = dict(locals())
    preflight, data = _prepare(given, compare=True)
    changed = data.outputs["Output"] != preflight.outputs["trained_on"]
    conclude = conclude_after(given)
    with dsl.ExitHandler(conclude, name="rollout"), dsl.If(changed, name="changed"):
        publish, gate = _train(given, preflight, data, conditional=True)
        roll_out(given, publish, gate)
    return Outcome(outcome=conclude.outputs["Output"])
