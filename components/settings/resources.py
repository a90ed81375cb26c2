"""What steps ask of the cluster: a training run by its parameters, every step by a file that is read when pipelines are compiled."""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from components.classifier.errors import UsageError, one_line
from components.settings.base import Memory, Settings, amount, refuse_unknown
from components.settings.training import TrainingSettings
from components.storage.files import user_path

POD, POD_NAMESPACE = "PENSTOCK_POD", "PENSTOCK_POD_NAMESPACE"
"""The environment variables in which a step that makes pods like its own finds the name and the namespace of its pod."""
_CPU = re.compile(r"[1-9]\d*m?|0?\.\d+|[1-9]\d*\.\d+")
_PREFIX = r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)"
_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"


def _cpu(value: str) -> str:
    if value and not _CPU.fullmatch(value):
        raise ValueError(f"cpu {value!r} is not an amount; use 2, or 500m for half a CPU")
    return value


def _resource(value: str) -> str:
    if not re.fullmatch(_PREFIX + _LABEL, value):
        raise ValueError(f"gpu_resource {value!r} is not the name of a resource; use one such as nvidia.com/gpu")
    return value


def _node_labels(value: dict[str, str]) -> dict[str, str]:
    for key, label in value.items():
        if not _is_label(key, label):
            raise ValueError(f'node_selector {key}={label!r} is not a label of a node; use one such as {{"disk": "ssd"}}')
    return value


def _pod_labels(value: dict[str, str]) -> dict[str, str]:
    for key, label in value.items():
        if not _is_label(key, label):
            raise ValueError(f'labels {key}={label!r} is not a label of a pod; use one such as {{"team": "vision"}}')
    return value


def _annotation_keys(value: dict[str, str]) -> dict[str, str]:
    for key in value:
        if not _is_label(key, ""):
            raise ValueError(f"annotations has the key {key!r}, which no pod takes; use one such as example.com/owner")
    return value


def _is_label(key: str, label: str) -> bool:
    return bool(re.fullmatch(f"{_PREFIX}?{_LABEL}", key) and re.fullmatch(f"({_LABEL})?", label))


Cpu = Annotated[str, AfterValidator(_cpu)]
NodeSelector = Annotated[dict[str, str], AfterValidator(_node_labels)]


class _Amounts(Settings):
    """CPU and memory of one step: what it is promised, and at most."""

    cpu: Cpu = Field("100m", min_length=1)
    """CPUs that the step is promised."""
    memory: Memory = Field("512Mi", min_length=1)
    """Memory that the step is promised."""
    cpu_limit: Cpu = ""
    """CPUs that the step may use. Empty: 1, for busy steps 2, and never less than cpu."""
    memory_limit: Memory = ""
    """Memory at which the step is ended. Empty: 2Gi, for busy steps 4Gi, and never less than memory."""

    @model_validator(mode="after")
    def _limits_are_not_below_requests(self) -> Self:
        for name, asked, limit in (("cpu", self.cpu, self.cpu_limit), ("memory", self.memory, self.memory_limit)):
            if limit and amount(limit) < amount(asked):
                raise ValueError(f"{name}_limit {limit} is below {name} {asked}; no cluster takes that")
        return self

    def limits(self, busy: bool) -> tuple[str, str]:
        """Return the limits of CPU and memory: what is set, or what steps usually have, and never less than the requests."""
        cpu, memory = ("2", "4Gi") if busy else ("1", "2Gi")
        return self.cpu_limit or max(cpu, self.cpu, key=amount), self.memory_limit or max(memory, self.memory, key=amount)


class StepPod(NamedTuple):
    """What shapes the pod of a step that trains."""

    cpu: str
    memory: str
    cpu_limit: str
    memory_limit: str
    gpus: str
    gpu_resource: str
    node_selector: dict[str, str]


class Resources(_Amounts):
    """What the training step asks of the cluster: CPU, memory, and the nodes that may train."""

    group: ClassVar[str] = "resources"
    cpu: Cpu = Field("500m", min_length=1)
    """CPUs that the training step is promised."""
    memory: Memory = Field("2Gi", min_length=1)
    """Memory that the training step is promised."""
    cpu_limit: Cpu = ""
    """CPUs that the training step may use. Empty: 2, or cpu where that is more."""
    memory_limit: Memory = ""
    """Memory at which the training step is ended. Empty: 4Gi, or memory where that is more."""
    gpu_resource: Annotated[str, AfterValidator(_resource)] = "nvidia.com/gpu"
    """The name by which the cluster gives GPUs."""
    node_selector: NodeSelector = Field(default_factory=dict)
    """Labels of the nodes that may do the work, such as {"cloud.google.com/gke-accelerator": "nvidia-l4"}."""
    nodes: int = Field(1, ge=1, le=64)
    """Nodes that train together, each with these amounts and the run's gpus. More than 1 needs Kubeflow Trainer and keep_dataset."""

    def of_step(self, gpus: str) -> StepPod:
        """Return what the training step's own pod asks for: with several nodes it only starts and follows the training on them."""
        if self.nodes > 1:
            own = _Amounts()
            return StepPod(own.cpu, own.memory, *own.limits(busy=False), "0", self.gpu_resource, {})
        return StepPod(self.cpu, self.memory, *self.limits(busy=True), gpus, self.gpu_resource, self.node_selector)


def check_batches(options: TrainingSettings, asked: Resources) -> None:
    """Raise UsageError where a process would get less than two pictures of a batch."""
    processes = asked.nodes * options.processes
    if options.batch_size < 2 * processes:
        raise UsageError(
            f"batch_size={options.batch_size} is too small for nodes={asked.nodes} with {options.processes} processes each: "
            f"each process needs two pictures of every batch; set batch_size={2 * processes} or more"
        )


class Toleration(BaseModel):
    """A taint of nodes that a step's pod does not mind; the words are Kubernetes'."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class StepResources(_Amounts):
    """What one step of a pipeline asks of the cluster, fixed when the pipeline is compiled."""

    group: ClassVar[str] = "resources of a step"
    node_selector: NodeSelector = Field(default_factory=dict)
    """Labels of the nodes that may do the work."""
    tolerations: list[Toleration] = Field(default_factory=list)
    """Taints of nodes that the pod tolerates: key, operator, value, effect."""
    labels: Annotated[dict[str, str], AfterValidator(_pod_labels)] = Field(default_factory=dict)
    """Labels of the pod."""
    annotations: Annotated[dict[str, str], AfterValidator(_annotation_keys)] = Field(default_factory=dict)
    """Annotations of the pod."""


STEPS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "ingest-dataset": {"memory": "1Gi"},
        "train-model": {},
        "make-variant": {"cpu": "500m", "memory": "2Gi"},
        "train-trial": {},
        "evaluate-model": {},
        "validate-serving": {},
        "score-images": {"cpu": "500m", "memory": "1Gi"},
    }
)
"""Busy steps, and what they ask for where that is not what all steps ask for; for those that train that is up to each run."""

ALL = "all"
"""The key of a file of resources for what every step gets; a step's own setting wins, and labels and annotations add up."""
_TRAINING = ("cpu", "memory", "cpu_limit", "memory_limit", "node_selector")
_OF_THE_RUN = {"train-model": _TRAINING, "train-trial": _TRAINING, "score-images": ("node_selector",)}


def read_steps(path: str) -> dict[str, dict[str, Any]]:
    """Read a file of resources: YAML, what each step gets by its name, and `all`; an empty path is an empty file.

    Raises UsageError for a file that cannot be read, or holds other than mappings.
    """
    if not path:
        return {}
    try:
        raw = yaml.safe_load(user_path(path).read_text("utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"PENSTOCK_RESOURCES={path} cannot be read as YAML: {one_line(error, None)}") from error
    if not isinstance(raw, dict) or not all(isinstance(it, dict) for it in raw.values()):
        raise UsageError(f"PENSTOCK_RESOURCES={path} must hold a mapping for each step, such as score-images: {{memory: 2Gi}}")
    return raw


def step_name(task: str) -> str:
    """Return the name of a step by that of its task or executor: kfp numbers those of a step that a pipeline has several times."""
    return re.sub(r"-\d+$", "", task.removeprefix("exec-"))


def check_steps(given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise UsageError when a file of resources names a step that no pipeline has."""
    refuse_unknown("PENSTOCK_RESOURCES", given, [ALL, *sorted(known)])


def step_resources(step: str, given: Mapping[str, Mapping[str, Any]]) -> StepResources:
    """Return what a step asks for, limits included: its usual amounts, replaced by those for `all`, and these by its own.

    Raises UsageError for unknown names, amounts out of bounds, and for settings that are up to each run.
    """
    up_to_the_run = _OF_THE_RUN.get(step, ())
    own = given.get(step, {})
    if named := [name for name in up_to_the_run if name in own]:
        raise UsageError(f"PENSTOCK_RESOURCES sets {named[0]} of {step}, which each run chooses; set the run's parameter {named[0]}")
    everywhere = {name: value for name, value in given.get(ALL, {}).items() if name not in up_to_the_run}
    both: dict[str, Any] = {
        name: {**everywhere[name], **own[name]} for name in ("labels", "annotations") if name in everywhere and name in own
    }
    read = StepResources.read({**STEPS.get(step, {}), **everywhere, **own, **both})
    cpu, memory = read.limits(busy=step in STEPS)
    return read.model_copy(update={"cpu_limit": cpu, "memory_limit": memory})
