"""The training pipeline: from a dataset's address to a model version that serves, or to a recorded reason why not."""

from typing import NamedTuple

from kfp import dsl

from components.deploy.component import deploy_model
from components.evaluate.component import evaluate_model
from components.gate.component import gate_model, record_hold
from components.ingest.component import ingest_dataset
from components.preflight.component import check_parameters
from components.publish.component import publish_model
from components.train.component import train_model
from components.validate_serving.component import validate_serving
from pipelines.steps import HOUR, MINUTE, configure, share_memory, use_gpus, use_service_token

Outputs = NamedTuple("Outputs", [("version", str), ("decision", str)])  # noqa: UP014 - kfp reads this form


@dsl.pipeline(
    name="penstock-training",
    display_name="Penstock: train, evaluate, gate, deploy",
    description="Trains an image classifier, evaluates it on a sealed test split and deploys it if it is good enough.",
)
def training_pipeline(
    source: str = "digits",
    store: str = "s3://penstock",
    name: str = "digits",
    architecture: str = "small_cnn",
    pretrained: bool = False,
    epochs: int = 6,
    batch_size: int = 128,
    learning_rate: float = 0.003,
    augmentation: str = "auto",
    image_size: str = "",
    channels: str = "",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    on_unreadable: str = "set_aside",
    max_duplicates: int = 0,
    extra_training_source: str = "",
    split_seed: int = 0,
    seed: int = 0,
    device: str = "auto",
    gpus: str = "0",
    gpu_resource: str = "nvidia.com/gpu",
    node_selector: dict = {},  # noqa: B006 - kfp reads the default, nothing changes it
    environment: str = "dev",
    strategy: str = "quality",
    policy: dict = {},  # noqa: B006
    actor: str = "",
    reason: str = "",
    target: str = "local",
    namespace: str = "",
    serving: dict = {},  # noqa: B006
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

    Args:
        source: digits, mnist, fashion_mnist, kmnist, cifar10, or the path or s3:// address of IDX files, an image folder, a tar or zip.
        store: Model store: s3://bucket/prefix, or a directory for local runs.
        name: The model's name; small letters, digits and hyphens.
        architecture: small_cnn, or a torchvision classifier such as resnet18.
        pretrained: Start from torchvision's pretrained weights, which must be in TORCH_HOME.
        epochs: Most passes over the training split; early stopping may end sooner.
        batch_size: Pictures per training step.
        learning_rate: The schedule's highest learning rate.
        augmentation: auto, none, light or strong.
        image_size: Resize to this: "28", or "28x32" for height x width. Empty keeps the pictures' own size.
        channels: "1" for grey, "3" for RGB. Empty keeps what the pictures have.
        validation_fraction: Part of the training pictures set aside for early stopping and calibration.
        test_fraction: Part sealed for evaluation, where the source has no test split of its own.
        on_unreadable: set_aside leaves damaged pictures out and names them; fail stops the run.
        max_duplicates: Most pictures that may stand in two splits; those are dropped from training.
        extra_training_source: A second source that is trained on and never tests, such as an export of the review queue. Empty for none.
        split_seed: Decides which pictures are sealed. Keep it: under another one the champion has trained on some of them.
        seed: Makes initial weights and the order of pictures repeatable.
        device: auto, cuda, mps or cpu.
        gpus: GPUs for the training step, as text; "0" for none.
        gpu_resource: The resource that the cluster gives GPUs by.
        node_selector: Labels of the nodes that may train, such as {"cloud.google.com/gke-accelerator": "nvidia-l4"}.
        environment: Whose policy decides: dev (lenient) or prod (strict).
        strategy: quality lets the policy decide; force deploys despite it, and needs actor and reason.
        policy: Single rules of the policy replaced for this run, such as {"minimum_accuracy": 0.95}.
        actor: Who asked for this run.
        reason: Why a deployment is forced.
        target: local appends to the deployment ledger, which `penstock serve` follows; kserve changes an InferenceService.
        namespace: Where the InferenceService is; the local target does not use it.
        serving: How the cluster serves, such as {"mode": "Knative", "canary_steps": [10, 50]}; docs/rollout.md lists all.
    """
    run = dsl.PIPELINE_JOB_ID_PLACEHOLDER

    preflight = check_parameters(
        source=source,
        store=store,
        name=name,
        architecture=architecture,
        pretrained=pretrained,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        augmentation=augmentation,
        image_size=image_size,
        channels=channels,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        on_unreadable=on_unreadable,
        max_duplicates=max_duplicates,
        split_seed=split_seed,
        seed=seed,
        device=device,
        gpus=gpus,
        environment=environment,
        strategy=strategy,
        policy=policy,
        actor=actor,
        reason=reason,
        target=target,
        serving=serving,
    )
    configure(preflight, "Preflight", timeout=10 * MINUTE)

    ingest = ingest_dataset(
        source=source,
        image_size=image_size,
        channels=channels,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        seed=split_seed,
        on_unreadable=on_unreadable,
        max_duplicates=max_duplicates,
        extra_training_source=extra_training_source,
    ).after(preflight)
    configure(ingest, "Ingest", timeout=6 * HOUR)
    ingest.set_memory_request("1Gi")

    train = train_model(
        dataset=ingest.outputs["dataset"],
        dataset_digest=ingest.outputs["Output"],
        name=name,
        architecture=architecture,
        pretrained=pretrained,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        augmentation=augmentation,
        device=device,
        gpus=gpus,
        seed=seed,
    )
    configure(train, "Train", timeout=24 * HOUR)
    use_gpus(train, gpus, gpu_resource, node_selector)
    share_memory(train, "2Gi")
    train.set_cpu_request("500m").set_memory_request("2Gi")  # the least: it takes what is free, and a small cluster serves beside it

    evaluate = evaluate_model(dataset=ingest.outputs["dataset"], model=train.outputs["model"], store=store, name=name)
    configure(evaluate, "Evaluate", timeout=2 * HOUR)

    publish = publish_model(model=train.outputs["model"], evaluation=evaluate.outputs["evaluation"], store=store, name=name, run=run)
    configure(publish, "Publish", timeout=1 * HOUR)

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
        configure(deploy, "Deploy", timeout=1 * HOUR, retries=0)
        use_service_token(deploy)
    with dsl.Else(name="hold"):
        hold = record_hold(
            version=publish.output,
            decision=gate.outputs["decision"],
            store=store,
            name=name,
            environment=environment,
            strategy=strategy,
            actor=actor,
            run=run,
        )
        configure(hold, "Hold", timeout=10 * MINUTE)

    return Outputs(version=publish.output, decision=gate.outputs["Output"])
