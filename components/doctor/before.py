"""The checks that the deploy step runs before it changes anything, and preflight before anything is trained."""

from components.classifier.errors import RolloutError, UsageError
from components.doctor.gather import gather
from components.doctor.registry import State
from components.doctor.report import examine
from components.doctor.seen import Scope
from components.settings.serving import KServeSettings

_READ = (
    "API groups",
    "KServe kinds",
    "KServe controller",
    "InferenceService",
    "ServingRuntime",
    "ClusterServingRuntime",
    "predictor's account",
)


def refuse_what_breaks(settings: KServeSettings, service: str) -> str:
    """Examine the cluster by this process' own account, as a deployment of `service` needs it; returns a line that counts.

    What the account may not read is passed over, and so is a cluster that does not answer: the deployment itself reports that.
    Raises RolloutError, naming all that would break.
    """
    try:
        seen = gather(Scope.of(settings, service, settings.namespace), names=_READ)
    except UsageError as error:
        return f"the cluster was not examined: {error}"
    results = examine(seen, "deploy")
    if wrong := [f"{it.saw} ({it.breaks})" for it in results if it.state == State.BROKEN]:
        command = f"penstock doctor --namespace {settings.namespace}"
        command += f" --service-account {seen.scope.account}" if seen.scope.account else ""
        raise RolloutError(f"{'; '.join(wrong)}; nothing was changed. `{command}` prints the commands that mend it")
    unseen = sum(it.state == State.NOT_SEEN for it in results)
    return f"the cluster: {len(results) - unseen} checks passed, {unseen} could not be made with this account's rights"
