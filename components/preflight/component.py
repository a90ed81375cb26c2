"""What Kubeflow sees of preflight."""

from components.step_image import component


@component
def check_parameters(
    source: str,
    store: str,
    name: str,
    architecture: str,
    pretrained: bool,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    augmentation: str,
    image_size: str,
    channels: str,
    validation_fraction: float,
    test_fraction: float,
    on_unreadable: str,
    max_duplicates: int,
    split_seed: int,
    seed: int,
    device: str,
    gpus: str,
    environment: str,
    strategy: str,
    policy: dict,
    actor: str,
    reason: str,
    target: str,
    serving: dict,
) -> str:
    """Refuse a run whose parameters cannot work, in seconds instead of after the training; returns "passed".

    The parameters are those of the training pipeline, one by one: inside a mapping KFP would turn their values into text.
    """
    given = dict(locals())
    from components.preflight.checks import check_training

    print(*check_training(given), sep="\n")
    return "passed"
