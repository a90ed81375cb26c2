"""What the training step asks of the cluster."""

import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from components.settings.base import Settings

_CPU = re.compile(r"[1-9]\d*m?|0?\.\d+|[1-9]\d*\.\d+")
_MEMORY = re.compile(r"[1-9]\d*([EPTGMK]i?)?")
_PREFIX = r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)"
_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"


def _cpu(value: str) -> str:
    if not _CPU.fullmatch(value):
        raise ValueError(f"cpu {value!r} is not an amount; use 2, or 500m for half a CPU")
    return value


def _memory(value: str) -> str:
    if not _MEMORY.fullmatch(value):
        raise ValueError(f"memory {value!r} is not an amount; use 2Gi, or 512Mi")
    return value


def _resource(value: str) -> str:
    if not re.fullmatch(_PREFIX + _LABEL, value):
        raise ValueError(f"gpu_resource {value!r} is not the name of a resource; use one such as nvidia.com/gpu")
    return value


def _labels(value: dict[str, str]) -> dict[str, str]:
    for key, label in value.items():
        if not re.fullmatch(f"{_PREFIX}?{_LABEL}", key) or not re.fullmatch(f"({_LABEL})?", label):
            raise ValueError(f'node_selector {key}={label!r} is not a label of a node; use one such as {{"disk": "ssd"}}')
    return value


class Resources(Settings):
    """What the training step asks of the cluster: CPU, memory, and the nodes that may train."""

    group: ClassVar[str] = "resources"
    cpu: Annotated[str, AfterValidator(_cpu)] = "500m"
    """CPUs that the training step is promised; it takes what is free above that."""
    memory: Annotated[str, AfterValidator(_memory)] = "2Gi"
    """Memory that the training step is promised."""
    gpu_resource: Annotated[str, AfterValidator(_resource)] = "nvidia.com/gpu"
    """The name by which the cluster gives GPUs."""
    node_selector: Annotated[dict[str, str], AfterValidator(_labels)] = Field(default_factory=dict)
    """Labels of the nodes that may do the work, such as {"cloud.google.com/gke-accelerator": "nvidia-l4"}."""
