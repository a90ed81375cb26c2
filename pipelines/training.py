"""The training pipeline: from a dataset's address to a model version that serves, or to a recorded reason why not."""

from typing import NamedTuple

from kfp import dsl

from components.deploy.component import conclude_run, deploy_model
from components.evaluate.component import evaluate_model
from components.gate.component import gate_model, record_hold
from components.ingest.component import ingest_dataset
from components.preflight.component import check_parameters
from components.publish.component import publish_model
from components.train.component import train_model
from components.validate_serving.component import validate_serving
from pipelines.descriptions import described
from pipelines.steps import HOUR, MINUTE, configure, configure_rollout, use_gpus, use_signing_key, use_webhook

Outputs = NamedTuple("Outputs", [("version", str), ("decision", str)])  # noqa: UP014 - kfp reads this form


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
    run = dsl.PIPELINE_JOB_ID_PLACEHOLDER

    preflight = check_parameters(**given)
    configure(preflight, "Preflight", timeout=10 * MINUTE)

    data = ingest_dataset(source=source, ingest=ingest, store=store).after(preflight)
    configure(data, "Ingest", timeout=6 * HOUR)

    train = train_model(
        dataset=data.outputs["dataset"],
        dataset_digest=data.outputs["Output"],
        name=name,
        architecture=architecture,
        pretrained=pretrained,
        epochs=epochs,
        device=device,
        gpus=gpus,
        store=store,
        training=training,
    )
    configure(train, "Train", timeout=24 * HOUR)
    use_gpus(train, gpus, preflight.outputs["gpu_resource"], preflight.outputs["node_selector"])
    train.set_cpu_request(preflight.outputs["cpu"]).set_memory_request(preflight.outputs["memory"])
    train.set_cpu_limit(preflight.outputs["cpu_limit"]).set_memory_limit(preflight.outputs["memory_limit"])

    evaluate = evaluate_model(dataset=data.outputs["dataset"], model=train.outputs["model"], store=store, name=name)
    configure(evaluate, "Evaluate", timeout=2 * HOUR)

    publish = publish_model(model=train.outputs["model"], evaluation=evaluate.outputs["evaluation"], store=store, name=name, run=run)
    configure(publish, "Publish", timeout=1 * HOUR)
    use_signing_key(publish)

    gate = gate_model(
        evaluation=evaluate.outputs["evaluation"],
        version=publish.output,
        environment=environment,
        strategy=strategy,
        actor=actor,
        reason=reason,
        store=store,
        name=name,
        policy=policy,
    )
    configure(gate, "Gate", timeout=10 * MINUTE)

    conclude = conclude_run(
        version="",
        store=store,
        name=name,
        environment=environment,
        actor=actor,
        target=target,
        namespace=namespace,
        run=run,
        serving=serving,
    )
    use_webhook(configure_rollout(conclude, "Conclude"))

    with dsl.ExitHandler(conclude, name="rollout"):
        with dsl.If(gate.outputs["Output"] == "deploy", name="deploy"):
            validate = validate_serving(version=publish.output, store=store, name=name, environment=environment)
            configure(validate, "Validate serving", timeout=30 * MINUTE)
            deploy = deploy_model(
                version=validate.outputs["Output"],
                decision=gate.outputs["decision"],
                store=store,
                name=name,
                environment=environment,
                strategy=strategy,
                actor=actor,
                reason=reason,
                target=target,
                namespace=namespace,
                run=run,
                serving=serving,
            )
            configure_rollout(deploy, "Deploy", retries=0)
        with dsl.Else(name="hold"):
            hold = record_hold(
                version=publish.output,
                decision=gate.outputs["decision"],
                store=store,
                name=name,
                actor=actor,
                run=run,
            )
            configure(hold, "Hold", timeout=10 * MINUTE)
            use_signing_key(hold)

    return Outputs(version=publish.output, decision=gate.outputs["Output"])
