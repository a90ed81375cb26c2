"""KServe's own schemas, made strict: what they do not name is an error, where the API server would drop it."""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

_CRDS = {"InferenceService": "inferenceservices", "ServingRuntime": "servingruntimes", "InferenceGraph": "inferencegraphs"}


def problems(thing: dict[str, Any]) -> list[str]:
    """What KServe's schema says against an object; nothing for kinds that are not KServe's."""
    if thing["kind"] not in _CRDS:
        return []
    return [f"{'/'.join(map(str, error.instance_path))}: {error.message}" for error in _validator(thing["kind"]).iter_errors(thing)]


@cache
def _validator(kind: str) -> Any:
    packed = (Path(__file__).parent / "crds" / f"{_CRDS[kind]}.json.gz").read_bytes()
    (version,) = json.loads(gzip.decompress(packed))["spec"]["versions"]
    return jsonschema_rs.Draft7Validator(_strict(version["schema"]["openAPIV3Schema"]))


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(it) for it in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    strict = {
        key: {name: _strict(it) for name, it in value.items()} if key == "properties" else _strict(value)
        for key, value in schema.items()
        if key not in {"format", "default", "description"}
    }
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict["additionalProperties"] = False
    return strict
