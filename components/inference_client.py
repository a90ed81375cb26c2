"""The one client of the predictor: V1 and V2 over HTTP, and one error that says why there is no usable response.

Requests to this machine and into a cluster never go through a proxy: it could not reach them, and must not see the pictures.
Other addresses follow HTTP_PROXY, HTTPS_PROXY and NO_PROXY. Redirects are not followed: they lead to login pages.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import numpy as np
import numpy.typing as npt
import urllib3

from components.bundle.files import INPUT_NAME, OUTPUT_NAME
from components.classifier.errors import InferenceError, UsageError, one_line
from components.classifier.images import Pixels, encode_png
from components.storage.nearby import is_http, is_nearby

Form = Literal["binary", "json", "png"]
"""How V2 carries pictures: UINT8 as binary data or as JSON numbers, or BYTES of base64-encoded PNG."""

_MAX_BODY_BYTES = 2 * 1024 * 1024
"""Golden requests stay well below what predictors and ingresses accept."""
_BYTES_PER_VALUE = 4
"""Of a pixel in JSON, at most: three digits and a comma."""
_CONNECT_SECONDS = 3.0
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Inference:
    """A V2 response: which version answered, probabilities float32 (N, K), and the labels if they were asked for."""

    version: str
    probabilities: npt.NDArray[np.float32]
    labels: list[str]


class InferenceClient:
    """Talks to the model `name` at `address`, such as http://127.0.0.1:8080.

    `headers` go with each request (a host or a token that an ingress wants); `ca` is a file of trusted certificates, empty for
    the system's; `seconds` is how long a response may take. Safe from several threads at once. Raises UsageError for an address
    that is not HTTP; every method raises InferenceError when the server is not reached, does not answer with status 200, or
    answers in another form.
    """

    def __init__(self, address: str, name: str, *, headers: Mapping[str, str] | None = None, ca: str = "", seconds: float = 30.0) -> None:
        if not is_http(address):
            raise UsageError(f"{address!r} is not an address of a predictor; give one that begins with http:// or https:// (--url)")
        self.address = address.rstrip("/")
        self._name = name
        self._headers = dict(headers or {})
        options: dict[str, Any] = {
            "retries": False,
            "timeout": urllib3.Timeout(connect=_CONNECT_SECONDS, read=seconds),
            "ca_certs": ca or None,
        }
        proxy = proxy_for(self.address)
        self._pool = urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)

    def metadata(self) -> dict[str, Any]:
        """Return the model's V2 metadata: versions, tensors and classes."""
        return self.ask("GET", f"/v2/models/{self._name}")

    def models(self) -> list[str]:
        """Return the names of the models that the server has."""
        document = self.ask("GET", "/v1/models")
        if not isinstance(document.get("models"), list):
            raise self._unexpected("V1", json.dumps(document))
        return [str(name) for name in document["models"]]

    def predict(self, instances: list[Any], **options: Any) -> dict[str, Any]:
        """Send a V1 request, `options` beside the instances.

        Returns the response: `predictions`, one per instance, `model_name` and `model_version`.
        """
        body = json.dumps({"instances": instances, **options}).encode()
        document = self.ask("POST", f"/v1/models/{self._name}:predict", body)
        predictions, version = document.get("predictions"), document.get("model_version")
        fits = isinstance(predictions, list) and len(predictions) == len(instances) and isinstance(version, str)
        if not fits or not all(isinstance(prediction, dict) for prediction in predictions or []):
            raise self._unexpected("V1", json.dumps(document))
        return document

    def infer(self, images: Pixels, form: Form = "binary", *, labels: bool = False) -> Inference:
        """Send a V2 request with pictures, uint8 (N, H, W, C), and ask for their probabilities, and labels if wanted."""
        tensor: dict[str, Any] = {"name": INPUT_NAME, "shape": list(images.shape), "datatype": "UINT8"}
        raw = b""
        if form == "binary":
            raw = np.ascontiguousarray(images).tobytes()
            tensor["parameters"] = {"binary_data_size": len(raw)}
        elif form == "json":
            tensor["data"] = images.ravel().tolist()
        else:
            tensor |= {"shape": [len(images)], "datatype": "BYTES", "data": [png_base64(image) for image in images]}
        outputs = [{"name": name} for name in ([OUTPUT_NAME, "label"] if labels else [OUTPUT_NAME])]
        head = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
        headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))} if raw else None
        document = self.ask("POST", f"/v2/models/{self._name}/infer", head + raw, headers)
        try:
            found = {output["name"]: output for output in document["outputs"]}
            probabilities = np.array(found[OUTPUT_NAME]["data"], np.float32).reshape(found[OUTPUT_NAME]["shape"])
            named = [str(label) for label in found["label"]["data"]] if labels else []
        except (ValueError, KeyError, TypeError) as error:
            raise self._unexpected("V2", json.dumps(document)) from error
        return Inference(str(document.get("model_version", "")), probabilities, named)

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Send any request, JSON by default, and return the JSON object that comes back."""
        try:
            response = self._pool.request(
                method, self.address + path, body=body, headers={**(headers or _JSON), **self._headers}, redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise InferenceError(f"{self.address} does not answer ({type(error).__name__})") from error
        try:
            document = json.loads(response.data)
        except ValueError:
            document = None
        if response.status != 200:
            detail = document.get("error") if isinstance(document, dict) else None
            detail = one_line(detail) if isinstance(detail, str) else ""
            text = detail or one_line(response.data.decode("utf-8", "replace"))
            raise InferenceError(f"{self.address} answers {response.status}: {text}", response.status, detail)
        if not isinstance(document, dict):
            raise self._unexpected(path[1:3].upper(), response.data.decode("utf-8", "replace"))
        return document

    def _unexpected(self, protocol: str, text: str) -> InferenceError:
        return InferenceError(f"{self.address} answers something else than the {protocol} protocol: {one_line(text)}", 200)


def batches(images: Pixels) -> Iterator[slice]:
    """Cut pictures, uint8 (N, H, W, C), into slices that fit a request of 2 MiB in any form; one picture at least."""
    step = max(1, _MAX_BODY_BYTES // max(1, images[0].size * _BYTES_PER_VALUE)) if len(images) else 1
    return (slice(start, start + step) for start in range(0, len(images), step))


def png_base64(image: Pixels) -> str:
    """Encode a picture, uint8 (H, W, 1 or 3), as V1 and V2 carry pictures in JSON."""
    return base64.b64encode(encode_png(image)).decode()


def proxy_for(address: str) -> str:
    """Return the proxy that the environment names for an address; empty for this machine's and a cluster's own addresses."""
    parts = urlsplit(address)
    return "" if is_nearby(address) or proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme, "")
