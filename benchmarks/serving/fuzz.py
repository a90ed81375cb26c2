"""Fuzzes a real predictor: wrong requests of many kinds, each made from a seed and its number, and none may get a 5xx.

    python -m benchmarks.serving.fuzz --requests 100000 --seed 0
    python -m benchmarks.serving.fuzz --seed 0 --only 4711        # one request again, with its answer

tests/predictor/test_fuzz.py sends some of these too, and a few made by hypothesis, which finds the smallest failing request and is slower.
"""

import argparse
import base64
import io
import json
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from benchmarks.serving.model import NAME, model_version
from components.bundle.golden import load_golden
from components.validate_serving.predictor_process import PredictorProcess, predictor

PREDICT, INFER = f"/v1/models/{NAME}:predict", f"/v2/models/{NAME}/infer"
PATHS = (
    PREDICT,
    INFER,
    f"/v2/models/{NAME}",
    f"/v2/models/{NAME}/versions/x/infer",
    f"/v1/models/{NAME}",
    "/v2",
    "/metrics",
    "/openapi.json",
)
METHODS = ("POST",) * 8 + ("GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "FOO")
SCALARS: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    256,
    2**31,
    2**63,
    10**30,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "b64",
    "\0",
    "é",
    "\ud800",
)
HEADERS = (
    "content-type",
    "inference-header-content-length",
    "content-encoding",
    "x-request-id",
    "accept",
    "expect",
    "transfer-encoding",
    "host",
)
WORDS = (
    "",
    "0",
    "-1",
    "10",
    "1e3",
    "99999999999999999999",
    "chunked",
    "gzip",
    "identity",
    "100-continue",
    "application/octet-stream",
    "x" * 300,
)
TIMEOUT = 20


class Fuzzer:
    """Makes the request of a number: bytes as they are sent."""

    def __init__(self, seed: int, pictures: np.ndarray) -> None:
        self._seed, self._pixels = seed, pictures[0]
        grey = Image.fromarray(self._pixels[:, :, 0])
        options: dict[str, dict[str, Any]] = {
            "PNG": {},
            "JPEG": {"progressive": True},
            "GIF": {},
            "WEBP": {},
            "TIFF": {},
            "BMP": {},
            "PPM": {},
            "JPEG2000": {},
        }
        self._pictures = [_saved(grey, kind, **more) for kind, more in options.items()]
        self._pictures += [
            _saved(grey.convert("P"), "PNG", transparency=0),
            _saved(grey.convert("I;16"), "PNG"),
            _saved(grey.convert("RGBA"), "PNG"),
        ]
        self._kinds: tuple[Callable[[random.Random], bytes], ...] = (
            self._document, self._document, self._bytes, self._picture, self._picture, self._header, self._path, self._binary, self._http,
        )  # fmt: skip

    def request(self, number: int) -> bytes:
        """Return the request of a number, the same for the same seed."""
        choose = random.Random(f"{self._seed}:{number}")
        return choose.choice(self._kinds)(choose)

    def _good(self, choose: random.Random) -> tuple[str, Any]:
        encoded = base64.b64encode(self._pictures[0]).decode()
        shape = [1, *self._pixels.shape]
        flat = self._pixels.ravel().tolist()
        document = choose.choice(
            [
                {"instances": [self._pixels.tolist()], "return_probabilities": True},
                {"instances": [{"b64": encoded}], "parameters": {"threshold": 0.5}},
                {"instances": [{"image_bytes": {"b64": encoded}}, encoded]},
                {
                    "id": "1",
                    "inputs": [{"name": "image", "shape": shape, "datatype": "UINT8", "data": flat}],
                    "outputs": [{"name": "label"}],
                },
                {"inputs": [{"name": "x", "shape": shape, "datatype": "FP32", "data": [float(value) for value in flat]}]},
                {
                    "inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": [encoded]}],
                    "parameters": {"binary_data_output": True},
                },
            ]
        )
        return (PREDICT if "instances" in document else INFER), document

    def _document(self, choose: random.Random) -> bytes:
        path, document = self._good(choose)
        for _ in range(choose.randint(1, 3)):
            document = _changed(document, choose)
        return _http("POST", path, _json(document))

    def _bytes(self, choose: random.Random) -> bytes:
        path, document = self._good(choose)
        return _http("POST", path, _mutated(_json(document), choose))

    def _picture(self, choose: random.Random) -> bytes:
        data = choose.choice(self._pictures)
        for _ in range(choose.randint(1, 4)):
            data = _mutated(data, choose)
        return _http("POST", PREDICT, _json({"instances": [{"b64": base64.b64encode(data).decode()}]}))

    def _header(self, choose: random.Random) -> bytes:
        path, document = self._good(choose)
        headers = {choose.choice(HEADERS): choose.choice(WORDS) for _ in range(choose.randint(1, 3))}
        return _http(choose.choice(METHODS), path, _json(document), headers)

    def _path(self, choose: random.Random) -> bytes:
        path, document = self._good(choose)
        path = choose.choice((path, *PATHS))
        at = choose.randint(0, len(path))
        path = path[:at] + "".join(choose.choice("/:%.?#;@{}&=~a0é \\") for _ in range(choose.randint(1, 8))) + path[at:]
        return _http(choose.choice(METHODS), path.replace(" ", "%20"), _json(document))

    def _binary(self, choose: random.Random) -> bytes:
        picture = choose.choice(self._pictures)
        as_bytes = choose.random() < 0.5
        raw = len(picture).to_bytes(4, "little") + picture if as_bytes else self._pixels.tobytes()
        entry = {"name": "image", "shape": [1] if as_bytes else [1, *self._pixels.shape], "datatype": "BYTES" if as_bytes else "UINT8"}
        document: Any = {"inputs": [{**entry, "parameters": {"binary_data_size": len(raw)}}]}
        if choose.random() < 0.7:
            document = _changed(document, choose)
        if choose.random() < 0.5:
            raw = _mutated(raw, choose)
        head = _json(document)
        length = len(head) if choose.random() < 0.8 else choose.choice((0, -1, len(head) + 1, 10**9, len(head) + len(raw)))
        return _http(
            "POST", INFER, head + raw, {"content-type": "application/octet-stream", "inference-header-content-length": str(length)}
        )

    def _http(self, choose: random.Random) -> bytes:
        message = self._document(choose) if choose.random() < 0.5 else self._header(choose)
        head, _, body = message.partition(b"\r\n\r\n")
        return _mutated(head, choose) + b"\r\n\r\n" + body


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _json(document: Any) -> bytes:
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _http(method: str, path: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    given = {"host": "x", "content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("utf-8", "surrogatepass") + body


def _changed(document: Any, choose: random.Random) -> Any:
    """Replace, add or leave out one part."""
    if isinstance(document, dict) and document and choose.random() < 0.8:
        key = choose.choice(sorted(document))
        if choose.random() < 0.1:
            return {name: value for name, value in document.items() if name != key}
        return {**document, key: _changed(document[key], choose)}
    if isinstance(document, list) and document and choose.random() < 0.8:
        index = choose.randrange(len(document))
        if choose.random() < 0.1:
            return document[:index] + document[index + 1 :] * choose.randint(0, 3)
        return [*document[:index], _changed(document[index], choose), *document[index + 1 :]]
    return choose.choice((*SCALARS, [], {}, [document], {"b64": document}, [[[[]]]], [document] * 300))


def _mutated(data: bytes, choose: random.Random) -> bytes:
    at = choose.randint(0, len(data))
    kind = choose.randrange(5)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + choose.randbytes(choose.randint(1, 8)) + data[at:]
    if kind == 2:
        return data[:at] + choose.randbytes(1) + data[at + 1 :]
    if kind == 3:
        return data[at:] + data[:at]
    size = choose.randint(1, 16)
    return data[:at] + choose.choice((b"\0", b"\xff", b"\x7f")) * size + data[at + size :]


def send(address: tuple[str, int], request: bytes) -> tuple[int, bytes]:
    """Send a request on a connection of its own; returns the status (0: closed without an answer) and all that came."""
    with socket.create_connection(address, timeout=TIMEOUT) as connection:
        with suppress(OSError):  # it may be refused before it was sent as a whole
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        received = b""
        with suppress(ConnectionError):
            while part := connection.recv(65536):
                received += part
    parts = received.split(b" ", 2)
    return (int(parts[1]), received) if received.startswith(b"HTTP/1.1 ") and parts[1].isdigit() else (0, received)


def fuzz(process: PredictorProcess, url: str, fuzzer: Fuzzer, numbers: range) -> tuple[Counter[int], list[str]]:
    """Send requests; returns how often each status came, and what went wrong."""
    parsed = urlsplit(url)
    address = (str(parsed.hostname), int(parsed.port or 80))
    seen: Counter[int] = Counter()
    wrong: list[str] = []
    for number in numbers:
        request = fuzzer.request(number)
        try:
            status, answer = send(address, request)
        except TimeoutError:
            wrong.append(f"{number}: no answer within {TIMEOUT} s")
            continue
        except OSError as error:
            wrong.append(f"{number}: {error}")
            if process.process.poll() is not None:
                break
            continue
        seen[status] += 1
        if status >= 500 or b"Traceback" in answer or (status >= 400 and not request.startswith(b"HEAD") and not _is_one_line(answer)):
            wrong.append(f"{number}: {answer[:300]!r}")
    return seen, wrong


def _is_one_line(answer: bytes) -> bool:
    """Say whether an answer is JSON with one line for people; answers to what followed may come behind it."""
    try:
        error = json.JSONDecoder().raw_decode(answer.partition(b"\r\n\r\n")[2].decode())[0]["error"]
    except (ValueError, KeyError, TypeError):
        return False
    return isinstance(error, str) and bool(error) and "\n" not in error and "Error" not in error


def main() -> None:
    """Fuzz as the options say, and print what came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, default=-1, help="send this one and show it")
    parser.add_argument("--cache", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    model = model_version(options.cache)
    pictures, _ = load_golden(model)
    fuzzer = Fuzzer(options.seed, pictures)
    with predictor(NAME, model, 60) as (process, started):
        if options.only >= 0:
            request = fuzzer.request(options.only)
            parsed = urlsplit(started.url)
            print(request, send((str(parsed.hostname), int(parsed.port or 80)), request), sep="\n\n")
            return
        began = time.monotonic()
        seen, wrong = fuzz(process, started.url, fuzzer, range(options.requests))
        seconds = time.monotonic() - began
        wrong += [f"log: {event}" for event in process.events() if event["level"] == "error"]
        if process.process.poll() is not None:
            wrong.append(f"the server ended with {process.process.returncode}")
        print(f"{seen.total():,} requests of seed {options.seed} in {seconds:,.0f} s, highest memory {process.memory() >> 20} MiB")
        for status, count in sorted(seen.items()):
            print(f"  {status or 'closed'}: {count:,}")
    for line in wrong[:20]:
        print("wrong:", line)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
