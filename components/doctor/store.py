"""Looks at a store: its bucket, its make, its clock, and the champion in its ledger."""

import time
import uuid
from email.utils import parsedate_to_datetime

import urllib3

from components.classifier.errors import PenstockError, StoreError
from components.doctor.seen import StoreSeen
from components.registry import Registry
from components.storage import open_store
from components.storage.s3_settings import endpoint

_SECONDS = 5.0


def look_at_store(url: str, name: str, write: bool = False) -> StoreSeen:
    """List the store and read the ledger of a model; with `write`, make and delete one small object, too.

    Raises UsageError for an address, or AWS settings, that cannot be used.
    """
    server, clock = _server()
    store = open_store(url)
    problem = ""
    champion = ""
    registry = Registry(store, name)
    try:
        next(iter(store.names("")), None)
        if write:
            key = f"doctor/{uuid.uuid4().hex}"
            store.create(key, b"can this be written?")
            store.delete(key)
        last = registry.ledger.last()
        champion = last.champion if last else ""
    except PenstockError as error:
        problem = str(error)
    made = write and not problem and url.startswith("s3://") and makes_missing_buckets()
    return StoreSeen(store.url, problem, write and not problem, server, made, registry.uri("x").removesuffix("x/"), champion, clock)


def _server() -> tuple[str, float | None]:
    """What the S3 server calls itself, and its clock less ours; nothing for AWS itself or where it does not say."""
    address = endpoint()
    if address is None:
        return "", None
    before = time.time()
    try:
        answer = urllib3.request("HEAD", address, retries=False, redirect=False, timeout=_SECONDS)
    except urllib3.exceptions.HTTPError:
        return "", None  # listing the bucket tells why
    date = answer.headers.get("Date")
    skew = parsedate_to_datetime(date).timestamp() - (before + time.time()) / 2 if date else None
    return answer.headers.get("Server", ""), skew


def makes_missing_buckets() -> bool:
    """Whether the S3 server makes a bucket at the first write to it; what was made is removed again.

    Raises StoreError where that fails.
    """
    from components.storage.s3 import S3Store  # boto3 takes half a second to import

    strange = S3Store(f"s3://penstock-doctor-{uuid.uuid4().hex[:12]}")
    try:
        strange.replace("probe", b"")
    except StoreError:
        return False
    strange.delete("probe")
    strange.remove_bucket()
    return True
