"""The deployment pipeline: a version that a person chose serves, or the one before does again; and that of an approval."""

from typing import NamedTuple

from kfp import dsl

from components.deploy.component import approve_version, choose_version, conclude_run, deploy_version
from components.validate_serving.component import validate_serving
from pipelines.descriptions import described
from pipelines.steps import MINUTE, RUN_ID, configure, configure_rollout, some, use_signing_key, use_webhook

Outputs = NamedTuple("Outputs", [("version", str), ("outcome", str)])  # noqa: UP014 - kfp reads this form


@dsl.pipeline(
    name="penstock-deployment",
    display_name="Penstock: deploy a version, or go back",
    description="Deploys a chosen model version, or rolls back to the previous one, without training and without the gate.",
)
@described
def deployment_pipeline(
    version: str = "",
    actor: str = "",
    reason: str = "",
    store: str = "s3://penstock",
    name: str = "digits",
    environment: str = "dev",
    target: str = "local",
    namespace: str = "",
    serving: dict = {},  # noqa: B006 - kfp reads the default, nothing changes it
) -> Outputs:
    """Deploy a version that a person chose. The gate is not asked; integrity and serving validation always are.

    1. choose says which version is meant, and refuses a service that is another's.
    2. validate_serving boots the real server on the version and compares its answers.
    3. deploy makes it the champion, or puts back what served before.
    4. However that ends, conclude makes sure that a version which was not seen to serve does not stay, and tells the outcome.
    """
    given = dict(locals())
    choose = choose_version(**given)
    configure(choose, "Choose version", timeout=10 * MINUTE)

    where = some(given, "store", "name", "environment", "actor", "target", "namespace", "serving")
    conclude = conclude_run(version=version, run=RUN_ID, **where)
    use_webhook(configure_rollout(conclude, "Conclude"))

    with dsl.ExitHandler(conclude, name="rollout"):
        validate = validate_serving(version=choose.output, **some(given, "store", "name", "environment"))
        configure(validate, "Validate serving", timeout=30 * MINUTE)

        deploy = deploy_version(version=validate.outputs["Output"], asked=version, reason=reason, run=RUN_ID, **where)
        configure_rollout(deploy, "Deploy", retries=0)

    return Outputs(version=choose.output, outcome=conclude.outputs["Output"])


@dsl.pipeline(
    name="penstock-approval",
    display_name="Penstock: approve a version",
    description="Records that a person approves a model version that awaits it; the deployment pipeline then deploys it by its name.",
)
@described
def approval_pipeline(
    version: str = "",
    actor: str = "",
    reason: str = "",
    store: str = "s3://penstock",
    name: str = "digits",
    environment: str = "prod",
) -> None:
    """Approve a version that awaits it.

    1. approve writes a record about the version's content and the evidence that the gate judged.
    """
    approve = approve_version(**locals(), run=RUN_ID)
    configure(approve, "Approve", timeout=10 * MINUTE)
    use_signing_key(approve)
