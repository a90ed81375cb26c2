"""The schemas of KServe, Kubeflow Trainer, KubeRay, Argo Events and Katib, made strict: what they do not name is an error.

The API server would drop it. Katib's CustomResourceDefinition takes anything, so its API's own models stand for a schema.
"""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
from kubeflow_katib_api.models import IoK8sApiCoreV1PodTemplateSpec, V1beta1Experiment
from pydantic import ValidationError

_CRDS = {
    "InferenceService": "inferenceservices",
    "ServingRuntime": "servingruntimes",
    "InferenceGraph": "inferencegraphs",
    "LocalModelCache": "localmodelcaches",
    "LocalModelNodeGroup": "localmodelnodegroups",
    "TrainJob": "trainjobs",
    "TrainingRuntime": "trainingruntimes",
    "RayJob": "rayjobs",
}
_ARGO = ("EventSource", "Sensor")


def problems(thing: dict[str, Any]) -> list[str]:
    """What the schema of its kind says against an object; nothing for kinds of Kubernetes itself."""
    if thing["kind"] == "Experiment":
        return _experiment_problems(thing)
    if thing["kind"] not in {*_CRDS, *_ARGO}:
        return []
    return [f"{'/'.join(map(str, error.instance_path))}: {error.message}" for error in _validator(thing["kind"]).iter_errors(thing)]


def _experiment_problems(thing: dict[str, Any]) -> list[str]:
    """What Katib's models, and for the trial's pod those of Kubernetes, refuse or do not know."""
    try:
        known = V1beta1Experiment.from_dict(thing).to_dict()
        pod = thing["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]
        known_pod = IoK8sApiCoreV1PodTemplateSpec.from_dict(pod).to_dict()
    except ValidationError as error:
        return [str(error)]
    return [*_dropped(thing, known), *_dropped(pod, known_pod)]


def _dropped(given: Any, known: Any, path: str = "") -> list[str]:
    """Where a model has lost what it was given."""
    if isinstance(given, dict) and isinstance(known, dict):
        return [found for key, value in given.items() for found in _dropped(value, known.get(key), f"{path}/{key}")]
    if isinstance(given, list) and isinstance(known, list) and len(given) == len(known):
        return [found for index, pair in enumerate(zip(given, known, strict=True)) for found in _dropped(*pair, f"{path}/{index}")]
    return [] if given == known else [f"{path}: not known, or read as {known!r}"]


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
