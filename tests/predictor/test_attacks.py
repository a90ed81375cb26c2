"""What one client can do on purpose, all of it at once: health is answered, memory stays below the limit, good requests go on.

tests/images/test_predictor_under_attack.py does it for longer, to a container with limits.
"""

import asyncio
import io
import json
import multiprocessing
import os
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import httpx
import numpy as np
import pytest
from PIL import Image

from components.validate_serving.predictor_process import predictor
from tests.predictor.test_limits import bomb, connect
from tests.predictor.versions import NAME, PREDICT, b64

SECONDS = 20.0
KEPT = 1.25
"""How much of the memory from before may be held after it: 6 to 16% more were seen in three runs, and 10% is the aim."""
GIBIBYTE = 2**30


def picture(side: int, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((side, side)).convert("RGB").save(buffer, kind, **options)
    return buffer.getvalue()


def many_scans() -> bytes:
    jpeg = picture(3000, "JPEG", progressive=True)
    end = jpeg.rfind(b"\xff\xd9")
    return jpeg[:end] + jpeg[jpeg.rfind(b"\xff\xda") : end] * 80 + jpeg[end:]


def one_large_tile() -> bytes:
    """A TIFF of 16x16 pixels whose only tile has 32768x32768."""
    tags = [(256, 16), (257, 16), (258, 8), (259, 8), (262, 1), (277, 1), (322, 32768), (323, 32768), (324, 200), (325, 8)]
    return (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(tags))
        + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        + bytes(100)
    )


def one_bit_with_key(side: int) -> bytes:
    """A PNG of 1 bit per pixel with a transparent colour: each pixel becomes 4 bytes, and 4 more when it is laid on white."""
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG", transparency=0)
    return buffer.getvalue()


def many_markers() -> bytes:
    """A JPEG of 64 pixels with 170,000 empty comments."""
    jpeg = picture(8, "JPEG")
    return jpeg[:2] + b"\xff\xfe\0\2" * 170_000 + jpeg[2:]


def many_chunks() -> bytes:
    """A PNG of 64 pixels with 58,000 empty chunks."""
    png, after = picture(8, "PNG"), 33
    chunk = bytes(4) + b"abCd" + struct.pack(">I", zlib.crc32(b"abCd"))
    return png[:after] + chunk * 58_000 + png[after:]


def posted(body: bytes) -> bytes:
    return f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def encoded(*pictures: bytes) -> bytes:
    return posted(json.dumps({"instances": [{"b64": b64(data)} for data in pictures]}).encode())


ENDLESS = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n".encode()
ATTACKS: dict[str, Callable[[], bytes]] = {
    "trailers": lambda: ENDLESS + b"a:b\r\n" * 2_000_000,
    "one endless trailer": lambda: ENDLESS + b"a:" + b"b" * 8_000_000,
    "scans": lambda: encoded(many_scans()),
    "comments": lambda: encoded(b"P2\n" + b"#\n" * 90_000 + b"8 8\n255\n" + b"1 " * 64),
    "long comment": lambda: encoded(b"P5\n#" + b"x" * 700_000 + b"\n8 8\n255\n" + bytes(64)),
    "markers": lambda: encoded(many_markers()),
    "chunks": lambda: encoded(many_chunks()),
    "webp": lambda: encoded(*[picture(4900, "WEBP")] * 4),
    "jpeg 2000": lambda: encoded(*[picture(2500, "JPEG2000", quality_layers=[200])] * 2),
    "png bombs": lambda: encoded(*[bomb(4900)] * 4),
    "tile": lambda: encoded(one_large_tile()),
    "key colour": lambda: encoded(one_bit_with_key(4900)),
    "gif": lambda: encoded(*[picture(4900, "GIF")] * 2),
    "lists": lambda: posted(b'{"instances": [' + b"[],".join([b""] * 1_000_000) + b"1]}"),
    "pipelined": lambda: b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 250,
    "headers": lambda: b"GET / HTTP/1.1\r\nHost: x\r\nx: " + b"a" * 60_000,
}


def churn(url: str, end: float) -> None:
    """Open and close connections without end, and without waiting until they are accepted.

    A reset leaves no port behind that cannot be used again for a minute.
    """
    address = urlsplit(url).hostname, urlsplit(url).port
    while time.monotonic() < end:
        with ExitStack() as stack:
            for _ in range(300):
                connection = stack.enter_context(closing(socket.socket()))
                connection.setblocking(False)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.connect_ex(address)


MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"


def field(number: int, data: bytes) -> bytes:
    """A field of a protobuf message, with its length in 4 bytes."""
    return bytes([number << 3 | 2, *(len(data) >> shift & 127 | 128 for shift in (0, 7, 14)), len(data) >> 21]) + data


def grpc_message(kind: bytes, shape: bytes, tensor: bytes = b"", raw: bytes = b"") -> bytes:
    """A request of one tensor."""
    described = field(1, b"image") + field(2, kind) + field(3, shape) + (field(5, tensor) if tensor else b"")
    return field(1, NAME.encode()) + field(5, described) + (field(7, raw) if raw else b"")


async def attack_by_grpc(address: str, end: float) -> None:
    """Keep 200 calls open whose message does not come, and send messages of 8 MB, 8 at a time."""
    large = grpc_message(b"BYTES", b"\1", field(8, bytes(7_900_000)))

    async def again(ask: Callable[[], grpc.aio.Call]) -> None:
        while True:
            with suppress(grpc.RpcError):
                await ask()

    async with AsyncExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [await stack.enter_async_context(grpc.aio.insecure_channel(address, options)) for _ in range(5)]
        asking = [again(channel.stream_unary(MODEL_INFER)) for channel in channels[1:] for _ in range(50)]
        asking += [again(lambda: channels[0].unary_unary(MODEL_INFER)(large)) for _ in range(8)]
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*asking), end - time.monotonic())


def attack_by_grpc_kindly(address: str, end: float) -> None:
    """The same, with the CPU that nobody else wants."""
    os.nice(15)
    asyncio.run(attack_by_grpc(address, end))


def ask_by_grpc(address: str, message: bytes, end: float) -> list[float]:
    """Send a good request again and again; returns the seconds of every answer."""
    seconds = []
    with grpc.insecure_channel(address) as channel:
        while time.monotonic() < end:
            began = time.monotonic()
            channel.unary_unary(MODEL_INFER)(message, timeout=30)
            seconds.append(time.monotonic() - began)
            time.sleep(0.05)
    return seconds


@contextmanager
def running(*functions: Callable[[], None]) -> Iterator[None]:
    """Run functions each in a process of its own, that takes the CPU only when nobody else wants it."""

    def kindly(function: Callable[[], None]) -> None:
        os.nice(15)
        function()

    context = multiprocessing.get_context("fork")  # spawned ones could not be given closures
    processes = [context.Process(target=kindly, args=(function,)) for function in functions]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.join()


def new_processes() -> ProcessPoolExecutor:
    """Two processes that are not copies of this one: gRPC does not work in those."""
    return ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))


def resident(pid: int) -> int:
    """Bytes that a process and its children hold now."""
    children = [child for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    total = 0
    for number in (pid, *children):
        with suppress(OSError):
            total += int(Path(f"/proc/{number}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return total


@pytest.mark.load
@pytest.mark.integration
def test_attacks_of_all_kinds_at_once(served_dir: Path, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")  # as in the image
    messages = {name: make() for name, make in ATTACKS.items()}
    good = {"instances": [pictures[0].tolist()]}
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        grpc_port = found.getsockname()[1]
    address = f"127.0.0.1:{grpc_port}"
    options = ("--probe_port", "0", "--enable_grpc", "true", "--grpc_port", str(grpc_port))
    with predictor(NAME, served_dir, 60, *options) as (process, started), ExitStack() as stack:
        pid = process.process.pid
        probe_port = next(event["probe_port"] for event in process.events() if event["event"] == "listening")
        health: list[float] = []
        answered: list[float] = []
        peak: list[int] = []
        with httpx.Client(base_url=started.url, timeout=30) as client:
            for message in messages.values():  # each kind once, so that what it loads for good counts as before
                send(started.url, message, 1)
            assert client.post(PREDICT, json=good).status_code == 200
        with new_processes() as processes:
            processes.submit(attack_by_grpc_kindly, address, time.monotonic() + 5).result()
        time.sleep(30)  # until what the first of each kind took has been given back
        before, end = resident(pid), time.monotonic() + SECONDS

        def attack(name: str) -> Callable[[], None]:
            def run() -> None:
                leave = 0.0
                while time.monotonic() < end:
                    send(started.url, messages[name], leave)
                    leave = 0.3 - leave  # one client in two leaves at once

            return run

        def probe() -> None:
            while time.monotonic() < end:
                began = time.monotonic()
                with closing(connect(f"http://127.0.0.1:{probe_port}")) as connection:
                    connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
                health.append(time.monotonic() - began)
                peak.append(resident(pid))
                time.sleep(0.1)

        def use() -> None:
            with httpx.Client(base_url=started.url, timeout=30) as client:
                while time.monotonic() < end:
                    began = time.monotonic()
                    with suppress(httpx.HTTPError):
                        if client.post(PREDICT, json=good).status_code == 200:
                            answered.append(time.monotonic() - began)
                    time.sleep(0.05)

        for _ in range(500):  # connections that are held and say nothing
            with suppress(OSError):
                stack.enter_context(closing(connect(started.url)))
        with running(*(attack(name) for name in messages), *[partial(churn, started.url, end)] * 2), new_processes() as processes:
            processes.submit(attack_by_grpc_kindly, address, end)
            message = grpc_message(b"UINT8", b"\1\x08\x08\1", raw=pictures[0].tobytes())
            asked = processes.submit(ask_by_grpc, address, message, end)
            user = threading.Thread(target=use)
            user.start()
            probe()
            user.join()
            answered_by_grpc = asked.result()
        assert process.process.poll() is None
        after, patience = resident(pid), time.monotonic() + 60
        while after > KEPT * before and time.monotonic() < patience:  # the process that decodes ends, the rest is given back
            time.sleep(1)
            after = resident(pid)
        figures = {
            "health_max": max(health),
            "good_median": float(np.median(answered)),
            "good_p99": float(np.quantile(answered, 0.99)),
            "good": len(answered),
            "grpc_median": float(np.median(answered_by_grpc)),
            "grpc_max": max(answered_by_grpc),
            "grpc": len(answered_by_grpc),
            "peak_mib": max(peak) >> 20,
            "before_mib": before >> 20,
            "after_mib": after >> 20,
        }
        print(json.dumps(figures))  # `pytest -s` shows them
        assert max(peak) < GIBIBYTE, figures
        assert after <= KEPT * before, figures
        assert float(np.quantile(health, 0.99)) < 1, figures  # the slowest one says more about what else this machine does
        assert len(answered) > SECONDS, figures
        assert max(answered_by_grpc) < 10, figures
        assert not [event for event in process.events() if event["level"] == "error"]


def send(url: str, message: bytes, wait: float) -> None:
    """Send bytes, wait for an answer for a while, and leave."""
    with suppress(OSError), closing(connect(url)) as connection:
        connection.sendall(message)
        connection.settimeout(max(wait, 0.01))
        while connection.recv(65536):
            continue
