"""Whose turn it is, where only a few may do something at a time and some of those who wait may be hostile."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from grpc_interceptor import exceptions

_MAX_WAITING = 256
"""Of those that wait, HTTP/2's flow control lets no more than 64 KiB in."""


class Turns:
    """Gives a few turns at a time: to the address that has the fewest, of its connections to the one that has the fewest, and of
    several calls to the one that came last.

    So a client with many calls, or with many connections, waits behind the others, and many calls that take long do not hold up a
    new one: it is not the last of a long queue. When too many wait, the address with most of them loses the oldest of the connection
    with most of them.
    """

    def __init__(self, number: int, seconds: float) -> None:
        """There are `number` turns; a call waits for one for so many seconds at most."""
        self._free, self._seconds = number, seconds
        self._waiting: dict[asyncio.Future[bool], str] = {}
        """The oldest first, each with its connection; becomes true where it is given a turn, false where it is refused."""
        self._taken: Counter[str] = Counter()
        """Turns of each connection, and of each address."""

    @property
    def wanted(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    @asynccontextmanager
    async def turn(self, connection: str) -> AsyncIterator[None]:
        """Wait for a turn and have it while the block lasts; `connection` is an address, a colon and a port.

        Raises grpc_interceptor's Unavailable and ResourceExhausted.
        """
        if len(self._waiting) >= _MAX_WAITING:
            self._refuse_one()
        given: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[given] = connection
        self._give()
        try:
            await asyncio.wait([given], timeout=self._seconds)
            if not given.done():
                raise exceptions.Unavailable("too many messages are arriving; try again in a moment")
            if not given.result():
                raise exceptions.ResourceExhausted("too many calls wait for their messages to arrive; open fewer")
            yield
        finally:
            self._waiting.pop(given, None)
            if given.done() and given.result():
                self._taken -= Counter(_with_address(connection))  # which forgets who has none
                self._free += 1
                self._give()

    def _give(self) -> None:
        while self._free and self._waiting:
            chosen = min(reversed(self._waiting), key=lambda it: [self._taken[who] for who in _with_address(self._waiting[it])])
            self._taken.update(_with_address(self._waiting.pop(chosen)))
            self._free -= 1
            chosen.set_result(True)

    def _refuse_one(self) -> None:
        waiting = Counter(who for connection in self._waiting.values() for who in _with_address(connection))
        crowd = max(self._waiting.values(), key=lambda it: [waiting[who] for who in _with_address(it)])
        oldest = next(given for given, connection in self._waiting.items() if connection == crowd)
        del self._waiting[oldest]
        oldest.set_result(False)


def _with_address(connection: str) -> tuple[str, str]:
    return connection.rpartition(":")[0] + ":", connection
