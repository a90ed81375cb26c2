"""The gate's two steps as Kubeflow sees them: the decision, and the record of a hold."""

from kfp import dsl

from components.step_image import slim_component


@slim_component
def gate_model(
    evaluation: dsl.Input[dsl.Artifact],
    version: str,
    environment: str,
    strategy: str,
    actor: str,
    reason: str,
    store: str,
    name: str,
    decision: dsl.Output[dsl.Markdown],
    report: dsl.Output[dsl.HTML],
    policy: dict = {},  # noqa: B006 - kfp reads the default, nothing changes it
) -> str:
    """Decide by the environment's policy whether a version may serve; returns "deploy", "hold", or "await" where a person must approve.

    Args:
        evaluation: What evaluate wrote; it must be what the version was published with.
        version: The published version.
        decision: The decision and its reasons; its metadata carries them for the next step.
        report: The evaluation's report with the decision at its head.
    """
    from pathlib import Path

    from components.bundle.environment import deciding_environment
    from components.gate.step import judge
    from components.registry import Registry
    from components.report.html import judged_report
    from components.report.markdown import decision_markdown
    from components.storage import open_store

    found = deciding_environment(environment)
    result = judge(evaluation.path, Registry(open_store(store), name), version, found, environment, strategy, actor, reason, policy)
    Path(decision.path).write_text(decision_markdown(result), "utf-8")
    decision.metadata.update(result.for_artifact())
    Path(report.path).write_text(judged_report(evaluation.path, result.model_dump(), version), "utf-8")
    print(f"{result.verdict}: {result.summary}", *result.reasons, *(f"would change it: {line}" for line in result.remedies), sep="\n")
    return "hold" if not result.deploy else "await" if found.deployment.approval == "required" else "deploy"


@slim_component
def record_hold(
    version: str,
    decision: dsl.Input[dsl.Markdown],
    store: str,
    name: str,
    actor: str,
    run: str,
) -> str:
    """Record that a version was held, or awaits approval, and why; the champion goes on serving. Returns "held" or "awaiting"."""
    from components.bundle.decision import read_decision
    from components.registry import Ledger
    from components.storage import open_store

    record = Ledger(open_store(store), name).hold(read_decision(decision.metadata, version), actor, run)
    if record.action == "awaiting":
        print(f"note: `penstock models approve {version} --env {record.environment}`, or the approval pipeline, lets it through")
    print(f"{version} is {record.action} (record {record.sequence}): {record.reason}")
    return record.action
