"""The Open Inference Protocol (V2): tensors in and out, as JSON or as binary data behind it.

The one input is a tensor of numbers or of encoded pictures (tensors.py; in JSON as base64). The outputs are `label`,
`confidence`, `needs_review` and `probabilities`; the last comes when it is named in `outputs` or by the parameter
`return_probabilities`.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from components.bundle.files import INPUT_NAME, OUTPUT_NAME
from components.classifier.errors import RequestError
from components.classifier.images import ImageSpec
from components.predictor.question import Answer, Question, load_json, parse_wishes
from components.predictor.settings import Settings
from components.predictor.tensors import Tensor, pictures

LABEL, CONFIDENCE, NEEDS_REVIEW = "label", "confidence", "needs_review"
OUTPUTS = (LABEL, CONFIDENCE, NEEDS_REVIEW, OUTPUT_NAME)
_NUMPY: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "BOOL": np.dtype(np.bool_)}


@dataclass(frozen=True, slots=True)
class Wishes:
    """How the answer is to be written: the id to give back, and for each output whether it goes as binary data."""

    id: str | None
    outputs: dict[str, bool]


def parse(body: bytes, header_length: int | None, spec: ImageSpec, settings: Settings) -> tuple[Question, Wishes]:
    """Read a request's body; `header_length` is the size of its JSON part where binary data follows.

    Raises RequestError, saying what was expected and what came.
    """
    header, raw = body, None
    if header_length is not None:
        if not 0 < header_length <= len(body):
            raise RequestError(f"Inference-Header-Content-Length is {header_length}, but the body has {len(body)} bytes")
        header, raw = body[:header_length], body[header_length:]
    document = load_json(header, spec, settings)
    identity = document.get("id")
    if identity is not None and type(identity) is not str:
        raise RequestError("id must be a string")
    parameters = document.get("parameters")
    wanted, threshold = parse_wishes(parameters, "parameters")
    outputs = parse_outputs(document.get("outputs"), parameters or {}, wanted)
    images, originals = pictures(_tensor(document.get("inputs"), raw), spec, settings)
    return Question(images, originals, OUTPUT_NAME in outputs, threshold), Wishes(identity or None, outputs)


def parse_outputs(outputs: Any, parameters: dict[str, Any], probabilities: bool) -> dict[str, bool]:
    """Read which outputs are wanted, and which of them as binary data."""
    default = _flag(parameters, "binary_data_output", False)
    if outputs is None or outputs == []:
        return dict.fromkeys(OUTPUTS if probabilities else OUTPUTS[:-1], default)
    if type(outputs) is not list:
        raise RequestError("outputs must be a list")
    wanted: dict[str, bool] = {}
    for index, output in enumerate(outputs):
        name = output.get("name") if type(output) is dict else None
        if name not in OUTPUTS:
            raise RequestError(f"outputs[{index}] is unknown; there are {', '.join(OUTPUTS)}")
        own = output.get("parameters")
        if own is not None and type(own) is not dict:
            raise RequestError(f"outputs[{index}].parameters must be an object")
        wanted[name] = _flag(own or {}, "binary_data", default)
    if probabilities:
        wanted.setdefault(OUTPUT_NAME, default)
    return wanted


def render(answer: Answer, wishes: Wishes, made_id: str) -> tuple[bytes, int | None]:
    """Write the answer: the body, and the size of its JSON part where binary data follows."""
    outputs: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name, as_bytes in wishes.outputs.items():
        datatype, shape, values = output(answer, name)
        entry: dict[str, Any] = {"name": name, "shape": shape, "datatype": datatype}
        if as_bytes:
            blobs.append(binary(datatype, values))
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = values
        outputs.append(entry)
    model = answer.model
    header = orjson.dumps({"model_name": model.name, "model_version": model.version, "id": wishes.id or made_id, "outputs": outputs})
    return (b"".join((header, *blobs)), len(header)) if blobs else (header, None)


def output(answer: Answer, name: str) -> tuple[str, list[int], list[Any]]:
    """Datatype, shape and flat values of one output."""
    shape = [len(answer.classes)]
    if name == LABEL:
        return "BYTES", shape, answer.labels
    if name == CONFIDENCE:
        return "FP32", shape, answer.confidence
    if name == NEEDS_REVIEW:
        return "BOOL", shape, answer.needs_review
    return "FP32", list(answer.probabilities.shape), answer.probabilities.ravel().tolist()


def binary(datatype: str, values: list[Any]) -> bytes:
    """Write an output's values as binary data."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(data)) + data for data in (value.encode() for value in values))
    return np.array(values, _NUMPY[datatype]).tobytes()


def _flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise RequestError(f"{name} must be true or false")
    return value


def _tensor(inputs: Any, raw: bytes | None) -> Tensor:
    if type(inputs) is not list or len(inputs) != 1 or type(inputs[0]) is not dict:
        raise RequestError(f'the body must have "inputs", a list of one tensor named {INPUT_NAME!r}')
    entry = inputs[0]
    datatype, shape = entry.get("datatype"), entry.get("shape")
    if type(entry.get("name")) is not str or type(datatype) is not str or type(shape) is not list:
        raise RequestError("inputs[0] must have name, datatype and shape")
    parameters = entry.get("parameters")
    if parameters is not None and type(parameters) is not dict:
        raise RequestError("inputs[0].parameters must be an object")
    size = (parameters or {}).get("binary_data_size")
    if size is None:
        if "data" not in entry:
            raise RequestError("inputs[0] has neither data nor the parameter binary_data_size")
        if raw:
            raise RequestError(f"{len(raw)} bytes follow the JSON part, but inputs[0] has no binary_data_size")
        return Tensor(datatype, shape, data=entry["data"])
    if type(size) is not int or size < 0:
        raise RequestError("binary_data_size must be a whole number that is not negative")
    if "data" in entry:
        raise RequestError("inputs[0] has both data and binary_data_size; send one of them")
    if raw is None:
        raise RequestError("binary data needs the header Inference-Header-Content-Length, the size of the JSON part")
    if size != len(raw):
        raise RequestError(f"inputs[0].binary_data_size is {size}, but {len(raw)} bytes follow the JSON part")
    return Tensor(datatype, shape, raw=raw)
