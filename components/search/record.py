"""The records of searches in the model store: searches/NAME/RUN/search.json."""

from pydantic import ValidationError

from components.bundle.trial import SEARCH, SearchRecord
from components.classifier.errors import IntegrityError, ObjectNotFound, validation_problems
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
            found.append(SearchRecord.model_validate_json(store.read(key)))
        except ObjectNotFound:
            continue
        except ValidationError as error:
            raise IntegrityError(
                f"{key} in {store.url} is not what this release writes ({validation_problems(error)[0]}); delete it"
            ) from error
    return sorted(found, key=lambda record: record.time, reverse=True)


def _key(name: str, run: str) -> str:
    return f"{FOLDER}/{name}/{run}/{SEARCH}"
