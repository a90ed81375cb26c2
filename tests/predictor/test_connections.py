"""What a connection keeps and when it is dropped, by the protocol class alone in a server of the test."""

import asyncio
import gc
import socket
import weakref
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from components.predictor.http import connections
from components.predictor.http.connections import GuardedProtocol


@pytest.mark.parametrize(
    "rest", [b"a:b\r\n" * 200, b"a:" + b"b" * 90_000, b"not a trailer\x00\r\n", b"\r\n"], ids=["many", "long", "wrong", "none"]
)
def test_a_connection_leaves_nothing_that_waits_for_garbage_collection(rest: bytes) -> None:
    """Which comes rarely here, and then takes milliseconds in which nobody is answered."""
    kept: list[weakref.ref[Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def scenario() -> bytes:
        config = uvicorn.Config(app, http=GuardedProtocol, log_config=None, lifespan="off")
        config.load()

        def connection() -> GuardedProtocol:
            made = GuardedProtocol(config, ServerState(), {})
            kept.append(weakref.ref(made))
            return made

        server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + rest)
            answer = await reader.read()
            writer.close()
            for _ in range(10):
                await asyncio.sleep(0)
        return answer

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(scenario())[9:12] == {b"\r\n": b"204", b"not a trailer\x00\r\n": b"400"}.get(rest, b"431")
        assert [it() for it in kept] == [None]
    finally:
        gc.enable()


def test_a_connection_that_is_closed_before_its_pipelined_requests_are_answered_is_no_error() -> None:
    lost, ended = asyncio.Event(), asyncio.Event()
    told, transports = list[str](), list[Any]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await lost.wait()
        try:
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})
        except RuntimeError as error:
            told.append(str(error))
        finally:
            ended.set()

    class Watched(GuardedProtocol):
        def connection_made(self, transport: Any) -> None:
            transports.append(transport)
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    async def scenario() -> None:
        config = uvicorn.Config(app, http=Watched, log_config=None, lifespan="off")
        config.load()
        server = await asyncio.get_running_loop().create_server(lambda: Watched(config, ServerState(), {}), "127.0.0.1", 0)
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
            await writer.drain()
            await asyncio.sleep(0.1)
            transports[0].close()  # as for a client that is late
            await asyncio.wait_for(ended.wait(), 10)
            writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
    assert not told


SIZE = 12_000_000
"""Of a response; the buffers of both sockets hold a few million bytes each."""


async def respond(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % SIZE)]})
    await send({"type": "http.response.body", "body": bytes(SIZE)})


async def serve(state: ServerState, app: Any = respond, protocol: type[GuardedProtocol] = GuardedProtocol) -> asyncio.Server:
    config = uvicorn.Config(app, http=protocol, log_config=None, lifespan="off")
    config.load()
    return await asyncio.get_running_loop().create_server(lambda: protocol(config, state, {}), "127.0.0.1", 0)


async def connect(server: asyncio.Server, message: bytes) -> socket.socket:
    """Open a connection and send a message."""
    connection = socket.create_connection(server.sockets[0].getsockname()[:2])
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_sendall(connection, message)
    return connection


async def ask(server: asyncio.Server) -> socket.socket:
    """Ask for a response, and read none of it until the server waits."""
    before = dict(GuardedProtocol.unread)
    asking = await connect(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    while GuardedProtocol.unread == before:
        await asyncio.sleep(0.01)
    return asking


async def read(asking: socket.socket) -> int:
    """Read the response; returns how much of it came."""
    received = 0
    with suppress(ConnectionError):
        while received < SIZE and (part := await asyncio.get_running_loop().sock_recv(asking, 1 << 20)):
            received += len(part)
    return received


def run(scenario: Any) -> Any:
    """Run a coroutine as the server does."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(scenario, 60))


def test_a_client_that_does_not_read_its_response_is_dropped_in_time() -> None:
    async def scenario() -> bytes:
        state = ServerState()
        enforcing = asyncio.create_task(connections.enforce_timeouts(state.connections, 1000, 0.5))
        async with await serve(state) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2], limit=1000)  # it reads 2,000 bytes
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            while not GuardedProtocol.unread:
                await asyncio.sleep(0.01)
            while state.connections:
                await asyncio.sleep(0.01)
            enforcing.cancel()
            received = b""
            with suppress(ConnectionError):
                received = await reader.read()
            writer.close()
        return received

    assert len(run(scenario())) < SIZE


def test_responses_that_nobody_reads_are_bounded_together_and_the_slowest_client_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    bound, clients = 40_000_000, 8
    monkeypatch.setattr(connections, "_MAX_UNREAD_BYTES", bound)

    async def scenario() -> tuple[int, int]:
        async with await serve(ServerState()) as server:
            asked = []
            for _ in range(clients):
                asked.append(await ask(server))
                assert sum(GuardedProtocol.unread.values()) <= bound
            assert 1 < len(GuardedProtocol.unread) < clients
            first, last = await read(asked[0]), await read(asked[-1])
            for asking in asked:
                asking.close()
            while GuardedProtocol.unread:  # nothing is counted for connections that are gone
                await asyncio.sleep(0.01)
        return first, last

    first, last = run(scenario())
    assert first < SIZE
    assert last >= SIZE


def test_clients_that_read_late_are_not_counted_any_more_when_they_have_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_MAX_UNREAD_BYTES", SIZE // 4)  # one client may keep more

    async def scenario() -> None:
        state = ServerState()
        async with await serve(state) as server:
            asked = []
            for _ in range(5):
                asked.append(await ask(server))
                assert await read(asked[-1]) >= SIZE
            assert len(state.connections) == len(asked)  # none was dropped for another one
            for asking in asked:
                asking.close()

    run(scenario())


def test_bodies_of_requests_that_wait_for_the_one_before_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    bound, size = 1_000_000, 50_000
    monkeypatch.setattr(connections, "_MAX_STORED_BYTES", bound)
    message = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + bytes(size)

    async def never(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            continue

    async def scenario() -> bytes:
        async with await serve(ServerState(), never) as server:
            held = [await connect(server, message) for _ in range(2 * bound // size)]
            answer = await asyncio.get_running_loop().sock_recv(held[-1], 4096)
            assert GuardedProtocol.stored_bytes <= bound + size
            for connection in held:
                connection.close()
            while GuardedProtocol.stored_bytes:
                await asyncio.sleep(0.01)
        return answer

    assert run(scenario()).startswith(b"HTTP/1.1 503 ")


def test_connections_that_are_idle_after_long_headers_leave_room_for_those_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    bound, size = 1_000_000, 50_000
    monkeypatch.setattr(connections, "_MAX_STORED_BYTES", bound)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async def scenario() -> None:
        async with await serve(ServerState(), answer) as server:
            held = []
            for _ in range(2 * bound // size):
                held.append(await connect(server, b"GET / HTTP/1.1\r\nHost: x\r\nx: " + b"a" * size + b"\r\n\r\n"))
                assert (await asyncio.get_running_loop().sock_recv(held[-1], 4096)).startswith(b"HTTP/1.1 200 ")
            for connection in held:
                connection.close()

    run(scenario())


def test_idle_connections_are_not_looked_for_again_and_again_where_none_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking costs time for each connection that is open: clients that open them as fast as possible would take all of it."""
    looked, close_idle = list[int](), connections._close_idle

    def look(connections: set[Any], *rest: Any) -> int:
        looked.append(len(connections))
        return close_idle(connections, *rest)

    monkeypatch.setattr(connections, "_close_idle", look)
    monkeypatch.setattr(connections, "_FULL_SECONDS", 60)
    monkeypatch.setattr(GuardedProtocol, "max_connections", 4)
    monkeypatch.setattr(GuardedProtocol, "_full_until", 0.0)

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    async def scenario() -> None:
        async with await serve(ServerState(), nothing) as server:
            busy = [await connect(server, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n") for _ in range(20)]
            await asyncio.sleep(0.1)
            for connection in busy:
                connection.close()

    run(scenario())
    assert len(looked) == 1


def test_a_request_with_too_many_trailers_is_refused_before_it_is_worked_on() -> None:
    complete = list[str]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive()).get("more_body"):
            continue
        complete.append(message["type"])

    async def scenario() -> bytes:
        async with await serve(ServerState(), app) as server:
            head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            connection = await connect(server, head + b"0\r\n" + b"a:b\r\n" * 200 + b"\r\n")
            answer = await asyncio.get_running_loop().sock_recv(connection, 4096)
            while not complete:
                await asyncio.sleep(0.01)
            connection.close()
        return answer

    assert run(scenario()).startswith(b"HTTP/1.1 431 ")
    assert complete == ["http.disconnect"]


def test_the_rest_of_a_refused_body_is_read_one_part_per_round_of_the_event_loop() -> None:
    """Whoever keeps sending must not keep the loop from all others."""
    rounds, parts = 0, list[int]()

    class Counting(GuardedProtocol):
        def data_received(self, data: bytes) -> None:
            parts.append(rounds)
            super().data_received(data)

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    def count() -> None:
        nonlocal rounds
        rounds += 1
        asyncio.get_running_loop().call_soon(count)

    async def scenario() -> None:
        async with await serve(ServerState(), refuse, Counting) as server:
            sending = await connect(server, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % SIZE)
            await asyncio.get_running_loop().sock_recv(sending, 4096)
            count()
            sent = asyncio.create_task(asyncio.get_running_loop().sock_sendall(sending, bytes(SIZE - 1)))
            await sent
            await asyncio.sleep(0.1)
            sending.close()

    run(scenario())
    assert len(parts) > 20
    assert max(Counter(parts[1:]).values()) == 1
