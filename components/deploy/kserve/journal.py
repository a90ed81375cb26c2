"""What to go back to, kept in the store while a rollout is under way, so that one that was killed can still be undone.

`rollouts/NAME/UID-GENERATION.json`: the spec that served before the InferenceService `UID` came to that generation. It is
written before the apply that makes the generation. Two deployers at once write the same, since a generation has only one
before it; so the first one written is right. It is not a lock: that is the InferenceService's resourceVersion.

What is noted is applied with the deployer's rights, so it is signed as ledger records are: who can write to the store, and has no
key, cannot have a spec of their own applied. The signature covers the address too, so that no entry stands in for another.
"""

import json

from components.classifier.errors import IntegrityError, ObjectExists, ObjectNotFound, RegistryError
from components.deploy.kserve.service import Object
from components.registry import Registry
from components.registry.manifest import MAX_BYTES
from components.registry.signing import require_signature, sign


class Journal:
    """The journal of one model name."""

    def __init__(self, registry: Registry) -> None:
        self._store, self._prefix = registry.store, f"rollouts/{registry.name}"

    def write(self, live: Object, stable: Object | None, run: str = "") -> None:
        """Note what to go back to from the generation after `live` (None: to nothing), and the run that makes it.

        Raises IntegrityError where a public key is configured and the entry that is there is not signed with its key.
        """
        key, entry = self._key(live, 1), {"stable": stable, "run": run}
        signed = entry | {"signature": sign(_signed(key, entry))}
        try:
            self._store.create(key, json.dumps(signed, indent=1, sort_keys=True).encode())
        except ObjectExists:
            self._entry(key)

    def known(self, live: Object) -> bool:
        """Say whether a rollout made the generation of `live`."""
        return self._store.exists(self._key(live, 0))

    def stable(self, live: Object) -> Object | None:
        """Return what to go back to from `live`, whose generation is known."""
        stable: Object | None = self._entry(self._key(live, 0)).get("stable")
        return stable

    def run_of(self, live: Object) -> str:
        """Return the run that made the generation of `live`; empty where none is noted."""
        return str(self._entry(self._key(live, 0)).get("run", ""))

    def _entry(self, key: str) -> Object:
        where = f"{self._store.url}/{key}"
        try:
            entry: Object = json.loads(self._store.read(key, MAX_BYTES))
            noted: Object = {"stable": entry["stable"]} | ({"run": entry["run"]} if "run" in entry else {})
        except ObjectNotFound:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            raise RegistryError(f"{where} cannot be read; {_REMEDY}") from error
        try:
            require_signature(_signed(key, noted), entry.get("signature"), where)
        except IntegrityError as error:
            raise IntegrityError(f"{error}; {_REMEDY}") from error
        return noted

    def _key(self, live: Object, later: int) -> str:
        metadata = live["metadata"]
        return f"{self._prefix}/{metadata['uid']}-{metadata['generation'] + later}.json"


_REMEDY = "delete it, then deploy the version that should serve"


def _signed(key: str, entry: Object) -> bytes:
    return json.dumps({"key": key, **entry}, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
