"""The train step, the trial of a search, and the step that makes a variant of published versions, as Kubeflow sees them."""

from kfp import dsl

from components.step_image import component


@component
def train_model(
    dataset: dsl.Input[dsl.Dataset],
    dataset_digest: str,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    curves: dsl.Output[dsl.HTML],
    name: str,
    architecture: str = "small_cnn",
    pretrained: bool = False,
    epochs: str = "auto",
    device: str = "auto",
    gpus: str = "0",
    store: str = "",
    training: dict = {},  # noqa: B006 - kfp reads the default, nothing changes it
    resources: dict = {},  # noqa: B006
    pod_gpus: str = "",
    pod_cpu: str = "",
    pod_memory: str = "",
    pod_cpu_limit: str = "",
    pod_memory_limit: str = "",
    gpu_resource: str = "",
    node_selector: dict = {},  # noqa: B006
) -> str:
    """Train, calibrate and export a model; returns the device that was used.

    The parameters from `name` to `gpus` are fields of settings.training.TrainingSettings; `training` holds its other fields.
    Those from `pod_gpus` on shape the pod: within a condition KFP sets pod resources only from the step's own inputs. With
    `resources.nodes` above 1 the work is done by other pods, a TrainJob of Kubeflow Trainer, which this one starts and follows.
    The store's folder `checkpoints` takes the checkpoints where no other folder is named.

    Args:
        dataset: A dataset version, as ingest writes it.
        dataset_digest: What the dataset holds, for the model's metadata.
        model: model.onnx, model.safetensors, config.json and training.json.
        curves: Loss, accuracy and learning rate over the epochs, one HTML file.
        metrics: Validation accuracy and loss, epochs, seconds, parameters, device.
    """
    from components.train import prepare_environment

    prepare_environment()
    from components.settings.resources import Resources
    from components.settings.training import TrainingSettings
    from components.train.training import train, train_on_nodes, write_curves

    own = {"name": name, "architecture": architecture, "pretrained": pretrained, "epochs": epochs, "device": device, "gpus": gpus}
    options = TrainingSettings.read(training, **own)
    asked = Resources.read(resources)
    if asked.nodes > 1:
        result = train_on_nodes(dataset.path, model.path, options, store, asked)
    else:
        result = train(dataset.path, model.path, options, store)
    write_curves(name, model.path, curves.path)
    for key, value in result.as_metrics().items():
        metrics.log_metric(key, value)
    model.metadata.update({"framework": "onnx", "architecture": architecture, "device": result.device, "dataset_digest": dataset_digest})
    return result.device


@component
def make_variant(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    versions: str,
    kind: str,
    store: str,
    name: str,
    variant: dict = {},  # noqa: B006 - kfp reads the default, nothing changes it
) -> str:
    """Make an int8 model, an ensemble or averaged weights of published versions; returns how it was made.

    Args:
        dataset: The dataset version that the parents were trained on; its test split is not opened.
        model: model.onnx, config.json, training.json, and for averaged weights model.safetensors.
        metrics: The temperature, and the sizes of the file and its parents'.
    """
    from components.train import prepare_environment

    prepare_environment()
    from components.registry import Registry
    from components.settings.variant import VariantSettings
    from components.storage import open_store
    from components.train.variants.making import make_variant as make

    options = VariantSettings.read(variant, kind=kind, versions=versions)
    made = make(dataset.path, model.path, Registry(open_store(store), name), options.selectors, options)
    for key, value in vars(made).items():
        metrics.log_metric(key, value)
    model.metadata.update({"framework": "onnx", "kind": kind, "parents": versions})
    return made.how


@component
def train_trial(
    dataset: dsl.Input[dsl.Dataset],
    trial: str,
    metrics: dsl.Output[dsl.Metrics],
    name: str,
    architecture: str,
    pretrained: bool,
    device: str,
    gpus: str,
    store: str,
    training: dict,
    pod_cpu: str,
    pod_memory: str,
    pod_cpu_limit: str,
    pod_memory_limit: str,
    gpu_resource: str,
    node_selector: dict,
) -> str:
    """Train one trial of a search until the epochs of its rung are done; returns what it reached, as JSON.

    What shapes the pod is an input because inside ParallelFor KFP sets pod resources only from the step's own inputs.

    Args:
        dataset: A dataset version, as ingest writes it.
        trial: The trial, as JSON: its settings, and until which epoch it trains.
        metrics: The trial's settings, its validation accuracy and loss, epochs and seconds.
    """
    from components.train import prepare_environment

    prepare_environment()
    from components.bundle.search import Trial, shown
    from components.settings.search import settings_of_trial
    from components.train import trial as trials

    own = {"name": name, "architecture": architecture, "pretrained": pretrained, "device": device, "gpus": gpus}
    asked = Trial.model_validate_json(trial)
    result = trials.train_trial(dataset.path, asked, settings_of_trial(training, own, asked.settings), store)
    for key, value in {"trial": result.trial, "rung": result.rung, **result.settings, **result.figures()}.items():
        metrics.log_metric(key, value if isinstance(value, int | float) else shown(value))
    print(f"note: {result}")
    return result.model_dump_json()
