"""What Kubeflow sees of preflight."""

from typing import NamedTuple

from components.step_image import component


@component
def check_parameters(
    source: str,
    store: str,
    name: str,
    environment: str,
    architecture: str,
    pretrained: bool,
    epochs: str,
    device: str,
    gpus: str,
    strategy: str,
    actor: str,
    reason: str,
    target: str,
    namespace: str,
    ingest: dict,
    training: dict,
    policy: dict,
    serving: dict,
    resources: dict,
) -> NamedTuple(  # type: ignore[valid-type]  # kfp reads this form
    "Outputs",
    [
        ("Output", str),
        ("cpu", str),
        ("memory", str),
        ("cpu_limit", str),
        ("memory_limit", str),
        ("gpu_resource", str),
        ("node_selector", dict),
    ],
):
    """Refuse a run whose parameters cannot work, in seconds instead of after the training; returns "passed", and what training asks for.

    The parameters are those of the training pipeline. What shapes a pod must be a value of its own, so that it is taken out
    of `resources` here: Kubeflow cannot look into a mapping.
    """
    given = dict(locals())
    from components.doctor.service import check_service
    from components.preflight.checks import check_training
    from components.settings.resources import Resources

    print(*check_training(given), sep="\n")
    if said := check_service(given):
        print(said)
    asked = Resources.read(resources)
    return ("passed", asked.cpu, asked.memory, *asked.limits(busy=True), asked.gpu_resource, asked.node_selector)
