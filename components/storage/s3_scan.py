"""A long listing of a bucket, fetched by several connections at once, each of them a range of the keys.

S3 hands out 1,000 keys for each request, and only the answer tells where the next page begins. But keys have folders: a listing by
the delimiter `/` tells their names without the keys below, and a listing can begin after any name (`StartAfter`).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import chain, islice, pairwise
from typing import Any

from components.storage.s3_create import OURS
from components.storage.store import Entry, Markers

CONNECTIONS = 8
PAGES_BEFORE = 4
"""Pages that come one after another before any other connection is used: most listings end there."""
RANGES = 64
"""Ranges that the keys are cut into, where they have so many folders; fewer than twice as many, since each costs a request more."""
FOLDER_PAGES = 20
"""Pages of names of folders that are asked for at one depth; keys after those are one range."""

Page = dict[str, Any]


class Bucket:
    """How a bucket is listed below a root; keys are those below it."""

    def __init__(self, ask: Callable[..., Iterator[Page]], root: str) -> None:
        """`ask` takes a prefix below the root, and options of ListObjectsV2; it yields pages."""
        self._ask, self._root = ask, root

    def pages(self, prefix: str, after: str = "", **options: str | int) -> Iterator[Page]:
        """Yield the pages of what lies below a prefix, after a key."""
        return self._ask(prefix, **options, **({"StartAfter": f"{self._root}{after}"} if after else {}))

    def entries(self, page: Page) -> Iterator[Entry]:
        """Yield the objects of a page but for our own."""
        start = len(self._root)
        entries = (Entry(item["Key"][start:], item["Size"], item.get("ETag", "")) for item in page.get("Contents", []))
        return (entry for entry in entries if not entry.key.startswith(OURS))

    def folders(self, page: Page) -> list[str]:
        """Return the folders of a page of a listing by a delimiter."""
        return [item["Prefix"][len(self._root) :] for item in page.get("CommonPrefixes", [])]


@dataclass
class _Range:
    """Keys up to `stop` (None: to the end), of which the pages come in order."""

    pages: Iterator[Page]
    stop: str | None
    markers: Markers = field(default_factory=Markers)


def scan(bucket: Bucket, prefix: str) -> Iterator[Entry]:
    """Yield the objects below a prefix in any order, without those that only stand for a folder; raises what listing raises.

    No more pages than CONNECTIONS are held.
    """
    markers, last, pages = Markers(), "", bucket.pages(prefix)
    for page in islice(pages, PAGES_BEFORE):
        for entry in bucket.entries(page):
            last = entry.key
            yield from markers.add(entry)
        if not page.get("IsTruncated"):
            yield from markers.held
            return
    if bounds := _bounds(bucket, prefix, last):
        yield from _unmarked(bucket, markers)
        yield from _in_ranges(bucket, prefix, [last, *bounds])
    else:
        for entry in chain.from_iterable(map(bucket.entries, pages)):
            yield from markers.add(entry)
        yield from markers.held


def _in_ranges(bucket: Bucket, prefix: str, bounds: list[str]) -> Iterator[Entry]:
    waiting = (_Range(bucket.pages(prefix, after=start), stop) for start, stop in pairwise([*bounds, None]) if start is not None)
    running: dict[Future[Page], _Range] = {}
    pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="list")
    try:
        while True:
            running |= {pool.submit(next, keys.pages): keys for keys in islice(waiting, CONNECTIONS - len(running))}
            if not running:
                return
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                keys, page = running.pop(done), done.result()
                ends = not page.get("IsTruncated")
                found = []
                for entry in bucket.entries(page):
                    if keys.stop is not None and entry.key >= keys.stop:
                        ends = True
                        break
                    found.append(entry)
                if not ends:
                    running[pool.submit(next, keys.pages)] = keys
                for entry in found:
                    yield from keys.markers.add(entry)
                if ends:
                    yield from _unmarked(bucket, keys.markers)
    finally:
        pool.shutdown(cancel_futures=True)


def _unmarked(bucket: Bucket, markers: Markers) -> Iterator[Entry]:
    """Yield the entries that are held back, whose folder may lie in another range: about empty ones the server is asked."""
    for entry in markers.held:
        below = chain.from_iterable(map(bucket.entries, bucket.pages(f"{entry.key}/"))) if entry.size == 0 else iter(())
        if all(found.key.endswith("/") for found in below):
            yield entry


def _bounds(bucket: Bucket, prefix: str, after: str) -> list[str]:
    """Return names of folders after a key, in order: those of the first depth that has enough of them, with those above.

    There are none where the server does not know StartAfter: some gateways begin at the first key in spite of it.
    """
    following = next(bucket.entries(next(bucket.pages(prefix, after=after, MaxKeys=1))), None)
    if following is None or following.key <= after:
        return []
    found, depth = list[str](), [prefix]
    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="list") as pool:
        while depth and len(found) < RANGES:
            each = -(-FOLDER_PAGES // len(depth))
            inner = pool.map(lambda above, each=each: _folders(bucket, above, each), depth)
            depth = [folder for folders in inner for folder in folders if folder > after or after.startswith(folder)]
            found += [folder for folder in depth if folder > after]
    found.sort()
    return found[:: max(1, len(found) // RANGES)]


def _folders(bucket: Bucket, above: str, most: int) -> list[str]:
    """Return the folders of a folder as far as `most` pages tell; pages of nothing but objects tell no more."""
    found = list[str]()
    for page in islice(bucket.pages(above, Delimiter="/"), most):
        folders = bucket.folders(page)
        found += folders
        if not folders:
            break
    return found
