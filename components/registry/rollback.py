"""Roll back: the version that served before serves again. The rule is written in ledger.py."""

from components.classifier.errors import IntegrityError, RegistryError, UsageError
from components.registry.ledger import Record, deployments
from components.registry.registry import Registry


def rollback(registry: Registry, *, to: str = "", actor: str = "", reason: str = "", run: str = "") -> Record:
    """Make the previous champion, or the version `to`, the champion of the local target; returns the ledger's record.

    Where that version serves already, nothing is recorded and the last record is returned. Raises RegistryError when nothing
    lies under the champion, IntegrityError when the version's files are damaged, UsageError when the champion serves on a
    cluster, where only the deployment pipeline changes what serves, and LedgerConflict when another record came meanwhile.
    """
    records = registry.ledger.records()
    stack = deployments(records)
    if not stack:
        raise RegistryError(f"nothing of {registry.name} has been deployed in {registry.store.url}, so there is nothing to roll back")
    if to:
        version = registry.resolve(to)
    elif len(stack) > 1:
        version = registry.get(stack[-2]).version
    else:
        raise RegistryError(f"nothing was deployed before the champion {stack[-1]}; name a version with `--to`")
    if version == stack[-1]:
        return records[-1]
    serving = next(record for record in reversed(records) if record.action in {"deployed", "rolled_back"})
    if serving.target != "local":
        asked = version if to else "previous"
        raise UsageError(
            f"champion {stack[-1]} serves on {serving.target}; run "
            f"`penstock submit deployment --host URL --set version={asked} --set target={serving.target} --set namespace=NAMESPACE "
            f"--set store={registry.store.url} --set name={registry.name} --set actor={actor or 'YOU'} --set reason=WHY`, "
            "which waits until the cluster serves it and then writes the ledger"
        )
    if problems := registry.verify(version):
        raise IntegrityError(f"version {version} cannot serve: {'; '.join(problems)}; roll back to another one with `--to`")
    draft = Record(
        action="rolled_back",
        version=version,
        strategy="rollback",
        target=serving.target,
        environment=serving.environment,
        actor=actor,
        reason=reason,
        run=run,
    )
    return registry.ledger.append(draft, after=len(records))
