"""What each parameter of a pipeline is: its text for forms, help and docs, taken from the settings that read it."""

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from components.bundle.environment import environment_names
from components.bundle.policy import Policy
from components.settings.base import bounds
from components.settings.ingest import NAMED_SOURCES, IngestSettings
from components.settings.resources import Resources
from components.settings.scoring import ScoringSettings
from components.settings.search import SearchSettings
from components.settings.serving import KServeSettings
from components.settings.training import TrainingSettings
from components.settings.variant import VariantSettings

GROUPS: dict[str, type[BaseModel]] = {
    "ingest": IngestSettings,
    "training": TrainingSettings,
    "variant": VariantSettings,
    "search": SearchSettings,
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
    "environment": "Whose policy holds, and who may deploy how: dev (lenient), staging, prod (strict), or the path of an environment file.",
    "shards": "How many steps share the work; 0 is one per 50,000 pictures, 16 at most.",
    "strategy": "quality lets the policy decide; force deploys despite it, and needs actor and reason.",
    "actor": "Who asks for this run, or approves; recorded.",
    "reason": "Why a version is approved, or deployed by hand or despite the policy; recorded.",
    "target": "local appends to the deployment ledger, which `penstock serve` follows; kserve changes an InferenceService.",
    "namespace": "Where the InferenceService is, for target kserve. Empty: default (on this machine PENSTOCK_KSERVE_NAMESPACE first).",
    "ingest": "How the source becomes a dataset",
    "training": "How the network is trained, beside what has a field of its own",
    "variant": "How a variant is made, beside what has a field of its own",
    "search": "Which settings of training are tried",
    "scoring": "How pictures are scored",
    "policy": "Single rules of the environment's policy replaced for this run; null turns one off",
    "serving": "How the cluster serves, for target kserve",
    "resources": "What the training step asks of the cluster",
}
"""Parameters that belong to no group of settings, and the groups themselves."""


_CHOICES = {
    "source": NAMED_SOURCES,
    "environment": environment_names(),
    "strategy": ("quality", "force"),
    "target": ("local", "kserve"),
    "input": ("golden",),
    "version": ("champion", "previous"),
}
"""Values that a shell completes, of parameters that a model does not bound."""


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
    return TEXTS[name] if name in TEXTS else meaning_of(field_of(name, parameters))


def field_of(name: str, parameters: Iterable[str]) -> FieldInfo:
    """The setting that a parameter of its own is: of one of the pipeline's groups, or else of any.

    Raises KeyError when no group has it.
    """
    groups = [group for group in GROUPS if group in parameters] + list(GROUPS)
    for group in groups:
        if name in GROUPS[group].model_fields:
            return GROUPS[group].model_fields[name]
    raise KeyError(f"nothing describes the parameter {name!r}; add it to a group of settings, or to TEXTS")


def settings(group: str, parameters: Iterable[str]) -> Iterator[tuple[str, FieldInfo]]:
    """The settings of a group that a run sets in its mapping: all but secrets, and those that are parameters of their own."""
    own = set(parameters)
    for name, field in GROUPS[group].model_fields.items():
        if name not in own and field.annotation is not SecretStr:
            yield name, field


def meaning_of(field: FieldInfo) -> str:
    """Return a setting's description with its bounds."""
    limits = bounds(field)
    return f"{field.description}{f' {limits[0].upper()}{limits[1:]}.' if limits else ''}"


def values_of(defaults: Mapping[str, Any]) -> dict[str, list[str]]:
    """All names that a run sets, of parameters and of settings in groups, each with its values where there are only a few."""
    known: dict[str, list[str]] = {}
    for name in defaults:
        if name in GROUPS:
            known |= {leaf: _choices(field.annotation) for leaf, field in settings(name, defaults)}
        elif name in _CHOICES:
            known[name] = list(_CHOICES[name])
        else:
            known[name] = [] if name in TEXTS else _choices(field_of(name, defaults).annotation)
    return known


def _choices(annotation: Any) -> list[str]:
    if annotation is bool:
        return ["true", "false"]
    return [str(value) for value in get_args(annotation)] if get_origin(annotation) is Literal else []


@dataclass(frozen=True)
class Row:
    """One line of a table of parameters: the group ("" for a parameter of its own), the name, the default and the meaning."""

    group: str
    name: str
    default: str
    meaning: str


def rows(defaults: Mapping[str, Any]) -> Iterator[Row]:
    """List all that a pipeline can be given, from the defaults of its parameters: parameters of their own first, then each group's."""
    for name, text in descriptions(defaults).items():
        if name not in GROUPS:
            yield Row("", name, _shown(defaults[name]), text)
    for group in GROUPS:
        if group in defaults:
            for name, field in settings(group, defaults):
                yield Row(group, name, _shown(field.get_default(call_default_factory=True)), meaning_of(field))


def _shown(default: Any) -> str:
    return "" if default is None or default == "" else str(default) if isinstance(default, str) else json.dumps(default)
