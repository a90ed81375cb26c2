"""Optimistic writes: read, decide, write under a condition, and begin again when another writer was first."""

from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay, wait_random_exponential

Written = TypeVar("Written")

MAX_ATTEMPTS = 100
MAX_SECONDS = 60.0


def write_optimistically(attempt: Callable[[], Written], conflict: type[Exception], given_up: Exception) -> Written:
    """Call `attempt` until it raises no `conflict`; after MAX_ATTEMPTS, or MAX_SECONDS, raise `given_up`.

    Each attempt must read anew what its write depends on. The waits between attempts are random and grow up to 2 s, so that
    many writers spread out instead of meeting again. Other errors of `attempt` are raised at once.
    """
    retrying = Retrying(
        retry=retry_if_exception_type(conflict),
        stop=stop_after_attempt(MAX_ATTEMPTS) | stop_after_delay(MAX_SECONDS),
        wait=wait_random_exponential(multiplier=0.02, max=2),
    )
    try:
        return retrying(attempt)
    except RetryError as error:
        raise given_up from error.last_attempt.exception()
