"""What Kubeflow sees of preflight."""

from components.image import component


@component
def check_parameters(parameters: dict) -> str:
    """Refuse a run whose parameters cannot work, in seconds instead of after the training."""
    from components.preflight.checks import check_training

    lines = check_training(parameters)
    print("\n".join(lines))
    return "passed"
