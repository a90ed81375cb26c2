"""What every challenger goes through, wherever its model comes from: evaluation, publishing, the gate, and what it decides."""

from typing import Any

from kfp import dsl

from components.deploy.component import conclude_run, deploy_model
from components.evaluate.component import evaluate_model
from components.gate.component import gate_model, record_hold
from components.publish.component import publish_model
from components.validate_serving.component import validate_serving
from pipelines.steps import HOUR, MINUTE, RUN_ID, configure, configure_rollout, some, use_signing_key, use_webhook


def judge(given: dict[str, Any], dataset: Any, model: Any) -> tuple[dsl.PipelineTask, dsl.PipelineTask]:
    """Add the steps from evaluate to gate, for outputs of other steps; returns the tasks publish and gate."""
    where = some(given, "store", "name")
    evaluate = evaluate_model(dataset=dataset, model=model, **where)
    configure(evaluate, "Evaluate", timeout=2 * HOUR)

    publish = publish_model(model=model, evaluation=evaluate.outputs["evaluation"], run=RUN_ID, **where)
    configure(publish, "Publish", timeout=1 * HOUR)
    use_signing_key(publish)

    gate = gate_model(
        evaluation=evaluate.outputs["evaluation"],
        version=publish.outputs["Output"],
        **some(given, "environment", "strategy", "actor", "reason", "policy"),
        **where,
    )
    configure(gate, "Gate", timeout=10 * MINUTE)
    return publish, gate


def conclude_after(given: dict[str, Any]) -> dsl.PipelineTask:
    """Add the step that runs however the others end; it goes into the exit handler."""
    conclude = conclude_run(
        version="", run=RUN_ID, **some(given, "store", "name", "environment", "actor", "target", "namespace", "serving")
    )
    return use_webhook(configure_rollout(conclude, "Conclude"))


def roll_out(given: dict[str, Any], publish: dsl.PipelineTask, gate: dsl.PipelineTask) -> None:
    """Add what follows the gate's decision."""
    with dsl.If(gate.outputs["Output"] == "deploy", name="deploy"):
        validate = validate_serving(version=publish.outputs["Output"], **some(given, "store", "name", "environment"))
        configure(validate, "Validate serving", timeout=30 * MINUTE)
        deploy = deploy_model(
            version=validate.outputs["Output"],
            decision=gate.outputs["decision"],
            run=RUN_ID,
            **some(given, "store", "name", "environment", "strategy", "actor", "reason", "target", "namespace", "serving"),
        )
        configure_rollout(deploy, "Deploy", retries=0)
    with dsl.Else(name="hold"):
        hold = record_hold(
            version=publish.outputs["Output"], decision=gate.outputs["decision"], run=RUN_ID, **some(given, "store", "name", "actor")
        )
        configure(hold, "Hold", timeout=10 * MINUTE)
        use_signing_key(hold)
