"""The deploy step as Kubeflow sees it."""

from kfp import dsl

from components.step_image import slim_component


@slim_component
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
    from components.bundle.environment import deciding_environment
    from components.deploy.request import DeployRequest
    from components.deploy.step import deploy
    from components.registry import Registry
    from components.storage import open_store

    judged, found = read_decision(decision.metadata, version), deciding_environment(environment)
    request = DeployRequest(
        version, strategy, judged, environment, actor, reason, target, namespace, run, serving, found.serving.variables(),
        rules=found.deployment,
    )  # fmt: skip
    outcome = deploy(Registry(open_store(store), name), request)
    print(f"{version}: {outcome}")
    return outcome


@slim_component
def choose_version(
    version: str,
    store: str,
    name: str,
    environment: str,
    actor: str,
    reason: str,
    target: str,
    namespace: str,
    serving: dict = {},  # noqa: B006 - kfp reads the default, nothing changes it
) -> str:
    """Return the version to deploy, after checking that the request is allowed, and that the service is not another's.

    Args:
        version: A version's name, or previous: the one before the champion.
    """
    from components.deploy.step import select_version
    from components.doctor.before import check_service

    chosen = select_version(version, store, name, environment, actor, reason, target, serving)
    if said := check_service({"store": store, "name": name, "target": target, "namespace": namespace, "serving": serving}):
        print(said)
    return chosen


@slim_component
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
    """Make a version that a person chose the one that serves; returns "deployed", "unchanged" or "held" as deploy_model does.

    Args:
        version: The version that passed serving validation.
        asked: What the person asked for: previous is recorded as a rollback, what was approved by the gate's strategy.
        run: The run's id, by which a repeated step finds what it did.
    """
    from components.deploy.step import deploy, named_request
    from components.registry import Registry
    from components.storage import open_store

    registry = Registry(open_store(store), name)
    where = {"target": target, "namespace": namespace, "run": run, "serving": serving}
    request = named_request(registry, version, asked.strip(), environment, actor=actor, reason=reason, **where)
    outcome = deploy(registry, request)
    print(f"{version}: {outcome}")
    return outcome


@slim_component
def approve_version(version: str, store: str, name: str, environment: str, actor: str, reason: str, run: str) -> str:
    """Record that a person approves a version for an environment; returns "approved".

    Args:
        version: The version that awaits approval.
        run: The run's id, by which a repeated step finds what it did.
    """
    from components.deploy.permission import approve
    from components.registry import Registry
    from components.storage import open_store

    registry = Registry(open_store(store), name)
    record = approve(registry, version.strip(), environment=environment, actor=actor, reason=reason, run=run)
    print(f"{record.version} is approved for {record.environment} by {record.actor} (record {record.sequence}); deploy it by its name")
    return "approved"


@slim_component
def conclude_run(
    status: dsl.PipelineTaskFinalStatus,
    summary: dsl.Output[dsl.Markdown],
    version: str,
    store: str,
    name: str,
    environment: str,
    actor: str,
    target: str,
    namespace: str,
    run: str,
    serving: dict = {},  # noqa: B006 - kfp reads the default, nothing changes it
) -> str:
    """Put back what served before where the deploy step was cut off, and tell people the outcome, which is returned.

    Args:
        status: How the steps before ended, from Kubeflow.
        summary: The outcome as a page.
        version: What was asked for; empty: what the run published.
        run: The run's id, by which its records are found.
    """
    from pathlib import Path

    from components.deploy.conclusion import conclude_and_notify
    from components.deploy.request import DeployRequest
    from components.registry import Registry
    from components.storage import open_store

    request = DeployRequest(version.strip(), "manual", None, environment, actor, "", target, namespace, run, serving)
    outcome = conclude_and_notify(Registry(open_store(store), name), request, status.state)
    Path(summary.path).write_text(outcome.markdown(), "utf-8")
    return outcome.decision
