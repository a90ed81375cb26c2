"""The three requests of the benchmark, in each protocol that a peer may speak: one picture each."""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Request:
    """Where a peer takes a row's picture, and in what form."""

    path: str
    body: Callable[[Pixels], bytes]
    headers: Callable[[Pixels], dict[str, str]] = field(default=lambda _: JSON)
    note: str = ""
    """What differs from the row's own protocol."""


def v1_json(image: Pixels) -> bytes:
    """V1: pixels as nested lists."""
    return json.dumps({"instances": [image.tolist()]}).encode()


def v1_png(image: Pixels) -> bytes:
    """V1: a PNG in base64."""
    return json.dumps({"instances": [{"b64": _png(image)}]}).encode()


def v2_json(image: Pixels) -> bytes:
    """V2: pixels as a flat list."""
    return json.dumps({"inputs": [{**_tensor(image), "data": image.ravel().tolist()}]}).encode()


def v2_binary(image: Pixels) -> bytes:
    """V2: pixels as bytes behind a JSON header."""
    return _v2_header(image) + image.tobytes()


def v2_binary_headers(image: Pixels) -> dict[str, str]:
    """The header that says where the bytes begin."""
    return {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(_v2_header(image)))}


def v2_png(image: Pixels) -> bytes:
    """V2 JSON: a PNG in base64 as a BYTES element."""
    entry = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"content_type": "base64"}, "data": [_png(image)]}
    return json.dumps({"inputs": [entry]}).encode()


def raw(image: Pixels) -> bytes:
    """The pixels alone."""
    return image.tobytes()


def raw_headers(image: Pixels) -> dict[str, str]:
    """Bytes without a structure."""
    return {"Content-Type": "application/octet-stream"}


def raw_json(image: Pixels) -> bytes:
    """The pixels in base64 as a JSON field."""
    return json.dumps({"raw": base64.b64encode(image.tobytes()).decode()}).encode()


def _v2_header(image: Pixels) -> bytes:
    return json.dumps({"inputs": [{**_tensor(image), "parameters": {"binary_data_size": image.size}}]}).encode()


def _tensor(image: Pixels) -> dict[str, object]:
    return {"name": "image", "shape": [1, *image.shape], "datatype": "UINT8"}


def _png(image: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
