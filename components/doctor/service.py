"""Looks, before any work, at the InferenceService that a run would change, where the run's account can."""

from collections.abc import Mapping
from typing import Any

from components.classifier.errors import UsageError, first_line
from components.registry import Registry
from components.settings.serving import KServeSettings, check_owner
from components.storage import open_store

_SECONDS = (3.0, 5.0)
"""To connect, and to wait for an answer."""


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
