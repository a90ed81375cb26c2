"""Where model versions, ledgers and review queues lie: one small interface, one module a scheme."""

from components.storage.store import Entry, Store, check_key, open_store

__all__ = ["Entry", "Store", "check_key", "open_store"]
