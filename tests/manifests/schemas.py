"""The schemas of KServe, Kubeflow Trainer and Argo Events, made strict: what they do not name is an error.

The API server would drop it.
"""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

_CRDS = {
    "InferenceService": "inferenceservices",
    "ServingRuntime": "servingruntimes",
    "InferenceGraph": "inferencegraphs",
    "LocalModelCache": "localmodelcaches",
    "LocalModelNodeGroup": "localmodelnodegroups",
    "TrainJob": "trainjobs",
    "TrainingRuntime": "trainingruntimes",
}
_ARGO = ("EventSource", "Sensor")


def problems(thing: dict[str, Any]) -> list[str]:
    """What the schema of its kind says against an object; nothing for kinds that are not KServe's, Kubeflow Trainer's or Argo Events'."""
    if thing["kind"] not in {*_CRDS, *_ARGO}:
        return []
    return [f"{'/'.join(map(str, error.instance_path))}: {error.message}" for error in _validator(thing["kind"]).iter_errors(thing)]


@cache
def _validator(kind: str) -> Any:
    packed = (Path(__file__).parent / (f"crds/{_CRDS[kind]}.json.gz" if kind in _CRDS else "argo-events.json.gz")).read_bytes()
    known = json.loads(gzip.decompress(packed))
    if kind in _ARGO:
        definitions = {name: _strict(it) for name, it in known["definitions"].items()}
        return jsonschema_rs.Draft7Validator({"$ref": f"#/definitions/io.argoproj.events.v1alpha1.{kind}", "definitions": definitions})
    (version,) = known["spec"]["versions"]
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
