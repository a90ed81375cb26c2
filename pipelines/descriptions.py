"""What each parameter of a pipeline is: its text for forms, help and docs, taken from the settings that read it."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from components.bundle.policy import Policy
from components.settings.base import bounds
from components.settings.ingest import NAMED_SOURCES, IngestSettings
from components.settings.resources import Resources
from components.settings.scoring import ScoringSettings
from components.settings.serving import KServeSettings
from components.settings.training import TrainingSettings

GROUPS: dict[str, type[BaseModel]] = {
    "ingest": IngestSettings,
    "training": TrainingSettings,
    "scoring": ScoringSettings,
    "policy": Policy,
    "serving": KServeSettings,
    "resources": Resources,
}
"""The parameters that carry many settings as one mapping, and the models that read them."""

TEXTS = {
    "source": f"{', '.join(NAMED_SOURCES)}, or the path or s3:// address of IDX files, an image folder, a tar or a zip.",
    "input": "A folder of pictures, or of .npy, IDX, Parquet, tar and zip files, or one such file; local or s3://. "
    "golden: the version's own golden pictures.",
    "output": "Where the results go: a directory or s3://bucket/prefix. Empty: a folder below scores/ in the model store.",
    "store": "Model store: s3://bucket/prefix, or a directory for local runs.",
    "version": "A version's name, previous for the one before the champion, or champion to score with.",
    "environment": "Whose policy and thresholds hold: dev (lenient), prod (strict), or the path of an environment file.",
    "shards": "How many steps share the work; 0 is one per 50,000 pictures, 16 at most.",
    "strategy": "quality lets the policy decide; force deploys despite it, and needs actor and reason.",
    "actor": "Who asks for this run; recorded.",
    "reason": "Why a version is deployed by hand, or despite the policy; recorded.",
    "target": "local appends to the deployment ledger, which `penstock serve` follows; kserve changes an InferenceService.",
    "namespace": "Where the InferenceService is, for target kserve. Empty: PENSTOCK_KSERVE_NAMESPACE, or default.",
    "ingest": "How the source becomes a dataset",
    "training": "How the network is trained, beside what has a field of its own",
    "scoring": "How pictures are scored",
    "policy": "Single rules of the environment's policy replaced for this run; null turns one off",
    "serving": "How the cluster serves, for target kserve",
    "resources": "What the training step asks of the cluster",
}
"""Parameters that belong to no group of settings, and the groups themselves."""


def described(pipeline: Callable[..., Any]) -> Callable[..., Any]:
    """Complete a pipeline's docstring with the description of every parameter, which Kubeflow shows in its form."""
    lines = [f"    {name}: {text}" for name, text in descriptions(inspect.signature(pipeline).parameters).items()]
    pipeline.__doc__ = "\n".join([inspect.cleandoc(pipeline.__doc__ or ""), "", "Args:", *lines])
    return pipeline


def descriptions(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the description of each parameter, in order; raises KeyError for one that nothing describes."""
    return {name: _describe(name, parameters) for name in parameters}


def _describe(name: str, parameters: Mapping[str, Any]) -> str:
    if name in GROUPS:
        return f"{TEXTS[name]}: a mapping of {', '.join(leaf for leaf, _ in settings(name, parameters))}."
    if name in TEXTS:
        return TEXTS[name]
    models = [model for group, model in GROUPS.items() if group in parameters] + list(GROUPS.values())
    return next(str(model.model_fields[name].description) for model in models if name in model.model_fields)


def settings(group: str, parameters: Mapping[str, Any]) -> Iterator[tuple[str, FieldInfo]]:
    """The settings of a group that a run sets in its mapping: all but secrets, and those that are parameters of their own."""
    for name, field in GROUPS[group].model_fields.items():
        if name not in parameters and name != "token":
            yield name, field


def default_of(field: FieldInfo) -> Any:
    """Return a setting's default as a user would write it."""
    value = field.get_default(call_default_factory=True)
    return "" if value is None else list(value) if isinstance(value, tuple) else value


def meaning_of(field: FieldInfo) -> str:
    """Return a setting's description with its bounds."""
    limits = bounds(field)
    return f"{field.description}{f' A number {limits}.' if limits else ''}"
