"""The train step as Kubeflow sees it."""

from kfp import dsl

from components.step_image import component


@component
def train_model(
    dataset: dsl.Input[dsl.Dataset],
    dataset_digest: str,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    name: str,
    architecture: str = "small_cnn",
    pretrained: bool = False,
    epochs: int = 6,
    batch_size: int = 128,
    learning_rate: float = 0.003,
    augmentation: str = "auto",
    device: str = "auto",
    gpus: str = "0",
    seed: int = 0,
) -> str:
    """Train, calibrate and export a model; returns the device that was used.

    Args:
        dataset: A dataset version, as ingest writes it.
        dataset_digest: What the dataset holds, for the model's metadata.
        model: model.onnx, model.safetensors, config.json and training.json.
        metrics: Validation accuracy and loss, epochs, seconds, parameters, device.
        name: The model's name in the registry.
        architecture: small_cnn, or any torchvision classifier such as resnet18.
        pretrained: Start from torchvision's ImageNet weights.
        epochs: Passes over the training pictures at most; small sets are passed over several times in each.
        batch_size: Pictures a step.
        learning_rate: The highest of the one-cycle schedule.
        augmentation: auto, none, light, affine or photo.
        device: auto, cpu, cuda, mps, or gpu for whichever accelerator is there.
        gpus: How many GPUs the step was given, 0 or 1.
        seed: Decides initial weights, order and augmentation.
    """
    import os

    from components.train.environment import prepare_environment

    prepare_environment()
    from components.settings.training import TrainingSettings
    from components.train.training import train

    options = TrainingSettings(
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
        checkpoints=os.environ.get("PENSTOCK_CHECKPOINTS", ""),
    )
    result = train(dataset.path, model.path, options)
    for key, value in result.as_metrics().items():
        metrics.log_metric(key, value)
    model.metadata.update({"framework": "onnx", "architecture": architecture, "device": result.device, "dataset_digest": dataset_digest})
    return result.device
