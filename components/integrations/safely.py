"""The guard around every call to another system: bounded in time, never fatal, and reported once."""

import sys
from collections.abc import Callable
from threading import Thread

from components.classifier.errors import first_line

SECONDS = 10.0
"""How long a step waits for an integration at most, each time that it tells it something without files."""

_given_up: set[str] = set()


def safely(integration: str, work: Callable[[], object], seconds: float = SECONDS) -> bool:
    """Call `work` in a thread of its own for at most `seconds`; returns whether it came to its end.

    Whatever it raises, or a deadline that passes, is printed in one line, and the integration is then left alone as long as this process
    lives: a server that is down costs a step one deadline, not one for each message.
    """
    if integration in _given_up:
        return False
    problems = [f"no answer within {seconds:g} s"]

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - other people's clients raise what they like, and none of it may end a step
            problems[0] = f"{type(error).__name__}: {first_line(error)}"
        else:
            problems.clear()

    thread = Thread(target=run, name=integration, daemon=True)  # the step's end does not wait for it
    thread.start()
    thread.join(seconds)
    if not problems:
        return True
    _given_up.add(integration)
    print(f"warning: {integration} is told nothing more in this step: {problems[0]}", file=sys.stderr, flush=True)
    return False


def forget() -> None:
    """Try again all integrations that were given up."""
    _given_up.clear()
