"""The records of searches in the model store: searches/NAME/RUN/search.json."""

from components.bundle.formats import parsed
from components.bundle.trial import SEARCH, SearchRecord
from components.classifier.errors import IntegrityError, ObjectNotFound
from components.storage import Store

FOLDER = "searches"


def save_search(record: SearchRecord, store: Store) -> None:
    """Keep the record of a search in a store; a step that is started again writes it once more. Raises StoreError."""
    store.replace(_key(record.name, record.run), (record.model_dump_json(indent=1) + "\n").encode())


def search_records(store: Store, name: str) -> list[SearchRecord]:
    """Return the searches of a model, newest first. Raises IntegrityError for a record that cannot be read, and StoreError."""
    found = []
    for run in store.names(f"{FOLDER}/{name}/"):
        key = _key(name, run)
        try:
            text = store.read(key)
        except ObjectNotFound:
            continue
        found.append(parsed(SearchRecord, text, f"{key} in {store.url}", "delete it", IntegrityError))
    return sorted(found, key=lambda record: record.time, reverse=True)


def _key(name: str, run: str) -> str:
    return f"{FOLDER}/{name}/{run}/{SEARCH}"
