"""The gate's two steps as Kubeflow sees them: the decision, and the record of a hold."""

from kfp import dsl

from components.step_image import component


@component
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
    """Decide by the environment's policy whether a version may serve; returns "deploy" or "hold".

    Args:
        evaluation: What evaluate wrote; it must be what the version was published with.
        version: The published version.
        decision: The decision and its reasons; its metadata carries them for the next step.
        report: The evaluation's report with the decision at its head.
    """
    from pathlib import Path

    from components.bundle.environment import load_environment
    from components.gate.step import judge
    from components.registry import Registry
    from components.report.markdown import decision_markdown
    from components.report.published_report import judged_report
    from components.storage import open_store

    rules = load_environment(environment).policy.override(policy)
    result = judge(evaluation.path, Registry(open_store(store), name), version, rules, environment, strategy, actor, reason)
    Path(decision.path).parent.mkdir(parents=True, exist_ok=True)
    Path(decision.path).write_text(decision_markdown(result), "utf-8")
    decision.metadata.update(result.for_artifact())
    Path(report.path).write_text(judged_report(evaluation.path, result.model_dump(), version), "utf-8")
    print(f"{result.verdict}: {result.summary}", *result.reasons, *(f"would change it: {line}" for line in result.remedies), sep="\n")
    return "deploy" if result.deploy else "hold"


@component
def record_hold(
    version: str,
    decision: dsl.Input[dsl.Markdown],
    store: str,
    name: str,
    actor: str,
    run: str,
) -> str:
    """Record in the deployment ledger that a version was held, and why; the champion goes on serving. Returns "held"."""
    from components.bundle.decision import read_decision
    from components.registry import Ledger
    from components.storage import open_store

    record = Ledger(open_store(store), name).hold(read_decision(decision.metadata, version), actor, run)
    print(f"{version} is held (record {record.sequence}): {record.reason}")
    return "held"
