"""The Open Inference Protocol (V2): tensors in and out, as JSON or as binary data behind it; gRPC sends the same tensors.

The one input holds numbers or encoded pictures (in JSON as base64). The outputs are `label`, `confidence` and `needs_review`. Further
ones come when they are named in `outputs`: `probabilities` (also by the parameter `return_probabilities`), and of versions that have
them `familiarity` and `unfamiliar`.
"""

import math
import struct
from dataclasses import dataclass
from importlib.metadata import version as installed
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from components.bundle.files import FAMILIARITY, INPUT_NAME, OUTPUT_NAME
from components.classifier.errors import ImageError, RequestError
from components.classifier.images import ImageSpec, Pixels, shape_text, to_pictures
from components.predictor.loaded_model import LoadedModel
from components.predictor.protocol.request import (
    Original,
    PictureReader,
    Predictions,
    PredictRequest,
    RequestLimits,
    check_count,
    decode_base64,
    list_lengths,
    load_json,
    max_images,
    parse_options,
    to_array,
)

LABEL, CONFIDENCE, NEEDS_REVIEW, UNFAMILIAR = "label", "confidence", "needs_review", "unfamiliar"
_DEFAULT_OUTPUTS = (LABEL, CONFIDENCE, NEEDS_REVIEW)
OUTPUTS = (*_DEFAULT_OUTPUTS, OUTPUT_NAME, FAMILIARITY, UNFAMILIAR)
_OUTPUT_DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "BOOL": np.dtype(np.bool_)}
DTYPES: dict[str, np.dtype[Any]] = {
    **{f"{sign}INT{bits}": np.dtype(f"<{'u' if sign else 'i'}{bits // 8}") for sign in ("U", "") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
"""Datatypes of numbers: UINT8 is the model's own; classifier/images.py says which values of the others are accepted."""
DATATYPES = (*DTYPES, "BYTES")
_MAX_DIMENSIONS = 8
_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """How the response is written: the request's id, and per wanted output whether it goes as binary data."""

    id: str | None
    outputs: dict[str, bool]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input as it came: `data` from JSON or gRPC, or `raw` bytes (BYTES with a 4-byte length before each element).

    Its name is ignored: the model has only one input.
    """

    datatype: str
    shape: list[int]
    data: Any = None
    raw: bytes | None = None


def parse(body: bytes, header_length: int | None, spec: ImageSpec, limits: RequestLimits) -> tuple[PredictRequest, OutputOptions]:
    """Read a request's body; `header_length` is the size of its JSON part where binary data follows.

    Raises RequestError, saying what was expected and what came.
    """
    header, raw = body, None
    if header_length is not None:
        if not 0 < header_length <= len(body):
            raise RequestError(f"Inference-Header-Content-Length is {header_length}, but the body has {len(body)} bytes")
        header, raw = body[:header_length], body[header_length:]
    document = load_json(header, spec, limits)
    identity = document.get("id")
    if identity is not None and type(identity) is not str:
        raise RequestError("id must be a string")
    parameters = document.get("parameters")
    probabilities, threshold = parse_options(parameters, "parameters")
    outputs = parse_outputs(document.get("outputs"), parameters or {}, probabilities)
    images, originals = read_images(_parse_tensor(document.get("inputs"), raw), spec, limits)
    return PredictRequest(images, originals, OUTPUT_NAME in outputs, threshold), OutputOptions(identity or None, outputs)


def parse_outputs(outputs: Any, parameters: dict[str, Any], probabilities: bool) -> dict[str, bool]:
    """Read which outputs are wanted, and which of them as binary data.

    Raises RequestError for an unknown output and for options of another type.
    """
    default = _flag(parameters, "binary_data_output", False)
    if outputs is None or outputs == []:
        return dict.fromkeys((*_DEFAULT_OUTPUTS, OUTPUT_NAME) if probabilities else _DEFAULT_OUTPUTS, default)
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


def render(predictions: Predictions, options: OutputOptions, made_id: str) -> tuple[bytes, int | None]:
    """Write the response: the body, and the size of its JSON part where binary data follows."""
    outputs: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name, as_bytes in options.outputs.items():
        datatype, shape, values = output(predictions, name)
        entry: dict[str, Any] = {"name": name, "shape": shape, "datatype": datatype}
        if as_bytes:
            blobs.append(to_bytes(datatype, values))
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = values
        outputs.append(entry)
    model = predictions.model
    header = orjson.dumps({"model_name": model.name, "model_version": model.version, "id": options.id or made_id, "outputs": outputs})
    return (b"".join((header, *blobs)), len(header)) if blobs else (header, None)


def output(predictions: Predictions, name: str) -> tuple[str, list[int], list[Any]]:
    """Return datatype, shape and flat values of one output; raises RequestError for one that the model's version does not have."""
    shape = [len(predictions.classes)]
    if name == LABEL:
        return "BYTES", shape, predictions.labels
    if name == CONFIDENCE:
        return "FP32", shape, predictions.confidence
    if name == NEEDS_REVIEW:
        return "BOOL", shape, predictions.needs_review
    if name in (FAMILIARITY, UNFAMILIAR):
        if predictions.unfamiliar is None:
            raise RequestError(f"model version {predictions.model.version} has no output {name!r}; train it again to get one")
        return ("BOOL", shape, predictions.unfamiliar) if name == UNFAMILIAR else ("FP32", shape, predictions.familiarity)
    return "FP32", list(predictions.probabilities.shape), predictions.probabilities.ravel().tolist()


def to_bytes(datatype: str, values: list[Any]) -> bytes:
    """Write an output's values as binary data."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(data)) + data for data in (value.encode() for value in values))
    return np.array(values, _OUTPUT_DTYPES[datatype]).tobytes()


def server_metadata() -> dict[str, Any]:
    """Describe the server as V2 metadata does."""
    return {"name": "penstock-predictor", "version": installed("penstock"), "extensions": ["binary_tensor_data"]}


def model_metadata(loaded: LoadedModel) -> dict[str, Any]:
    """Describe the model that serves as V2 metadata does."""
    return {
        "name": loaded.name,
        "versions": [loaded.version],
        "platform": "onnxruntime_onnx",
        "inputs": input_metadata(loaded),
        "outputs": output_metadata(loaded),
    }


def input_metadata(loaded: LoadedModel | None) -> list[dict[str, Any]]:
    """Describe the input as V2 metadata does; other datatypes than UINT8 are accepted too."""
    return [{"name": INPUT_NAME, "datatype": "UINT8", "shape": [-1, *(loaded.spec.shape if loaded else ())]}]


def output_metadata(loaded: LoadedModel | None) -> list[dict[str, Any]]:
    """Describe the outputs as V2 metadata does."""
    described = [
        {"name": LABEL, "datatype": "BYTES", "shape": [-1]},
        {"name": CONFIDENCE, "datatype": "FP32", "shape": [-1]},
        {"name": NEEDS_REVIEW, "datatype": "BOOL", "shape": [-1]},
        {"name": OUTPUT_NAME, "datatype": "FP32", "shape": [-1, len(loaded.classes) if loaded else -1]},
    ]
    if loaded is not None and loaded.classifier.config.familiarity is not None:
        described += [{"name": FAMILIARITY, "datatype": "FP32", "shape": [-1]}, {"name": UNFAMILIAR, "datatype": "BOOL", "shape": [-1]}]
    return described


def _flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise RequestError(f"{name} must be true or false")
    return value


def _parse_tensor(inputs: Any, raw: bytes | None) -> Tensor:
    if type(inputs) is not list or len(inputs) != 1 or type(inputs[0]) is not dict:
        raise RequestError('the body must have "inputs", a list of one tensor')
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


def read_images(tensor: Tensor, spec: ImageSpec, limits: RequestLimits) -> tuple[Pixels, list[Original]]:
    """Turn a tensor into pictures, uint8 (N, H, W, C), and the bytes they came in where they were encoded.

    Numbers have shape [N, H, W, C], or [N, H, W] where the model takes grey; encoded pictures [N] or [N, 1], where N may be
    -1 for any number. Raises RequestError that says what was expected.
    """
    shape = tensor.shape
    if not 0 < len(shape) <= _MAX_DIMENSIONS or not all(type(size) is int and size >= _UNKNOWN for size in shape):
        raise RequestError("inputs[0].shape must be a list of whole numbers that are not negative")
    if tensor.datatype == "BYTES":
        return _encoded_pictures(tensor, spec, limits)
    if tensor.datatype not in DTYPES:
        raise RequestError(f"inputs[0].datatype must be UINT8, BYTES or another of {', '.join(DTYPES)}")
    grey = spec.channels == 1 and shape[1:] == list(spec.shape[:2])
    if (not grey and shape[1:] != list(spec.shape)) or shape[0] == _UNKNOWN:
        raise RequestError(f"inputs[0].shape must be {shape_text(spec)}, got {shape}")
    check_count(shape[0], spec, limits)
    try:
        images = to_pictures(_numbers(tensor).reshape(shape), spec)
    except ImageError as error:
        raise RequestError(f"inputs[0]: {error}") from error
    return images, [None] * len(images)


def _numbers(tensor: Tensor) -> npt.NDArray[Any]:
    """Return a tensor's numbers, as many as its shape says, flat or in that shape."""
    dtype, number = DTYPES[tensor.datatype], math.prod(tensor.shape)
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
            f"got {list_lengths(tensor.data)} or other content"
        )
    return values.astype(np.float64) if dtype.kind == "f" else values  # FP32 of only 0 and 1 is refused like 0.0 and 1.0


def _encoded_pictures(tensor: Tensor, spec: ImageSpec, limits: RequestLimits) -> tuple[Pixels, list[Original]]:
    shape = tensor.shape
    if shape not in ([shape[0]], [shape[0], 1]):
        raise RequestError(f"inputs[0].shape must be [N] for encoded pictures, got {shape}")
    if shape[0] != _UNKNOWN:
        check_count(shape[0], spec, limits)
    limit = max_images(spec, limits.max_images) if shape[0] == _UNKNOWN else shape[0]
    elements = _elements(tensor, limit)
    if shape[0] == _UNKNOWN:
        check_count(len(elements), spec, limits)
    elif len(elements) != shape[0]:
        raise RequestError(f"inputs[0].shape says {shape[0]} elements, but {'more' if len(elements) > shape[0] else len(elements)} came")
    reader = PictureReader(spec, limits)
    images = np.empty((len(elements), *spec.shape), np.uint8)
    for index, element in enumerate(elements):
        images[index] = reader.read(element, f"inputs[0], element {index}")
    return images, list(elements)


def _elements(tensor: Tensor, limit: int) -> list[bytes]:
    """Return the elements of a BYTES tensor; stops at one more than `limit`."""
    if tensor.raw is not None:
        return _split(tensor.raw, limit)
    data = tensor.data
    if type(data) is not list:
        raise RequestError("inputs[0].data must be a list of base64 strings")
    flat = list(chain.from_iterable(data)) if data and all(type(item) is list for item in data) else data
    return [
        item if type(item) is bytes else decode_base64(item, f"inputs[0], element {index}") for index, item in enumerate(flat[: limit + 1])
    ]


def _split(raw: bytes, limit: int) -> list[bytes]:
    """Split binary BYTES data: each element has its length before it, 4 bytes, little-endian."""
    rule = "BYTES data must have a 4-byte length before each element"
    elements: list[bytes] = []
    offset = 0
    while offset < len(raw) and len(elements) <= limit:
        left = len(raw) - offset - 4
        if left < 0:
            raise RequestError(f"{rule}; {left + 4} bytes are left over")
        (length,) = struct.unpack_from("<I", raw, offset)
        if length > left:
            raise RequestError(f"{rule}; element {len(elements)} says {length} bytes, {left} are left")
        elements.append(raw[offset + 4 : offset + 4 + length])
        offset += 4 + length
    return elements
