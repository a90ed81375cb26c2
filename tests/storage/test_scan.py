"""A listing by several connections at once holds the names of one listing, on real servers and for any keys."""

import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.classifier.errors import StoreUnavailable
from components.storage import open_store, s3_scan
from components.storage.s3 import S3Store
from components.storage.s3_scan import Bucket, scan
from components.storage.store import Entry, without_markers
from tests.storage.fixtures import new_address, use
from tests.storage.servers import BUCKET, Server

KEYS = [f"{top}/{inner}/{number}.png" for top in ("a", "b c", "ü", "z") for inner in range(4) for number in range(3)]
MARKERS = ["a/", "a", "b c/0", "z/3/", "z/3", "ü"]
EMPTY = ["empty", "b c-/none"]


class Pages:
    """ListObjectsV2 over keys in memory, `most` at a time; counts the requests, and those that go on at a time."""

    def __init__(self, sizes: dict[str, int], most: int, *, knows_start_after: bool = True) -> None:
        self.sizes, self.most, self.knows, self.asked = dict(sorted(sizes.items())), most, knows_start_after, list[dict[str, Any]]()

    def __call__(self, prefix: str, Delimiter: str = "", StartAfter: str = "", MaxKeys: int = 1000) -> Iterator[dict[str, Any]]:
        after = StartAfter if self.knows else ""
        items = dict[str, dict[str, Any]]()
        for key in self.sizes:
            if key.startswith(prefix) and key > after:
                folder, cut, _ = key[len(prefix) :].partition(Delimiter) if Delimiter else ("", "", "")
                name = f"{prefix}{folder}/" if cut else key
                items[name] = {"Prefix": name} if cut else {"Key": key, "Size": self.sizes[key], "ETag": key}
        rest, most = list(items.values()), min(self.most, MaxKeys)
        while True:
            page, rest = rest[:most], rest[most:]
            self.asked.append({"Prefix": prefix, "Delimiter": Delimiter, "StartAfter": StartAfter})
            yield {
                "Contents": [item for item in page if "Key" in item],
                "CommonPrefixes": [item for item in page if "Prefix" in item],
                "IsTruncated": bool(rest),
            }
            if not rest:
                return


def listed(pages: Pages, prefix: str) -> list[Entry]:
    bucket = Bucket(pages, "")
    return list(without_markers(entry for page in pages(prefix) for entry in bucket.entries(page)))


parts = st.text("ab-/é", min_size=1, max_size=5)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.dictionaries(parts, st.integers(0, 1), max_size=30),
    prefix=st.sampled_from(["", "a/", "b"]),
    most=st.integers(1, 4),
    ranges=st.integers(1, 5),
    knows=st.booleans(),
)
def test_any_keys_are_those_of_one_listing(sizes: dict[str, int], prefix: str, most: int, ranges: int, knows: bool) -> None:
    pages = Pages(sizes, most, knows_start_after=knows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3_scan, "PAGES_BEFORE", 1)
        patch.setattr(s3_scan, "RANGES", ranges)
        patch.setattr(s3_scan, "CONNECTIONS", 3)
        found = list(scan(Bucket(pages, ""), prefix))
    assert sorted(found, key=lambda entry: entry.key) == listed(pages, prefix)


def test_folders_cost_few_requests_more_and_flat_keys_and_short_listings_almost_none() -> None:
    def asked(keys: list[str]) -> int:
        pages = Pages(dict.fromkeys(keys, 1), 10)
        assert sorted(entry.key for entry in scan(Bucket(pages, ""), "")) == sorted(keys)
        return len(pages.asked)

    assert asked([f"{folder:03d}/{number}" for folder in range(1000) for number in range(10)]) < 1000 + 3 * s3_scan.RANGES
    assert asked([f"{folder:05d}/one" for folder in range(10_000)]) < 1000 + 3 * s3_scan.RANGES
    assert asked([f"{number:05d}" for number in range(10_000)]) <= 1002
    assert asked([f"{folder}/{number}" for folder in range(4) for number in range(10)]) == 4


def test_a_range_that_fails_ends_the_listing_and_its_threads() -> None:
    pages = Pages({f"{folder:03d}/{number}": 1 for folder in range(20) for number in range(50)}, 10)

    def broken(prefix: str, **options: Any) -> Iterator[dict[str, Any]]:
        for page in pages(prefix, **options):
            if page["Contents"] and page["Contents"][0]["Key"] > "012":
                raise StoreUnavailable("the server is gone")
            yield page

    found = list[Entry]()
    with pytest.raises(StoreUnavailable, match="the server is gone"):
        found.extend(scan(Bucket(broken, ""), ""))
    assert found
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("list")]


@pytest.fixture(params=["ministack", pytest.param("rgw", marks=pytest.mark.xdist_group("rgw"))])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> S3Store:
    server: Server = request.getfixturevalue(f"{request.param}_server")
    use(server, monkeypatch)
    monkeypatch.setattr(s3_scan, "PAGES_BEFORE", 1)
    monkeypatch.setattr(s3_scan, "CONNECTIONS", 3)
    address, client = new_address(), server.client()
    for keys, body in ((KEYS, b"x"), (MARKERS, b""), (EMPTY, b"")):
        for key in keys:
            client.put_object(Bucket=BUCKET, Key=f"{address.removeprefix(f's3://{BUCKET}/')}/{key}", Body=body)
    store = open_store(address)
    assert isinstance(store, S3Store)
    return store


@pytest.mark.integration
def test_a_server_tells_the_same_names_by_several_connections(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real, threads = store._client.list_objects_v2, set[str]()

    def in_small_pages(**options: Any) -> Any:
        threads.add(threading.current_thread().name)
        return real(**{"MaxKeys": 5, **options})

    monkeypatch.setattr(store._client, "list_objects_v2", in_small_pages)
    one = list(store.list())
    assert [entry.key for entry in one] == sorted([*KEYS, *EMPTY])
    assert all(first.key < second.key for first, second in pairwise(one))
    assert {thread for thread in threads if thread.startswith("list")} == set()
    many = list(store.scan())
    assert sorted((entry.key, entry.size, entry.stamp) for entry in many) == [(entry.key, entry.size, entry.stamp) for entry in one]
    assert len({thread for thread in threads if thread.startswith("list")}) > 1
    assert sorted(entry.key for entry in store.scan("b c/")) == [key for key in KEYS if key.startswith("b c/")]
