"""What a check is, how a function becomes one, and what it says."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from components.doctor.seen import NotSeen, Seen


class State(StrEnum):
    """What a check came to."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"
    NOT_SEEN = "not seen"


@dataclass(frozen=True)
class Result:
    """What a check saw, what that will break, and the command, manifest or words that mend it."""

    state: State
    saw: str
    breaks: str = ""
    mend: str = ""
    check: str = ""


Results = Iterator[Result]
_Check = TypeVar("_Check", bound=Callable[[Seen], Results])


@dataclass(frozen=True)
class Check:
    """A check: its id, what it looks for, and the occasions that it is run at."""

    id: str
    title: str
    parts: frozenset[str]
    run: Callable[[Seen], Results]


REGISTERED: dict[str, Check] = {}


def check(*parts: str) -> Callable[[_Check], _Check]:
    """Register a function as a check.

    Its name with dashes is the id, its docstring what users read. `parts`: "deploy" where the deploy step runs it before anything is
    changed; without any, only `penstock doctor` does.
    """

    def register(function: _Check) -> _Check:
        name = function.__name__.replace("_", "-")
        if name in REGISTERED or not function.__doc__:
            raise ValueError(f"check {name}: its name must be new, and it needs a docstring")
        REGISTERED[name] = Check(name, " ".join(function.__doc__.split()), frozenset(parts), function)
        return function

    return register


def run(it: Check, seen: Seen) -> Results:
    """Run one check; what it could not see is a result too."""
    try:
        for result in it.run(seen):
            yield Result(result.state, result.saw, result.breaks, result.mend, it.id)
    except NotSeen as missing:
        yield Result(State.NOT_SEEN, str(missing), check=it.id)


def ok(saw: str) -> Result:
    """All is well."""
    return Result(State.OK, saw)


def warning(saw: str, breaks: str, mend: str) -> Result:
    """Something may break."""
    return Result(State.WARNING, saw, breaks, mend)


def broken(saw: str, breaks: str, mend: str) -> Result:
    """Something will break."""
    return Result(State.BROKEN, saw, breaks, mend)
