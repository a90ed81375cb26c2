"""The Open Inference Protocol (V2): tensors in and out, as JSON or as binary data behind it.

The input `image` is UINT8 or FP32 of shape [N, H, W, C] ([N, H, W] where the model takes grey), or BYTES of shape [N]: encoded
pictures of any size, in JSON as base64. The outputs are `label`, `confidence`, `needs_review` and `probabilities`; the last
comes when it is named in `outputs` or by the parameter `return_probabilities`.
"""

import math
import struct
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from components.classifier.arrays import shape_text, to_pictures
from components.classifier.bundle import INPUT_NAME, OUTPUT_NAME
from components.classifier.errors import ImageError, RequestError
from components.classifier.images import ImageSpec
from components.predictor.nested import outline, to_array
from components.predictor.pictures import PictureReader, decode_base64
from components.predictor.question import Answer, Question, check_count, load_json, parse_wishes
from components.predictor.settings import Settings

LABEL, CONFIDENCE, NEEDS_REVIEW = "label", "confidence", "needs_review"
OUTPUTS = (LABEL, CONFIDENCE, NEEDS_REVIEW, OUTPUT_NAME)
DATATYPES = ("UINT8", "FP32", "BYTES")
_NUMPY: dict[str, np.dtype[Any]] = {"UINT8": np.dtype(np.uint8), "FP32": np.dtype("<f4"), "BOOL": np.dtype(np.bool_)}
_MAX_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input as it came: `data` from JSON or gRPC, or `raw` bytes (BYTES with a 4-byte length before each element)."""

    name: str
    datatype: str
    shape: list[int]
    data: Any = None
    raw: bytes | None = None


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
    tensor = _tensor(document.get("inputs"), raw)
    return question(tensor, spec, settings, OUTPUT_NAME in outputs, threshold), Wishes(identity or None, outputs)


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


def question(tensor: Tensor, spec: ImageSpec, settings: Settings, probabilities: bool, threshold: float | None) -> Question:
    """Turn the input tensor into pictures."""
    if tensor.name != INPUT_NAME:
        raise RequestError(f"the model's input is {INPUT_NAME!r}, there is no other")
    shape = tensor.shape
    if len(shape) > _MAX_DIMENSIONS or not all(type(size) is int and size >= 0 for size in shape) or not shape:
        raise RequestError("inputs[0].shape must be a list of whole numbers that are not negative")
    if tensor.datatype == "BYTES":
        if shape not in ([shape[0]], [shape[0], 1]):
            raise RequestError(f"inputs[0].shape must be [N] for encoded pictures, got {shape}")
        check_count(shape[0], settings)
        return _encoded_pictures(tensor, shape[0], spec, settings, probabilities, threshold)
    if tensor.datatype not in DATATYPES:
        raise RequestError(f"inputs[0].datatype must be {', '.join(DATATYPES[:-1])} or {DATATYPES[-1]}")
    grey = spec.channels == 1 and shape[1:] == list(spec.shape[:2])
    if not grey and shape[1:] != list(spec.shape):
        raise RequestError(f"inputs[0].shape must be {shape_text(spec)}, got {shape}")
    check_count(shape[0], settings)
    values = _numbers(tensor).reshape(shape)
    try:
        images = to_pictures(values, spec)
    except ImageError as error:
        raise RequestError(f"inputs[0]: {error}") from error
    return Question(images, [None] * len(images), probabilities, threshold)


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
    name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
    if type(name) is not str or type(datatype) is not str or type(shape) is not list:
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
        return Tensor(name, datatype, shape, data=entry["data"])
    if type(size) is not int or size < 0:
        raise RequestError("binary_data_size must be a whole number that is not negative")
    if "data" in entry:
        raise RequestError("inputs[0] has both data and binary_data_size; send one of them")
    if raw is None:
        raise RequestError("binary data needs the header Inference-Header-Content-Length, the size of the JSON part")
    if size != len(raw):
        raise RequestError(f"inputs[0].binary_data_size is {size}, but {len(raw)} bytes follow the JSON part")
    return Tensor(name, datatype, shape, raw=raw)


def _numbers(tensor: Tensor) -> npt.NDArray[Any]:
    """Flat array of a tensor's numbers, as many as its shape says."""
    dtype, number = _NUMPY[tensor.datatype], math.prod(tensor.shape)
    if tensor.raw is not None:
        if len(tensor.raw) != number * dtype.itemsize:
            raise RequestError(
                f"{tensor.datatype} of shape {tensor.shape} needs {number * dtype.itemsize} bytes of binary data, got {len(tensor.raw)}"
            )
        return np.frombuffer(tensor.raw, dtype)
    values = to_array(tensor.data, [number])
    if values is None:
        values = to_array(tensor.data, tensor.shape)
    if values is None:
        raise RequestError(
            f"inputs[0].data must be a list of {number} numbers, or nested as shape {tensor.shape} says; "
            f"got {outline(tensor.data)} or other content"
        )
    return values


def _encoded_pictures(
    tensor: Tensor, number: int, spec: ImageSpec, settings: Settings, probabilities: bool, threshold: float | None
) -> Question:
    elements = _elements(tensor, number)
    reader = PictureReader(spec, settings.max_pixels)
    images = np.empty((number, *spec.shape), np.uint8)
    for index, element in enumerate(elements):
        images[index] = reader.read(element, f"inputs[0], element {index}")
    return Question(images, list(elements), probabilities, threshold)


def _elements(tensor: Tensor, number: int) -> list[bytes]:
    if tensor.raw is not None:
        elements = _split(tensor.raw, number)
    else:
        data = tensor.data
        if type(data) is not list:
            raise RequestError("inputs[0].data must be a list of base64 strings")
        flat = list(chain.from_iterable(data)) if data and all(type(item) is list for item in data) else data
        elements = [
            item if type(item) is bytes else decode_base64(item, f"inputs[0], element {index}")
            for index, item in enumerate(flat[: number + 1])
        ]
    if len(elements) != number:
        raise RequestError(f"inputs[0].shape says {number} elements, but {len(elements)} came")
    return elements


def _split(raw: bytes, number: int) -> list[bytes]:
    """Elements of BYTES data, one more than `number` at most: each has its length before it, 4 bytes, little-endian."""
    elements: list[bytes] = []
    offset = 0
    while offset < len(raw) and len(elements) <= number:
        if offset + 4 > len(raw):
            raise RequestError(f"BYTES data must have a 4-byte length before each element; {len(raw) - offset} bytes are left over")
        (length,) = struct.unpack_from("<I", raw, offset)
        offset += 4
        if length > len(raw) - offset:
            raise RequestError(
                f"BYTES data must have a 4-byte length before each element; element {len(elements)} says {length} bytes, "
                f"{len(raw) - offset} are left"
            )
        elements.append(raw[offset : offset + length])
        offset += length
    return elements
