"""Looks at the cluster before any work: what would break a deployment, and whose model the InferenceService serves by now.

The Kubernetes client takes a second to import, so it is imported where it is used.
"""

from collections.abc import Mapping
from typing import Any

from components.classifier.errors import RolloutError, UsageError, first_line
from components.doctor.registry import State
from components.doctor.report import examine
from components.doctor.seen import Scope
from components.registry import Registry
from components.settings.serving import KServeSettings, check_owner
from components.storage import open_store

_READ = (
    "API groups",
    "KServe kinds",
    "KServe controller",
    "InferenceService",
    "ServingRuntime",
    "ClusterServingRuntime",
    "predictor's account",
)

_SECONDS = (3.0, 5.0)
"""To connect, and to wait for an answer."""


def refuse_what_breaks(settings: KServeSettings, service: str) -> str:
    """Examine the cluster by this process' own account, as a deployment of `service` needs it; returns a line that counts.

    What the account may not read is passed over, and so is a cluster that does not answer: the deployment itself reports that.
    Raises RolloutError, naming all that would break.
    """
    from components.doctor.gather import gather

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


def check_service(given: Mapping[str, Any]) -> str:
    """Say what the service of a run with target kserve serves; nothing for another target.

    Raises UsageError when that is of another store or name, and StoreError. A cluster that cannot be asked, or an account that may
    not ask, is said and is not an error: the deploy step asks again before it changes anything.
    """
    if given["target"] != "kserve":
        return ""
    settings = KServeSettings.read(given["serving"], given["namespace"])
    service = settings.service_name(given["name"])
    serves, problem = _address(settings.namespace, service)
    if problem:
        return f"service: {service} in {settings.namespace} cannot be looked at: {problem}"
    registry = Registry(open_store(given["store"]), given["name"])
    models = registry.uri("").rstrip("/") + "/"
    champion, none = registry.ledger.champion() or "", next(registry.newest(), None) is None
    check_owner(service, serves, models, champion, settings.take_over)
    empty = f", but {registry.store.url} holds no version of {registry.name}: is the store's address right?" if serves and none else ""
    return f"service: {service} in {settings.namespace} serves {serves or 'nothing yet'}{empty}"


def _address(namespace: str, service: str) -> tuple[str, str]:
    """Return where the service's model comes from (empty: no service, or no model), and why that cannot be known."""
    from kubernetes import client
    from urllib3.exceptions import HTTPError

    from components.doctor.gather import client_configuration

    try:
        api = client.CustomObjectsApi(client.ApiClient(client_configuration()))
        live = api.get_namespaced_custom_object(
            "serving.kserve.io", "v1beta1", namespace, "inferenceservices", service, _request_timeout=_SECONDS
        )
    except client.ApiException as error:
        return "", "" if error.status == 404 else f"the API server answers {error.status}"
    except (UsageError, HTTPError, OSError) as error:
        return "", first_line(error)
    return str(live["spec"]["predictor"].get("model", {}).get("storageUri") or ""), ""
