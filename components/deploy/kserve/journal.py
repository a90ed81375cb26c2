"""What to go back to, kept in the store while a rollout is under way, so that one that was killed can still be undone.

`rollouts/NAME/UID-GENERATION.json`: the spec that served before the InferenceService `UID` came to that generation. It is
written before the apply that makes the generation. Two deployers at once write the same, since a generation has only one
before it; so the first one written is right. It is not a lock: that is the InferenceService's resourceVersion.
"""

import json

from components.classifier.errors import ObjectExists, ObjectNotFound, RegistryError
from components.deploy.kserve.service import Object
from components.registry import Registry


class Journal:
    """The journal of one model name."""

    def __init__(self, registry: Registry) -> None:
        self._store, self._prefix = registry.store, f"rollouts/{registry.name}"

    def write(self, live: Object, stable: Object | None, run: str = "") -> None:
        """Note what to go back to from the generation after `live` (None: to nothing), and the run that makes it."""
        try:
            self._store.create(self._key(live, 1), json.dumps({"stable": stable, "run": run}, indent=1, sort_keys=True).encode())
        except ObjectExists:
            return

    def known(self, live: Object) -> bool:
        """Say whether a rollout made the generation of `live`."""
        return self._store.exists(self._key(live, 0))

    def stable(self, live: Object) -> Object | None:
        """Return what to go back to from `live`, whose generation is known."""
        stable: Object | None = self._entry(live).get("stable")
        return stable

    def run_of(self, live: Object) -> str:
        """Return the run that made the generation of `live`; empty where none is noted."""
        return str(self._entry(live).get("run", ""))

    def _entry(self, live: Object) -> Object:
        key = self._key(live, 0)
        try:
            entry: Object = json.loads(self._store.read(key))
            entry["stable"]
        except ObjectNotFound:
            return {}
        except (ValueError, KeyError) as error:
            raise RegistryError(f"{self._store.url}/{key} cannot be read; delete it, then deploy the version that should serve") from error
        return entry

    def _key(self, live: Object, later: int) -> str:
        metadata = live["metadata"]
        return f"{self._prefix}/{metadata['uid']}-{metadata['generation'] + later}.json"
