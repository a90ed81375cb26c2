"""The OpenAPI description of the model that serves: paths, shapes, and example requests that work unchanged."""

import base64
from importlib.metadata import version as installed
from typing import Any

from components.bundle.files import INPUT_NAME
from components.classifier.images import Pixels, encode_png
from components.predictor.loaded_model import LoadedModel
from components.predictor.protocol import v2
from components.predictor.protocol.request import max_images
from components.predictor.protocol.v2 import DATATYPES
from components.predictor.settings import PredictorSettings

Json = dict[str, Any]

_MAX_EXACT_VALUES = 256
"""Arrays of more values are described without their exact size, which tools that generate requests cannot handle."""


def document(loaded: LoadedModel, settings: PredictorSettings) -> Json:
    """OpenAPI 3.1 of the predictor."""
    name, levels, shape = loaded.name, loaded.spec.levels, "x".join(map(str, loaded.spec.shape))
    deep = f" In files of 16 bits per sample {2**levels - 1} is the brightest value." if levels != 16 else ""
    description = (
        f"Classifies pictures as one of {len(loaded.classes)} classes by model `{name}`, version `{loaded.version}`, over KServe's V1 "
        f"protocol and the Open Inference Protocol (V2). Pictures are {shape} (height x width x channels) as arrays of whole "
        f"numbers from 0 to 255, or encoded (PNG, JPEG, …) of any size.{deep} "
        f"At most {max_images(loaded.spec, settings.max_images)} pictures and {settings.max_body_bytes} bytes per request. "
        'Every failure is `{"error": "one line"}`; 503 carries Retry-After.'
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Penstock predictor: {name}", "version": installed("penstock"), "description": description},
        "servers": [{"url": "."}],
        "tags": [{"name": "inference"}, {"name": "health"}, {"name": "metadata"}],
        "paths": {**_inference(loaded), **_health(name), **_metadata(name)},
        "components": {"schemas": _schemas(loaded, settings), "responses": _responses()},
    }


def _inference(loaded: LoadedModel) -> Json:
    name = loaded.name
    v1_examples, v2_examples = _v1_examples(loaded), _v2_examples(loaded)
    infer = _operation("inference", "Classify pictures (V2)", "InferResponse", "InferRequest", v2_examples, (400, 404, 413, 415, 503))
    infer["requestBody"]["content"]["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    about = "Bytes of the JSON part, where binary tensors follow it"
    length = {"name": "Inference-Header-Content-Length", "in": "header", "schema": {"type": "integer", "minimum": 1}, "description": about}
    infer["parameters"] = [_request_id(), length]
    infer["responses"]["200"]["content"]["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    predict = _operation("inference", "Classify pictures (V1)", "PredictResponse", "PredictRequest", v1_examples, (400, 413, 415, 503))
    predict["parameters"] = [_request_id()]
    versioned = {**infer, "operationId": "infer_version", "parameters": [_version(loaded), *infer["parameters"]]}
    return {
        f"/v1/models/{name}:predict": {"post": {**predict, "operationId": "predict"}},
        f"/v2/models/{name}/infer": {"post": {**infer, "operationId": "infer"}},
        f"/v2/models/{name}/versions/{{version}}/infer": {"post": versioned},
    }


def _health(name: str) -> Json:
    return {
        "/": {"get": _get("health", "Whether the process is alive", "Object")},
        "/v2/health/live": {"get": _get("health", "Whether the process is alive (V2)", "Object")},
        "/v2/health/ready": {"get": _get("health", "Whether the server is ready", "Object", (503,))},
        f"/v1/models/{name}": {"get": _get("health", "Whether the model is ready (V1)", "Object", (503,))},
        f"/v2/models/{name}/ready": {"get": _get("health", "Whether the model is ready (V2)", "Object", (503,))},
    }


def _metadata(name: str) -> Json:
    text = {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {
        "/v1/models": {"get": _get("metadata", "Names of the models (V1)", "Object")},
        "/v2": {"get": _get("metadata", "Name and version of the server", "Object")},
        "/v2/models": {"get": _get("metadata", "Names of the models (V2)", "Object")},
        f"/v2/models/{name}": {"get": _get("metadata", "The model's version, tensors and classes", "ModelMetadata", (503,))},
        "/metrics": {"get": {"tags": ["metadata"], "summary": "Metrics", "responses": {"200": text}}},
    }


def _get(tag: str, summary: str, schema: str, failures: tuple[int, ...] = ()) -> Json:
    return {"tags": [tag], "summary": summary, "responses": _responses_for(schema, failures)}


def _operation(tag: str, summary: str, response: str, request: str, examples: Json, failures: tuple[int, ...]) -> Json:
    body = {"required": True, "content": {"application/json": {"schema": _reference(request), "examples": examples}}}
    return {"tags": [tag], "summary": summary, "requestBody": body, "responses": _responses_for(response, failures)}


def _responses_for(schema: str, failures: tuple[int, ...]) -> Json:
    good = {"description": "The response", "content": {"application/json": {"schema": _reference(schema)}}}
    return {"200": good} | {str(code): {"$ref": f"#/components/responses/E{code}"} for code in failures}


def _reference(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}


def _responses() -> Json:
    texts = {
        400: "The request cannot be read, or does not fit the model",
        404: "No such model or version",
        413: "Too many bytes or pictures",
        415: "The body is compressed",
        503: "Still loading, shutting down, or overloaded; try again after Retry-After seconds",
    }
    content = {"application/json": {"schema": _reference("Error")}}
    retry = {"Retry-After": {"schema": {"type": "integer"}}}
    return {
        f"E{code}": {"description": text, "content": content} | ({"headers": retry} if code == 503 else {}) for code, text in texts.items()
    }


def _request_id() -> Json:
    text = "Returned in the response and written to the log, if it is printable and at most 128 characters long"
    return {"name": "x-request-id", "in": "header", "schema": {"type": "string"}, "description": text}


def _version(loaded: LoadedModel) -> Json:
    return {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}, "example": loaded.version}


def _schemas(loaded: LoadedModel, settings: PredictorSettings) -> Json:
    options = {"return_probabilities": {"type": "boolean"}, "threshold": {"type": "number", "minimum": 0, "maximum": 1}}
    probabilities = {"type": "object", "additionalProperties": {"type": "number"}}
    encoded = {"type": "object", "required": ["b64"], "properties": {"b64": {"type": "string", "contentEncoding": "base64"}}}
    wrapped = {"type": "object", "required": ["image_bytes"], "properties": {"image_bytes": encoded}}
    prediction = {
        "type": "object",
        "required": ["label", "confidence", "needs_review"],
        "properties": {
            "label": {"type": "string", "enum": loaded.classes},
            "confidence": {"type": "number"},
            "needs_review": {"type": "boolean"},
            "familiarity": {"type": "number", "minimum": 0, "maximum": 1},
            "unfamiliar": {"type": "boolean"},
            "probabilities": probabilities,
        },
    }
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 1}},
            "datatype": {"enum": list(DATATYPES)},
            "data": {"type": "array"},
            "parameters": {"type": "object", "properties": {"binary_data_size": {"type": "integer", "minimum": 0}}},
        },
    }
    output = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"enum": [output["name"] for output in v2.output_metadata(loaded)]},
            "parameters": {"type": "object", "properties": {"binary_data": {"type": "boolean"}}},
        },
    }
    return {
        "Object": {"type": "object"},
        "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
        "PredictRequest": {
            "type": "object",
            "required": ["instances"],
            "properties": {
                "instances": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": max_images(loaded.spec, settings.max_images),
                    "items": {"anyOf": [_array(loaded), encoded, wrapped]},
                },
                **options,
                "parameters": {"type": "object", "properties": options},
            },
        },
        "PredictResponse": {
            "type": "object",
            "required": ["predictions", "model_name", "model_version"],
            "properties": {
                "predictions": {"type": "array", "items": prediction},
                "model_name": {"type": "string"},
                "model_version": {"type": "string"},
            },
        },
        "InferRequest": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": {"type": "string"},
                "parameters": {"type": "object", "properties": {**options, "binary_data_output": {"type": "boolean"}}},
                "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": tensor},
                "outputs": {"type": "array", "items": output},
            },
        },
        "InferResponse": {
            "type": "object",
            "required": ["model_name", "model_version", "id", "outputs"],
            "properties": {
                "model_name": {"type": "string"},
                "model_version": {"type": "string"},
                "id": {"type": "string"},
                "outputs": {"type": "array", "items": {"type": "object", "required": ["name", "shape", "datatype"]}},
            },
        },
        "ModelMetadata": {
            "type": "object",
            "required": ["name", "versions", "platform", "inputs", "outputs", "classes"],
            "properties": {
                "name": {"type": "string"},
                "versions": {"type": "array"},
                "classes": {"type": "array", "items": {"type": "string"}},
            },
        },
    }


def _array(loaded: LoadedModel) -> Json:
    """A picture as nested arrays."""
    spec = loaded.spec
    schema: Json = {"type": "integer", "minimum": 0, "maximum": 255}
    exact = spec.height * spec.width * spec.channels <= _MAX_EXACT_VALUES
    for size in reversed(spec.shape):
        schema = {"type": "array", "items": schema} | ({"minItems": size, "maxItems": size} if exact else {"minItems": 1})
    return schema


def _v1_examples(loaded: LoadedModel) -> Json:
    picture = loaded.example
    return {
        "picture": _example(
            "An encoded picture of any size, with all probabilities",
            {"instances": [{"b64": _png_base64(picture)}], "return_probabilities": True},
        ),
        "array": _example("An array of the model's size", {"instances": [picture.tolist()]}),
        "threshold": _example(
            "Another threshold for needs_review", {"instances": [{"image_bytes": {"b64": _png_base64(picture)}}], "threshold": 0.99}
        ),
    }


def _v2_examples(loaded: LoadedModel) -> Json:
    picture = loaded.example
    encoded = {"name": INPUT_NAME, "shape": [1], "datatype": "BYTES", "data": [_png_base64(picture)]}
    array = {"name": INPUT_NAME, "shape": [1, *picture.shape], "datatype": "UINT8", "data": picture.ravel().tolist()}
    return {
        "picture": _example("An encoded picture of any size", {"id": "42", "inputs": [encoded]}),
        "array": _example("An array, and two outputs", {"inputs": [array], "outputs": [{"name": v2.LABEL}, {"name": "probabilities"}]}),
    }


def _example(summary: str, value: Json) -> Json:
    return {"summary": summary, "value": value}


def _png_base64(picture: Pixels) -> str:
    return base64.b64encode(encode_png(picture)).decode()
