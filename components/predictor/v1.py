"""KServe's V1 protocol: `{"instances": […]}` in, `{"predictions": […]}` out."""

from typing import Any

import numpy as np
import orjson

from components.classifier.arrays import to_uint8
from components.classifier.errors import ImageError, RequestError
from components.classifier.images import ImageSpec, Pixels
from components.predictor.nested import outline, to_array
from components.predictor.pictures import PictureReader, decode_base64
from components.predictor.question import Answer, Original, Question, check_count, load_json, parse_wishes
from components.predictor.settings import Settings

_NAMES = ("image_bytes", "image", "data")


def parse(body: bytes, spec: ImageSpec, settings: Settings) -> Question:
    """Read a request's body.

    An instance is an array of the model's size, or a picture of any size as `{"b64": …}` or its string alone, bare or under
    `image_bytes`, `image` or `data`, as clients of other servers send them. The wishes stand beside `instances`, or in `parameters`. Raises
    RequestError that names the instance.
    """
    document = load_json(body, spec, settings)
    instances = document.get("instances")
    if type(instances) is not list:
        raise RequestError('the body must have "instances", a list of pictures' + _hint(document))
    check_count(len(instances), spec, settings)
    wanted, threshold = parse_wishes(document, "the body")
    wanted_too, threshold_too = parse_wishes(document.get("parameters"), "parameters")
    reader = PictureReader(spec, settings.max_pixels)
    images = np.empty((len(instances), *spec.shape), np.uint8)
    originals: list[Original] = []
    for index, instance in enumerate(instances):
        where = f"instances[{index}]"
        picture = _unwrapped(instance)
        if type(picture) is list:
            originals.append(None)
            images[index] = _pixels(picture, spec, where)
        else:
            data = _encoded(picture, where)
            originals.append(data)
            images[index] = reader.read(data, where)
    return Question(images, originals, wanted or wanted_too, threshold_too if threshold is None else threshold)


def render(answer: Answer, with_probabilities: bool) -> bytes:
    """Write the answer: one object a picture, beside the model's name and version."""
    predictions: list[dict[str, Any]] = [
        {"label": label, "confidence": confidence, "needs_review": doubt}
        for label, confidence, doubt in zip(answer.labels, answer.confidence, answer.needs_review, strict=True)
    ]
    if with_probabilities:
        names = answer.model.classes
        for prediction, row in zip(predictions, answer.probabilities.tolist(), strict=True):
            prediction["probabilities"] = dict(zip(names, row, strict=True))
    return orjson.dumps({"predictions": predictions, "model_name": answer.model.name, "model_version": answer.model.version})


def _hint(document: dict[str, Any]) -> str:
    return '; "inputs" belongs to the V2 protocol, /v2/models/NAME/infer' if "inputs" in document else ""


def _unwrapped(instance: Any) -> Any:
    """What stands under a picture's usual names, or the instance itself."""
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
    without_channel = spec.channels == 1 and len(outline(rows)) == len(spec.shape) - 1
    values = to_array(rows, spec.shape[:-1] if without_channel else spec.shape)
    if values is None:
        shapes = f"[{spec.height}, {spec.width}, {spec.channels}]" + (f" or [{spec.height}, {spec.width}]" if spec.channels == 1 else "")
        raise RequestError(f"{where}: expected numbers in an array of shape {shapes}, got {outline(rows)} or other content")
    try:
        return to_uint8(values).reshape(spec.shape)
    except ImageError as error:
        raise RequestError(f"{where}: {error}") from error
