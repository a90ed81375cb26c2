"""Where model versions, ledgers and review queues lie: one small interface, one module per scheme."""

import re
from pathlib import Path
from urllib.parse import unquote

from components.classifier.errors import UsageError
from components.storage.store import Entry, Store

__all__ = ["Entry", "Store", "open_store"]

_FORMS = "use a directory, file:///…, memory://NAME or s3://bucket/prefix"


def open_store(url: str) -> Store:
    """Open a store by its address: a plain path or `file://`, `memory://NAME`, `s3://bucket/prefix`.

    Raises UsageError for an address of another form.
    """
    address = url.strip()
    scheme, separator, rest = address.partition("://")
    if separator and scheme == "s3":
        from components.storage.s3 import S3Store

        return S3Store(address)
    if separator and scheme == "memory" and rest.strip("/"):
        from components.storage.memory import MemoryStore

        return MemoryStore.named(rest.strip("/"))
    if (separator and scheme == "file" and rest) or (address and not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", address)):
        from components.storage.local import LocalStore

        return LocalStore(Path(unquote(rest.removeprefix("localhost")) if separator else address))
    raise UsageError(f"unknown store address {url!r}; {_FORMS}")
