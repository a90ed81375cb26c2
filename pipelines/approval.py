"""The approval pipeline: a person lets a version that the gate passed go on to where an approval is asked for."""

from kfp import dsl

from components.deploy.component import approve_version
from pipelines.descriptions import described
from pipelines.steps import MINUTE, RUN_ID, configure, use_signing_key


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
