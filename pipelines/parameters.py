"""Run parameters from text: checked against the pipeline's own signature, so that a misspelt one is an error and not ignored."""

import difflib
import json
from collections.abc import Sequence
from typing import Any

import yaml

from components.classifier.errors import UsageError

_TYPES = {
    "STRING": "text",
    "NUMBER_INTEGER": "a whole number",
    "NUMBER_DOUBLE": "a number",
    "BOOLEAN": "true or false",
    "STRUCT": "a mapping",
    "LIST": "a list",
}


def parse_settings(pipeline: Any, settings: Sequence[str]) -> dict[str, Any]:
    """Read `key=value` texts as arguments of a pipeline.

    Values take the parameter's type; `policy.minimum_accuracy=0.9` sets one key of a mapping. Raises UsageError for an
    unknown key (with what is near), a value of another type, or a text without `=`.
    """
    kinds = parameter_types(pipeline)
    arguments: dict[str, Any] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        key, dot, inner = key.strip().partition(".")
        if not separator or not key:
            raise UsageError(f"--set takes key=value, got {setting!r}; for example --set epochs=5")
        if key not in kinds:
            raise UsageError(f"the pipeline has no parameter {key!r}{_near(key, kinds)}; it takes {', '.join(kinds)}")
        if dot and kinds[key] != "STRUCT":
            raise UsageError(f"parameter {key!r} is {_TYPES[kinds[key]]}, it has no part {inner!r}; use --set {key}=…")
        if dot:
            arguments.setdefault(key, {})[inner] = _plain(text)
        else:
            arguments[key] = _typed(key, kinds[key], text.strip())
    return arguments


def parameter_types(pipeline: Any) -> dict[str, str]:
    """Type names of a pipeline's parameters, in the order of its signature (KFP's ParameterType names)."""
    from kfp.pipeline_spec import pipeline_spec_pb2

    parameters = pipeline.pipeline_spec.root.input_definitions.parameters
    names = list(pipeline.component_spec.inputs or {})
    return {name: pipeline_spec_pb2.ParameterType.ParameterTypeEnum.Name(parameters[name].parameter_type) for name in names}


def _near(key: str, known: dict[str, str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _plain(text: str) -> Any:
    value = yaml.safe_load(text)
    if isinstance(value, str):  # YAML reads 1e-05 as text, everybody else as a number
        try:
            return float(value)
        except ValueError:
            return value
    return value


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
