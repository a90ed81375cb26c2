"""Run parameters from text: checked against the pipeline's own signature and its groups of settings.

A setting of a group is found by its name alone: `learning_rate=0.01` is `training.learning_rate=0.01`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from components.classifier.errors import UsageError, near
from components.settings.base import Settings, refuse_unknown
from pipelines.descriptions import GROUPS, settings

_TYPES = {
    "STRING": "text",
    "NUMBER_INTEGER": "a whole number",
    "NUMBER_DOUBLE": "a number",
    "BOOLEAN": "true or false",
    "STRUCT": "a mapping",
    "LIST": "a list",
}


def parse_settings(pipeline: Any, given: Sequence[str]) -> dict[str, Any]:
    """Read `key=value` texts as arguments of a pipeline.

    Values take the parameter's type. A key is a parameter (`epochs`), a setting of a group (`training.learning_rate`, or
    `learning_rate` alone), or one key of a mapping (`policy.class_recall_floors.cat`). Raises UsageError for an unknown key
    (with what is near), for one that stands in several groups, a value of another type or that is not UTF-8, or a text without `=`.
    """
    kinds = parameter_types(pipeline)
    arguments: dict[str, Any] = {}
    for setting in given:
        key, separator, text = setting.partition("=")
        if not separator or not key.strip():
            raise UsageError(f"--set takes key=value, got {setting!r}; for example --set epochs=5")
        if not text.isascii():
            _require_utf8(key.strip(), text)
        path = _path(key.strip(), kinds)
        if len(path) == 1 and kinds[path[0]] == "STRUCT":
            arguments.setdefault(path[0], {}).update(_typed(path[0], "STRUCT", text.strip()))
        elif len(path) == 1:
            arguments[path[0]] = _typed(path[0], kinds[path[0]], text.strip())
        else:
            *outer, last = path
            inner = arguments
            for part in outer:
                inner = inner.setdefault(part, {})
                if not isinstance(inner, dict):
                    raise UsageError(f"--set {key.strip()}: {part} has a value already; give either the value or its keys")
            inner[last] = text.strip() if _is_text(path) else _plain(text)
    return arguments


def _require_utf8(key: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        raise UsageError(f"{key}={shown} holds bytes that are not UTF-8, which no pipeline takes; rename the file or folder") from error


def check_groups(arguments: Mapping[str, Any]) -> None:
    """Check settings where nothing but themselves is needed, before a run is sent.

    Raises UsageError and PolicyError, as the steps would.
    """
    for group, model in GROUPS.items():
        if group not in arguments:
            continue
        if issubclass(model, Settings):
            model.read(arguments[group])
        elif group == "serving":  # its values also come from the cluster's environment variables
            refuse_unknown(group, arguments[group], model.model_fields)
        else:
            model.read(arguments[group], "run parameter policy")  # type: ignore[attr-defined]


def _path(key: str, kinds: Mapping[str, str]) -> list[str]:
    """The place of a key in the arguments: a parameter's name, and where it is a mapping, what to set in it."""
    head, dot, inner = key.partition(".")
    if head not in kinds:
        head = f"{_group_of(head, kinds)}.{head}"
        return [*head.split("."), *([inner] if dot else [])]
    if not dot:
        return [head]
    if kinds[head] != "STRUCT":
        raise UsageError(f"parameter {head!r} is {_TYPES[kinds[head]]}, it has no part {inner!r}; use --set {head}=…")
    if head not in GROUPS:
        return [head, inner]
    leaf, _, rest = inner.partition(".")
    if leaf in kinds and leaf in GROUPS[head].model_fields:
        return [leaf, *([rest] if rest else [])]
    return [head, leaf, *([rest] if rest else [])]


def _group_of(leaf: str, kinds: Iterable[str]) -> str:
    known = {group: [name for name, _ in settings(group, kinds)] for group in GROUPS if group in kinds}
    groups = [group for group, leaves in known.items() if leaf in leaves]
    if len(groups) > 1:
        raise UsageError(f"{leaf!r} is a setting of several groups; say which: {' or '.join(f'{group}.{leaf}' for group in groups)}")
    if not groups:
        names = [*kinds, *(name for leaves in known.values() for name in leaves)]
        raise UsageError(f"the pipeline has no parameter {leaf!r}{near(leaf, names)}; it takes {', '.join(names)}")
    return groups[0]


def parameter_types(pipeline: Any) -> dict[str, str]:
    """Type names of a pipeline's parameters, in the order of its signature (KFP's ParameterType names)."""
    from kfp.pipeline_spec import pipeline_spec_pb2

    parameters = pipeline.pipeline_spec.root.input_definitions.parameters
    names = list(pipeline.component_spec.inputs or {})
    return {name: pipeline_spec_pb2.ParameterType.ParameterTypeEnum.Name(parameters[name].parameter_type) for name in names}


def parameter_defaults(pipeline: Any) -> dict[str, Any]:
    """Default values of a pipeline's parameters by name."""
    inputs = pipeline.component_spec.inputs or {}
    return {name: spec.default for name, spec in inputs.items() if spec.optional}


def _is_text(path: Sequence[str]) -> bool:
    fields = GROUPS[path[0]].model_fields if path[0] in GROUPS else {}
    return len(path) == 2 and path[1] in fields and fields[path[1]].annotation is str


def _plain(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{text!r} cannot be read as a value; write lists as [1, 2] and mappings as {{key: value}}") from error
    if isinstance(value, str):  # YAML reads 1e-05 as text, everybody else as a number
        try:
            return float(value)
        except ValueError:
            return value
    return value if text.strip() else ""  # not YAML's null, which Kubeflow's mappings do not hold


def _typed(key: str, kind: str, text: str) -> Any:
    try:
        if kind == "NUMBER_INTEGER":
            return int(text)
        if kind == "NUMBER_DOUBLE":
            return float(text)
        if kind == "BOOLEAN":
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        if kind in {"STRUCT", "LIST"}:
            return _container(text, dict if kind == "STRUCT" else list)
    except (ValueError, KeyError) as error:
        raise UsageError(f"parameter {key!r} takes {_TYPES[kind]}, got {text!r}") from error
    return text


def _container(text: str, kind: type) -> Any:
    value = json.loads(text)
    if not isinstance(value, kind):
        raise ValueError(text)  # noqa: TRY004 - like json's own, for the caller
    return value
