"""Decoding in threads, in order, in bounded memory: a few groups of records are under way at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

from components.classifier.errors import AccessDenied, ImageError, StoreError, StoreUnavailable, one_line
from components.readers.listing import MAX_FILE_BYTES
from components.readers.records import Encoded

REMOTE_WORKERS = 10
"""Threads where pictures come one by one from a store: most of their time they wait. As many as boto3 keeps connections."""

Group = TypeVar("Group")
Result = TypeVar("Result")


def in_order(pool: Executor, groups: Iterable[Group], work: Callable[[Group], Result], ahead: int) -> Iterator[Result]:
    """Yield what `work` makes of each group, in the order of the groups; `ahead` of them are under way at a time.

    Raises what `work` and `groups` raise; what is then still waiting is never started.
    """
    under_way: deque[Future[Result]] = deque()
    try:
        for group in groups:
            under_way.append(pool.submit(work, group))
            if len(under_way) > ahead:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for future in under_way:
            future.cancel()


def load(record: Encoded) -> bytes:
    """Fetch a picture's bytes.

    Raises ImageError with the reason why this picture cannot be read, and StoreUnavailable or AccessDenied, which say nothing
    about this picture.
    """
    if record.size > MAX_FILE_BYTES:
        raise ImageError(f"the file has {record.size} bytes, more than the limit of {MAX_FILE_BYTES}")
    try:
        return record.load()
    except (StoreUnavailable, AccessDenied):
        raise
    except (OSError, StoreError) as error:
        raise ImageError(f"cannot be read ({(isinstance(error, OSError) and error.strerror) or one_line(error)})") from error
