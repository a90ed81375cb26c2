"""The deploy step as Kubeflow sees it."""

from kfp import dsl

from components.step_image import component


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
    serving: dict = {},  # noqa: B006 - kfp reads the default, nothing changes it
) -> str:
    """Make a version the one that serves; returns "deployed", "unchanged" when it serves already, or "held" when it was overtaken.

    Args:
        version: The version that passed the gate and serving validation.
        decision: The gate's decision, which the deployment ledger keeps.
        run: The run's id, by which a repeated step finds what it did.
    """
    from components.bundle.decision import read_decision
    from components.bundle.environment import load_environment
    from components.deploy.request import DeployRequest
    from components.deploy.step import deploy
    from components.registry import Registry
    from components.storage import open_store

    judged = read_decision(decision.metadata, version)
    variables = load_environment(environment).serving.variables()
    request = DeployRequest(version, strategy, judged, environment, actor, reason, target, namespace, run, serving, variables)
    outcome = deploy(Registry(open_store(store), name), request)
    print(f"{version}: {outcome}")
    return outcome


@component
def choose_version(
    version: str,
    store: str,
    name: str,
    environment: str,
    actor: str,
    reason: str,
    target: str,
    serving: dict = {},  # noqa: B006 - kfp reads the default, nothing changes it
) -> str:
    """Return the version to deploy, after checking that the request is allowed.

    Args:
        version: A version's name, or previous: the one before the champion.
    """
    from components.bundle.environment import load_environment
    from components.deploy.step import select_version

    load_environment(environment)
    return select_version(version, store, name, actor, reason, target, serving)


@component
def deploy_version(
    version: str,
    asked: str,
    store: str,
    name: str,
    environment: str,
    actor: str,
    reason: str,
    target: str,
    namespace: str,
    run: str,
    serving: dict = {},  # noqa: B006 - kfp reads the default, nothing changes it
) -> str:
    """Make a version that a person chose the one that serves; returns "deployed" or "unchanged".

    Args:
        version: The version that passed serving validation.
        asked: What the person asked for: previous is recorded as a rollback.
        run: The run's id, by which a repeated step finds what it did.
    """
    from components.bundle.environment import load_environment
    from components.deploy.request import DeployRequest
    from components.deploy.step import deploy, strategy_of
    from components.registry import Registry
    from components.storage import open_store

    variables = load_environment(environment).serving.variables()
    strategy = strategy_of(asked)
    request = DeployRequest(version, strategy, None, environment, actor, reason, target, namespace, run, serving, variables, asked.strip())
    outcome = deploy(Registry(open_store(store), name), request)
    print(f"{version}: {outcome}")
    return outcome
