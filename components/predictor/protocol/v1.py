"""KServe's V1 protocol: `{"instances": […]}` in, `{"predictions": […]}` out."""

from typing import Any

import numpy as np
import orjson

from components.classifier.errors import ImageError, RequestError
from components.classifier.images import ImageSpec, Pixels, to_uint8
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
    parse_options,
    to_array,
)

_NAMES = ("image_bytes", "image", "data")


def parse(body: bytes, spec: ImageSpec, limits: RequestLimits) -> PredictRequest:
    """Read a request's body.

    An instance is an array of the model's size, or a picture of any size as `{"b64": …}` or its string alone, bare or under
    `image_bytes`, `image` or `data`, as clients of other servers send them. The options stand beside `instances`, or in
    `parameters`. Raises RequestError that names the instance.
    """
    document = load_json(body, spec, limits)
    instances = document.get("instances")
    if type(instances) is not list:
        hint = '; "inputs" belongs to the V2 protocol, /v2/models/NAME/infer' if "inputs" in document else ""
        raise RequestError('the body must have "instances", a list of pictures' + hint)
    check_count(len(instances), spec, limits)
    probabilities, threshold = parse_options(document, "the body")
    inner_probabilities, inner_threshold = parse_options(document.get("parameters"), "parameters")
    reader = PictureReader(spec, limits)
    images = np.empty((len(instances), *spec.shape), np.uint8)
    originals: list[Original] = []
    for index, instance in enumerate(instances):
        where = f"instances[{index}]"
        picture = _unwrap(instance)
        if type(picture) is list:
            originals.append(None)
            images[index] = _pixels(picture, spec, where)
        else:
            data = _encoded(picture, where)
            originals.append(data)
            images[index] = reader.read(data, where)
    return PredictRequest(images, originals, probabilities or inner_probabilities, inner_threshold if threshold is None else threshold)


def render(predictions: Predictions, with_probabilities: bool) -> bytes:
    """Write the response: one object per picture, beside the model's name and version."""
    rows: list[dict[str, Any]] = [
        {"label": label, "confidence": confidence, "needs_review": needs_review}
        for label, confidence, needs_review in zip(predictions.labels, predictions.confidence, predictions.needs_review, strict=True)
    ]
    model = predictions.model
    if predictions.unfamiliar is not None:
        for row, familiarity, unfamiliar in zip(rows, predictions.familiarity, predictions.unfamiliar, strict=True):
            row["familiarity"], row["unfamiliar"] = familiarity, unfamiliar
    if with_probabilities:
        for row, values in zip(rows, predictions.probabilities.tolist(), strict=True):
            row["probabilities"] = dict(zip(model.classes, values, strict=True))
    return orjson.dumps({"predictions": rows, "model_name": model.name, "model_version": model.version})


def _unwrap(instance: Any) -> Any:
    """Return what stands under one of a picture's usual names, or the instance itself."""
    if type(instance) is dict:
        for name in _NAMES:
            if name in instance:
                return instance[name]
    return instance


def _encoded(picture: Any, where: str) -> bytes:
    if type(picture) is dict and "b64" in picture:
        return decode_base64(picture["b64"], where)
    if type(picture) is str:
        return decode_base64(picture, where)
    raise RequestError(f'{where} must be an array of pixels, {{"b64": "…"}} or {{"image_bytes": {{"b64": "…"}}}}')


def _pixels(rows: list[Any], spec: ImageSpec, where: str) -> Pixels:
    without_channel = spec.channels == 1 and len(list_lengths(rows)) == len(spec.shape) - 1
    values = to_array(rows, spec.shape[:-1] if without_channel else spec.shape)
    if values is None:
        shapes = f"[{spec.height}, {spec.width}, {spec.channels}]" + (f" or [{spec.height}, {spec.width}]" if spec.channels == 1 else "")
        raise RequestError(f"{where}: expected numbers in an array of shape {shapes}, got {list_lengths(rows)} or other content")
    try:
        return to_uint8(values).reshape(spec.shape)
    except ImageError as error:
        raise RequestError(f"{where}: {error}") from error
