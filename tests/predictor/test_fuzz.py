"""Thousands of requests that are wrong in ways nobody thought of: never a 5xx, and right answers afterwards.

PENSTOCK_FUZZ_REQUESTS sends more of them than CI does.
"""

import http.client
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from urllib.parse import quote, urlsplit

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.serving.fuzz import Fuzzer, fuzz
from components.validate_serving.predictor_process import PredictorProcess
from tests.predictor.versions import INFER, PREDICT, b64, binary, elements, png, tensor

WANTED = int(os.environ.get("PENSTOCK_FUZZ_REQUESTS", "0"))
REQUESTS, FEW = max(5000, WANTED), max(400, WANTED)
pytestmark = pytest.mark.timeout(300 + WANTED // 10)

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["b64", "image", "BYTES", "", "\0"])
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=20
)


def replace(document: object, data: st.DataObject) -> object:
    """The document with one part of it replaced, added or left out."""
    if isinstance(document, dict) and document and data.draw(st.integers(0, 3)):
        key = data.draw(st.sampled_from(sorted(document)))
        if data.draw(st.integers(0, 9)) == 0:
            return {name: value for name, value in document.items() if name != key}
        return {**document, key: replace(document[key], data)}
    if isinstance(document, list) and document and data.draw(st.integers(0, 3)):
        index = data.draw(st.integers(0, len(document) - 1))
        return [*document[:index], replace(document[index], data), *document[index + 1 :]]
    return data.draw(anything)


def seeds(picture: np.ndarray) -> list[tuple[str, dict, bytes]]:
    """Good requests: path, JSON, and the binary data behind it."""
    encoded, raw = png(picture), picture.tobytes()
    data = elements(encoded)
    return [
        (PREDICT, {"instances": [picture.tolist()], "return_probabilities": True}, b""),
        (PREDICT, {"instances": [{"b64": b64(encoded)}], "parameters": {"threshold": 0.5}}, b""),
        (PREDICT, {"instances": [{"image_bytes": {"b64": b64(encoded)}}], "threshold": 0.5}, b""),
        (INFER, {"id": "1", "inputs": [tensor([1, 8, 8, 1], data=picture.ravel().tolist())], "outputs": [{"name": "label"}]}, b""),
        (INFER, {"inputs": [tensor([1, 8, 8, 1], "FP32", data=picture.ravel().astype(float).tolist())]}, b""),
        (INFER, {"inputs": [tensor([1], "BYTES", data=[b64(encoded)])], "parameters": {"binary_data_output": True}}, b""),
        (INFER, {"inputs": [tensor([1, 8, 8, 1], parameters={"binary_data_size": len(raw)})]}, raw),
        (INFER, {"inputs": [tensor([1], "BYTES", parameters={"binary_data_size": len(data)})]}, data),
    ]


def mutate(body: bytes, data: st.DataObject) -> bytes:
    """Flip, cut, double or insert bytes."""
    kind = data.draw(st.integers(0, 4))
    at = data.draw(st.integers(0, max(0, len(body) - 1)))
    if kind == 0:
        return body[:at]
    if kind == 1:
        return body[:at] + data.draw(st.binary(min_size=1, max_size=8)) + body[at:]
    if kind == 2:
        return body[:at] + data.draw(st.binary(min_size=1, max_size=1)) + body[at + 1 :]
    if kind == 3:
        return body[at:] + body
    return data.draw(st.binary(max_size=200))


def malformed(picture: np.ndarray, data: st.DataObject) -> tuple[str, str, bytes, dict[str, str]]:
    path, document, raw = data.draw(st.sampled_from(seeds(picture)))
    kind = data.draw(st.integers(0, 5))
    if kind <= 2:
        document = replace(document, data)  # type: ignore[assignment]
    body = json.dumps(document, allow_nan=True).encode("utf-8", "surrogatepass")
    headers = {"Content-Type": "application/json"}
    if raw:
        content = (
            binary(document, raw) if kind > 2 else {"content": body + raw, "headers": {"inference-header-content-length": str(len(body))}}
        )
        body, headers = content["content"], {"Content-Type": "application/octet-stream", **content["headers"]}
    if kind == 3:
        body = mutate(body, data)
    if kind == 4:
        name = data.draw(st.sampled_from(["Content-Type", "inference-header-content-length", "Content-Encoding", "x-request-id", "Accept"]))
        headers[name] = data.draw(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30))
    if kind == 5:
        letters = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)
        path = data.draw(st.sampled_from([PREDICT, INFER, "/v1/models/", "/v2/models/digits/", "/v2/", "/"])) + quote(
            data.draw(letters), safe="/:%"
        )
    method = data.draw(st.sampled_from(["POST"] * 12 + ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]))
    return method, path, body, headers


@contextmanager
def unharmed(server: tuple[PredictorProcess, str], picture: np.ndarray) -> Iterator[Callable[[], None]]:
    """Check that the server answers after the block as before it, without an error in its log; what is yielded is called half-way.

    Its memory must not grow in the second half.
    """
    process, url = server
    body = {"instances": [picture.tolist()], "return_probabilities": True}
    before, memory = httpx.post(f"{url}{PREDICT}", json=body, timeout=60).json(), []
    yield lambda: memory.append(process.memory())
    assert process.memory() - memory[0] < 30 * 1024 * 1024
    assert httpx.post(f"{url}{PREDICT}", json=body, timeout=60).json() == before
    assert not [event for event in process.events() if event["level"] == "error"]


def test_a_few_hundred_malformed_requests(server: tuple[PredictorProcess, str], pictures: np.ndarray) -> None:
    seen: Counter[int] = Counter()
    address = urlsplit(server[1])
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)

    @settings(max_examples=FEW // 2, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        method, path, content, headers = malformed(pictures[0], data)
        try:
            connection.request(method, path, content, headers)
            response = connection.getresponse()
            text = response.read()
        except (http.client.HTTPException, OSError):
            connection.close()
            raise
        seen[response.status] += 1
        assert 200 <= response.status < 500, (method, path, content, headers, text)
        if response.status >= 400 and method != "HEAD":
            error = json.loads(text)["error"]
            assert "\n" not in error
            assert "Traceback" not in error
            assert "Error" not in error

    with closing(connection), unharmed(server, pictures[0]) as half_way:
        ask()
        half_way()
        ask()
    assert seen[400] > FEW / 8


@pytest.mark.integration
def test_thousands_of_malformed_requests_down_to_the_bytes_of_http(server: tuple[PredictorProcess, str], pictures: np.ndarray) -> None:
    fuzzer, half = Fuzzer(0, pictures), REQUESTS // 2
    with unharmed(server, pictures[0]) as half_way:
        first, wrong = fuzz(*server, fuzzer, range(half))
        half_way()
        second, more = fuzz(*server, fuzzer, range(half, 2 * half))
    assert not wrong + more, (wrong + more)[:5]
    seen = first + second
    assert seen[400] > REQUESTS / 2 > seen[200] > REQUESTS / 50


@pytest.mark.integration
def test_schemathesis_finds_no_failure_of_the_server(url: str) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    checks = [schemathesis.checks.not_a_server_error]
    tried: Counter[str] = Counter()
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(max_examples=max(50, WANTED // 50), deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            response = case.call(base_url=url, timeout=20)
            case.validate_response(response, checks=checks)
            tried[case.operation.label] += 1

        ask()
    assert len(tried) >= 10
