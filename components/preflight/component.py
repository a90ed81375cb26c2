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
    compare: bool = False,
) -> NamedTuple(  # type: ignore[valid-type]  # kfp reads this form
    "Outputs",
    [
        ("Output", str),
        ("cpu", str),
        ("memory", str),
        ("cpu_limit", str),
        ("memory_limit", str),
        ("gpus", str),
        ("gpu_resource", str),
        ("node_selector", dict),
        ("trained_on", str),
    ],
):
    """Refuse a run whose parameters cannot work, in seconds instead of after the training; returns "passed", and what training asks for.

    The parameters are those of the training pipeline. What shapes a pod must be a value of its own, so that it is taken out
    of `resources` here: Kubeflow cannot look into a mapping. `trained_on` is the digest of the dataset that needs no training, or none.

    Args:
        compare: Look up what the last run trained on; else trained_on is none, and every dataset is trained on.
    """
    given = dict(locals())
    from components.preflight.checks import check_training, tell
    from components.preflight.unchanged import last_training
    from components.settings.resources import Resources

    tell(check_training(given), given)
    asked = Resources.read(resources)
    before, found = last_training(given) if compare else ("", "")
    if found:
        print(found)
    return ("passed", *asked.of_step(gpus), before or "none")


@component
def choose_parents(
    versions: str,
    kind: str,
    store: str,
    name: str,
    environment: str,
    strategy: str,
    actor: str,
    reason: str,
    target: str,
    namespace: str,
    variant: dict,
    policy: dict,
    serving: dict,
) -> NamedTuple("Outputs", [("versions", str), ("source", str)]):  # type: ignore[valid-type]  # kfp reads this form
    """Refuse a variant that cannot be made, in seconds; returns the parents' full names, and the address of their kept dataset.

    The parameters are those of the variant pipeline.
    """
    given = dict(locals())
    from components.preflight.checks import check_variant, parents_of, tell

    tell(check_variant(given), given)
    chosen = parents_of(given)
    return ",".join(chosen.versions), chosen.source


@component
def check_search(
    source: str,
    store: str,
    name: str,
    environment: str,
    architecture: str,
    pretrained: bool,
    device: str,
    gpus: str,
    strategy: str,
    actor: str,
    reason: str,
    target: str,
    namespace: str,
    ingest: dict,
    training: dict,
    search: dict,
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
    """Refuse a search in which a trial, or a later step, cannot work; returns "passed", and what each training asks for.

    The parameters are those of the search pipeline.
    """
    given = dict(locals())
    from components.preflight.checks import check_search, tell
    from components.settings.resources import Resources

    tell(check_search(given), given)
    asked = Resources.read(resources)
    return ("passed", asked.cpu, asked.memory, *asked.limits(busy=True), asked.gpu_resource, asked.node_selector)
