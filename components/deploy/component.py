"""The deploy step as Kubeflow sees it."""

from kfp import dsl

from components.image import component


@component
def deploy_model(
    version: str,
    decision: dsl.Input[dsl.Markdown],
    store: str,
    name: str,
    environment: str,
    strategy: str,
    actor: str,
    reason: str,
    target: str,
    namespace: str,
    run: str,
) -> str:
    """Make a version the one that serves; returns "deployed", or "unchanged" when it serves already.

    Args:
        version: The version that passed the gate and serving validation.
        decision: The gate's decision, which the deployment ledger keeps.
        store: Address of the model store.
        name: The model's name.
        environment: Whose policy decided.
        strategy: quality or force.
        actor: Who asked for this.
        reason: Why a deployment is forced.
        target: local: a record in the deployment ledger, which `penstock serve` follows.
        namespace: Where a cluster target deploys to.
        run: The run's id, by which a repeated step finds what it did.
    """
    from components.deploy.request import DeployRequest
    from components.deploy.targets import deploy
    from components.gate.judge import read_decision
    from components.registry import Registry
    from components.storage import open_store

    judged = read_decision(decision.metadata, version)
    request = DeployRequest(version, strategy, judged, environment, actor, reason, target, namespace, run)
    outcome = deploy(Registry(open_store(store), name), request)
    print(f"{version}: {outcome}")
    return outcome
