"""Who may go on where a few may at a time: nobody holds up the others by many calls, or by calls that never end."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from grpc_interceptor import exceptions

from components.predictor import grpc_turns
from components.predictor.grpc_turns import Turns


class Calls:
    """Calls that take turns; each has its turn until it is told to end. A name is an address, its connection's number and the call's."""

    def __init__(self, number: int, seconds: float = 30) -> None:
        self.turns = Turns(number, seconds)
        self.began: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def open(self, *names: str) -> None:
        """Open calls."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._call(name))
            await asyncio.sleep(0)
        await settle()

    async def _call(self, name: str) -> None:
        async with self.turns.turn(f"ipv4:10.0.0.{name[0]}:{name[:-1]}"):
            self.began.append(name)
            await self._ends[name].wait()

    async def end(self, name: str) -> str:
        """End a call that has its turn; returns the one that begins instead."""
        before = len(self.began)
        self._ends[name].set()
        await self._tasks.pop(name)
        await settle()
        return ",".join(self.began[before:])

    async def cancel(self, name: str) -> None:
        """Let a call's client leave."""
        self._tasks[name].cancel()
        await asyncio.wait([self._tasks.pop(name)])
        await settle()

    async def error(self, name: str) -> BaseException | None:
        """How a call that is not let in ends."""
        await asyncio.wait([self._tasks[name]])
        return self._tasks.pop(name).exception()

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


def test_a_connection_with_many_calls_waits_behind_one_with_few() -> None:
    async def scenario() -> None:
        calls = Calls(2)
        await calls.open("a11", "a12", "a13", "b11", "a14", "a15")
        assert calls.began == ["a11", "a12"]
        assert await calls.end("a11") == "b11"
        assert await calls.end("a12") == "a15"
        await calls.close()

    run(scenario())


def test_many_calls_of_many_connections_do_not_hold_up_a_new_one() -> None:
    async def scenario() -> None:
        calls = Calls(1)
        await calls.open("a11", "b11", "c11", "d11")
        assert await calls.end("a11") == "d11"
        assert await calls.end("d11") == "c11"
        await calls.close()

    run(scenario())


def test_an_address_with_many_connections_waits_behind_one_with_few() -> None:
    async def scenario() -> None:
        calls = Calls(2)
        await calls.open("a11", "a21", "a31", "b11", "a41", "a51")
        assert calls.began == ["a11", "a21"]
        assert await calls.end("a11") == "b11"
        assert await calls.end("a21") == "a51"
        assert await calls.end("b11") == "a41"
        await calls.close()

    run(scenario())


def test_where_too_many_wait_the_address_with_most_of_them_loses_its_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_turns, "_MAX_WAITING", 4)

    async def scenario() -> None:
        calls = Calls(1)
        await calls.open("c11", "b11", "b12", "a11", "a21", "a31")
        assert isinstance(await calls.error("b11"), exceptions.ResourceExhausted), "two of each wait, and this is the busiest connection"
        await calls.open("c12")
        assert isinstance(await calls.error("a11"), exceptions.ResourceExhausted)
        await calls.close()

    run(scenario())


def test_turns_of_clients_that_leave_are_given_to_others() -> None:
    async def scenario() -> None:
        calls = Calls(2)
        await calls.open("a11", "b11", "c11", "d11")
        assert calls.turns.wanted
        await calls.cancel("d11")  # while it waits
        await calls.cancel("a11")  # in its turn
        assert calls.began == ["a11", "b11", "c11"]
        assert not calls.turns.wanted
        await calls.open("d12")
        assert await calls.end("b11") == "d12"
        await calls.close()

    run(scenario())


def test_where_too_many_wait_the_connection_with_most_of_them_loses_its_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_turns, "_MAX_WAITING", 3)

    async def scenario() -> None:
        calls = Calls(1)
        await calls.open("a11", "b11", "a12", "a13", "c11")
        assert isinstance(await calls.error("a12"), exceptions.ResourceExhausted)
        assert [await calls.end("a11"), await calls.end("c11"), await calls.end("a13")] == ["c11", "a13", "b11"]
        await calls.close()

    run(scenario())


def test_a_call_waits_for_its_turn_for_a_time_only() -> None:
    async def scenario() -> None:
        calls = Calls(1, seconds=0.1)
        await calls.open("a11", "b11")
        assert isinstance(await calls.error("b11"), exceptions.Unavailable)
        assert not calls.turns.wanted
        assert await calls.end("a11") == ""
        await calls.open("b12")
        assert calls.began == ["a11", "b12"]
        await calls.close()

    run(scenario())
