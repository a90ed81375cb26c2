"""Checks of the store, and of what serves against what its ledger says."""

import json

from components.doctor.registry import Results, broken, check, ok, warning
from components.doctor.seen import NotSeen, Seen, StoreSeen
from components.lint.values import at


def _store(seen: Seen) -> StoreSeen:
    if seen.store is None:
        raise NotSeen("the store: no --store was given")
    return seen.store


@check()
def store_usable(seen: Seen) -> Results:
    """The store: that its bucket is there and can be listed, and with --write, written and deleted from."""
    store = _store(seen)
    if store.problem:
        what, _, mend = store.problem.rpartition("; ")
        yield broken(what or store.problem, "no version can be published or deployed", mend)
    else:
        yield ok(f"{store.url} can be listed{', written and deleted from' if store.written else '; writing was not tried (--write)'}")


@check()
def buckets_made_unasked(seen: Seen) -> Results:
    """A store that makes missing buckets hides a misspelt name."""
    store = _store(seen)
    if store.made_bucket or "seaweedfs" in store.server.lower():
        yield warning(
            f"the server of {store.url} ({store.server or 'of unknown make'}) makes a missing bucket at the first write",
            "a misspelt bucket is not an error there: versions go into a new one, which KServe's account may not read",
            "give the steps a key that may write to this bucket only, not an administrator's",
        )
    else:
        yield ok(f"the server is {store.server}" if store.server else "nothing says that missing buckets are made")


@check()
def service_agrees_with_ledger(seen: Seen) -> Results:
    """What the InferenceService serves against the champion in the deployment ledger."""
    store = _store(seen)
    if store.problem:
        raise NotSeen("the ledger: the store cannot be read")
    service = seen.find("InferenceService")
    uri = str(at(service, "spec", "predictor", "model", "storageUri") or "")
    name = seen.scope.service
    if service is None or not store.champion:
        yield ok(f"{name} is not deployed" if service is None else "the ledger has no champion")
    elif uri == f"{store.models}{store.champion}/":
        yield ok(f"{name} serves the champion, {store.champion}")
    else:
        patch = json.dumps({"spec": {"predictor": {"model": {"storageUri": f"{store.models}{store.champion}/"}}}})
        yield warning(
            f"{name} serves {uri or 'no model'}; the ledger's champion is {store.champion}",
            "predictions come from a version that nobody recorded; a rollback would go to another one than expected",
            f"kubectl -n {seen.scope.namespace} patch inferenceservice {name} --type merge --patch '{patch}'",
        )
