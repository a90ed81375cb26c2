"""The local target: a version serves once the deployment ledger says so; `penstock serve` follows it."""

from components.bundle.environment import Deployment, load_environment
from components.classifier.errors import IntegrityError, RegistryError, UsageError
from components.deploy.permission import refuse_forbidden
from components.deploy.request import PREVIOUS, DeployRequest
from components.integrations import steps
from components.integrations.observe import observed
from components.registry import Record, Registry
from components.registry.ledger import champion_of


def deploy_local(registry: Registry, request: DeployRequest) -> str:
    """Make a version the champion; returns "deployed", or "unchanged" when it serves already or this run deployed it before.

    Raises IntegrityError for a damaged version, VersionNotFound for one that was deleted, and Overtaken or RolloutError when the
    request is stale: a version must not replace one that it was never compared with.
    """
    registry.require_intact(request.version)
    return "deployed" if _record(registry, request) else "unchanged"


@observed(steps.rollback)
def rollback(registry: Registry, *, to: str = "", actor: str = "", reason: str = "") -> Record:
    """Make the version before the champion, or the version `to`, the champion of the local target; returns the ledger's record.

    Where that version serves already, nothing is recorded and the last record is returned. Raises RegistryError when nothing
    was deployed before the champion, IntegrityError when the version's files are damaged, UsageError when the champion serves
    on a cluster, where only the deployment pipeline changes what serves, or when `to` never served in the champion's environment and
    may not be deployed there, and RolloutError when the champion changed meanwhile.
    """
    serving = registry.ledger.deployment()
    if serving is None:
        raise RegistryError(f"nothing of {registry.name} has been deployed in {registry.store.url}, so there is nothing to roll back")
    asked = to or PREVIOUS
    version = registry.resolve(asked)
    if version == serving.champion:
        return registry.ledger.records()[-1]
    if serving.target != "local":
        raise UsageError(
            f"champion {serving.champion} serves on {serving.target}; run "
            f"`penstock submit deployment --host URL --set version={version if to else PREVIOUS} --set target={serving.target} "
            f"--set namespace=NAMESPACE --set store={registry.store.url} --set name={registry.name} --set actor={actor or 'YOU'} "
            "--set reason=WHY`, which waits until the cluster serves it and then writes the ledger"
        )
    environment = serving.environment
    rules = load_environment(environment).deployment if to and environment else Deployment()
    request = DeployRequest(version, "rollback", environment=environment, actor=actor, reason=reason, asked=asked, rules=rules)
    refuse_forbidden(request, registry.ledger.records(), registry.get(version).manifest.checksum)
    try:
        registry.require_intact(version)
    except IntegrityError as error:
        raise IntegrityError(f"{error}, by `penstock models rollback --to VERSION`") from error
    return _record(registry, request) or registry.ledger.records()[-1]


def _record(registry: Registry, request: DeployRequest) -> Record | None:
    """Append the record that makes an intact version the champion; None when there is nothing to change.

    Raises RegistryError where the version was deleted while the record was written, beside what the callers name.
    """

    def decide(records: list[Record]) -> Record | None:
        if champion_of(records) == request.version or request.recorded(records):
            return None
        request.refuse_stale(records)
        registry.get(request.version)  # it may have been deleted while its files were hashed, which can take long
        return request.draft()

    record = registry.ledger.append_if(decide)
    if record is not None and registry.find(request.version) is None:
        raise RegistryError(
            f"{request.version} was deleted while it became the champion, which it is now: publish it again, or go back by "
            "`penstock models rollback`"
        )
    return record
