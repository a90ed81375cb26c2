"""What a user chooses for one scoring run."""

import importlib.util
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from components.bundle.environment import Serving, Share, load_environment
from components.classifier.errors import UsageError
from components.settings.base import Memory, NameEncoding, Settings

GOLDEN_INPUT = "golden"
"""The input that every model version brings along: its own golden pictures, for a first try."""


class ScoringSettings(Settings):
    """How pictures are scored; refused with UsageError when that cannot work."""

    group: ClassVar[str] = "scoring"
    review_threshold: Share = Serving().review_threshold
    """Answers with less confidence than this are marked needs_review. Not set: what the environment says."""
    batch_size: int = Field(64, ge=1)
    """Pictures per call of the model: on CPUs more is slower, a GPU wants 256 or more."""
    probabilities: bool = False
    """Write the probability of every class, not only of the winner."""
    image_column: str = ""
    """Which column of Parquet files holds the pictures, where several may."""
    names: NameEncoding = ""
    """Encoding of file names in a zip or tar that do not say theirs, such as cp932 or gbk. Empty: only UTF-8 is taken."""
    layout: Literal["auto", "file", "dataset"] = "auto"
    """file writes predictions.parquet, dataset parts of about 128 MiB in predictions/, auto a dataset where one part is not enough."""
    partition_by: Literal["", "label", "needs_review"] = ""
    """Write the dataset in directories by the values of this column, such as predictions/label=cat/, as Hive and Spark do."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto, cpu or cuda."""
    workers: int = Field(0, ge=0)
    """CPUs that a shard uses, in processes of their own where it has many pictures; 0 takes all. Over the network: threads, 10 if 0."""
    engine: Literal["local", "ray"] = "local"
    """local scores on the step's machine, ray on the Ray cluster that RAY_ADDRESS names, or on the step's own; the bytes are the same."""
    ray_nodes: int = Field(0, ge=0, le=64)
    """On Kubeflow with engine=ray: pods that score, in a Ray cluster that KubeRay makes for each shard. 0 makes none."""
    ray_cpu: int = Field(2, ge=1)
    """CPUs of each of these pods."""
    ray_memory: Memory = Field("4Gi", min_length=1)
    """Memory of each of these pods."""
    ray_gpus: int = Field(0, ge=0)
    """GPUs of each of these pods."""

    @model_validator(mode="after")
    def _one_file_has_no_directories(self) -> "ScoringSettings":
        if self.partition_by and self.layout == "file":
            raise ValueError("partition_by writes a dataset; leave layout out, or set layout=dataset")
        return self

    @model_validator(mode="after")
    def _pods_are_for_ray(self) -> "ScoringSettings":
        if self.ray_nodes and self.engine != "ray":
            raise ValueError(f"ray_nodes={self.ray_nodes} needs the engine that uses them; set engine=ray")
        if self.ray_nodes * self.ray_cpu == 1:
            raise ValueError("one CPU is too little for Ray: decoding and answering take one each; set ray_cpu=2 or ray_nodes=2")
        if self.ray_nodes and self.device == "cuda" and not self.ray_gpus:
            raise ValueError("device=cuda needs GPUs in the pods that score; set ray_gpus=1")
        return self

    @classmethod
    def in_environment(cls, values: dict[str, Any], environment: str) -> "ScoringSettings":
        """Read the settings of a run; what the run does not set, and the environment does, is the environment's.

        Raises UsageError for unknown names and values out of bounds, PolicyError for an environment file that cannot be applied.
        """
        own = {"review_threshold": load_environment(environment).serving.review_threshold}
        return cls.read({**own, **values} if isinstance(values, dict) else values)


def check_pods(settings: ScoringSettings, store: str, input: str, output: str, gpus: str) -> None:
    """Raise UsageError for an address that the pods of a Ray cluster could not reach, and for GPUs that they would not get.

    An empty output is in the store. `gpus`: how many the scoring step's own pod gets.
    """
    if not settings.ray_nodes:
        return
    if gpus not in {"", "0"}:
        raise UsageError(f"gpus={gpus} would be held by the step that only follows the pods which score; set ray_gpus instead")
    for name, address in (("store", store), ("input", input), ("output", output)):
        if not address.startswith("s3://") and (name, address) not in {("input", GOLDEN_INPUT), ("output", "")}:
            raise UsageError(
                f"ray_nodes={settings.ray_nodes} scores in pods that cannot reach {name}={address}; set {name} to one such as s3://bucket/prefix"
            )


def check_shards(shards: int) -> None:
    """Raise UsageError for a number of shards that there cannot be."""
    if shards < 0:
        raise UsageError(f"shards must be 0 (as many as are useful) or more, got {shards}")


def check_engine(engine: str) -> None:
    """Raise UsageError where an engine is not installed on this machine."""
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        raise UsageError("engine=ray needs Ray Data, which is not installed: pip install 'penstock[ray]', in images make image EXTRAS=ray")
