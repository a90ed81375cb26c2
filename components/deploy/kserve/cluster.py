"""The Kubernetes API as the rollout needs it: bounded time, retries of passing failures, and errors that name the remedy.

The kinds are written out below: discovery would cost requests without a deadline.
"""

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

import urllib3
from kubernetes import client
from kubernetes.client.rest import ApiException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.resource import Resource
from tenacity import RetryCallState, RetryError, Retrying, TryAgain, retry_if_exception, retry_never, stop_after_delay, wait_fixed

from components.classifier.errors import RolloutError, UsageError, one_line
from components.deploy.kserve.service import MANAGER, Object
from components.doctor.gather import client_configuration, message_of

REQUEST_SECONDS = (5.0, 10.0)
"""To connect, and to wait for an answer."""
PATIENCE_SECONDS = 60.0
"""How long one request is tried again while the API server answers 429 or 5xx, or not at all."""
DELETION_SECONDS = 60.0
"""How long a deleted object may take to go."""
_PASSING = {429, 500, 502, 503, 504}
_MAX_WAIT_SECONDS = 8.0

_KINDS = {
    "InferenceService": ("apis", "serving.kserve.io", "v1beta1", "inferenceservices"),
    "Deployment": ("apis", "apps", "v1", "deployments"),
    "ReplicaSet": ("apis", "apps", "v1", "replicasets"),
    "Pod": ("api", "", "v1", "pods"),
    "Event": ("api", "", "v1", "events"),
}
RESOURCES = {
    kind: Resource(prefix=prefix, group=group, api_version=version, kind=kind, namespaced=True, name=name)
    for kind, (prefix, group, version, name) in _KINDS.items()
}


class Stale(RolloutError):
    """The object was changed, made or deleted since it was read."""


class FieldsTaken(RolloutError):
    """Another tool owns fields that we would set."""


class Unreachable(RolloutError):
    """The API server gave no usable answer within PATIENCE_SECONDS."""


class Refused(RolloutError):
    """The API server or KServe's webhook rejects the object or the account; trying again cannot help."""


class Cluster:
    """One namespace of a cluster, with the rights of the process: its pod's account, or KUBECONFIG's."""

    def __init__(self, namespace: str, api: client.ApiClient) -> None:
        self.namespace = namespace
        self._dynamic = DynamicClient(api, discoverer=lambda *_: None)
        self._retrying = Retrying(stop=stop_after_delay(PATIENCE_SECONDS), wait=_wait, retry=retry_if_exception(_passes), reraise=True)

    def find(self, kind: str, name: str) -> Object | None:
        """Return an object, or None."""
        return self._ask(lambda: self._dynamic.get(RESOURCES[kind], name, self.namespace, **_limits()), missing=True)

    def find_settled(self, kind: str, name: str) -> Object | None:
        """Return an object that is not being deleted, or None once it is gone; raises RolloutError when it does not go in time."""

        def look() -> Object | None:
            live = self.find(kind, name)
            if live is not None and "deletionTimestamp" in live["metadata"]:
                raise TryAgain
            return live

        try:
            return Retrying(retry=retry_never, stop=stop_after_delay(DELETION_SECONDS), wait=wait_fixed(1))(look)
        except RetryError as error:
            raise RolloutError(f"{name} is being deleted and does not go; look at its finalizers, and at KServe's controller") from error

    def all(self, kind: str, labels: str = "", fields: str = "") -> list[Object]:
        """Return the objects of a kind that a label and a field selector choose."""
        answer = self._ask(
            lambda: self._dynamic.get(
                RESOURCES[kind], None, self.namespace, label_selector=labels or None, field_selector=fields or None, **_limits()
            )
        )
        return list((answer or {}).get("items", []))

    def create(self, wanted: Object) -> Object:
        """Make an object that must not be there yet; raises Stale when it is."""
        resource = RESOURCES[wanted["kind"]]
        return self._ask_for_object(lambda: self._dynamic.create(resource, wanted, self.namespace, **_strict(), field_manager=MANAGER))

    def apply(self, wanted: Object, *, force: bool = False) -> Object:
        """Apply an object on the server, by our field manager.

        Raises Stale when its resourceVersion is old, FieldsTaken when another manager owns a field and `force` is not set.
        """
        resource = RESOURCES[wanted["kind"]]
        return self._ask_for_object(
            lambda: self._dynamic.server_side_apply(
                resource, wanted, wanted["metadata"]["name"], self.namespace, force_conflicts=force, **_strict(), field_manager=MANAGER
            )
        )

    def patch(self, kind: str, name: str, operations: list[Object]) -> Object:
        """Apply a JSON patch."""
        content = {"content_type": "application/json-patch+json"}
        return self._ask_for_object(lambda: self._dynamic.patch(RESOURCES[kind], operations, name, self.namespace, **content, **_strict()))

    def delete(self, live: Object) -> None:
        """Delete an object as it was read; raises Stale when it was changed since. One that is gone already is not an error."""
        metadata = live["metadata"]
        conditions = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        body = {"preconditions": conditions, "propagationPolicy": "Background"}
        resource = RESOURCES[live["kind"]]
        self._ask(lambda: self._dynamic.delete(resource, metadata["name"], self.namespace, body=body, **_limits()), missing=True)

    def log(self, pod: str, container: str, *, previous: bool, lines: int = 20) -> str:
        """Return the end of a container's log; empty when it cannot be read."""
        query = [("container", container), ("tailLines", str(lines)), ("previous", str(previous).lower())]
        path = f"{RESOURCES['Pod'].path(name=pod, namespace=self.namespace)}/log"
        try:
            answer = self._dynamic.request("get", path, query_params=query, serialize=False, **_limits())
        except (ApiException, urllib3.exceptions.HTTPError):
            return ""  # the container's state says the reason too, the log only more
        return bytes(answer.data).decode("utf-8", "replace")

    def _ask_for_object(self, call: Callable[[], Any]) -> Object:
        answer = self._ask(call)
        if answer is None:
            raise Unreachable("the API server answered without an object; run again")
        return answer

    def _ask(self, call: Callable[[], Any], *, missing: bool = False) -> Object | None:
        try:
            answer = self._retrying(call)
        except ApiException as error:
            if error.status == 404 and missing and _is_object(error):
                return None
            _raise_explained(error, self.namespace)
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"the API server does not answer ({one_line(error)}); the rollout can be run again") from error
        found: Object = answer.to_dict()
        return found


def connect(namespace: str) -> Cluster:
    """Open the cluster of this process: the pod's own, or KUBECONFIG's; raises UsageError where there is none."""
    try:
        settings = client_configuration()
    except UsageError as error:
        raise UsageError(f"target kserve needs a cluster; {error}") from error
    settings.retries = urllib3.Retry(0, redirect=0)  # _retrying has a deadline and knows which errors pass
    return Cluster(namespace, client.ApiClient(settings))


def _limits() -> dict[str, Any]:
    return {"_request_timeout": REQUEST_SECONDS}


def _strict() -> dict[str, Any]:
    return {**_limits(), "query_params": [("fieldValidation", "Strict")]}


def _passes(error: BaseException) -> bool:
    if isinstance(error, ApiException):
        return error.status in _PASSING and not _about_spec(message_of(error, 600))
    return isinstance(error, urllib3.exceptions.HTTPError)


def _wait(state: RetryCallState) -> float:
    """Seconds until the next try: the server's Retry-After, or twice as long each time."""
    error = state.outcome.exception() if state.outcome else None
    asked = (error.headers or {}).get("Retry-After", "") if isinstance(error, ApiException) else ""
    backoff = 0.25 * 2 ** min(state.attempt_number, 5)
    return float(min(max(float(asked), backoff) if asked.isdigit() else backoff, _MAX_WAIT_SECONDS))


def _raise_explained(error: ApiException, namespace: str) -> NoReturn:
    """Raise what an answer of the API server means."""
    message = message_of(error, 600)
    if error.status == 409:
        if "FieldManagerConflict" in str(error.body):
            raise FieldsTaken(
                f"another tool owns what the rollout must set ({message}); delete the InferenceService or let that tool leave the fields, "
                "or set serving.take_over"
            ) from error
        raise Stale(message) from error
    if _about_spec(message) or error.status in {400, 422}:
        raise Refused(f"the InferenceService was refused: {message}; nothing was changed") from error
    if error.status == 401:
        raise Refused("the API server does not know this account (401); the token is wrong or has expired") from error
    if error.status == 403:
        raise Refused(_forbidden(message, namespace)) from error
    if error.status == 404 and not _is_object(error):
        raise Refused("the cluster does not know InferenceServices of serving.kserve.io/v1beta1; install KServe") from error
    if error.status in _PASSING:
        raise Unreachable(f"the API server goes on answering {error.status} ({message}); the rollout can be run again") from error
    raise Refused(f"the API server answered {error.status}: {message}") from error


def _forbidden(message: str, namespace: str) -> str:
    found = re.search(r'User "([^"]+)" cannot (\w+) resource "([^"]+)"', message)
    if not found:
        return f"the API server forbids it in namespace {namespace}: {message}"
    account, verb, resource = found.groups()
    whose = account.removeprefix("system:serviceaccount:")
    subject = f"--serviceaccount={whose}" if whose != account else f"--user={account}"
    return (
        f"{account} may not {verb} {resource} in namespace {namespace}; an administrator gives the right with "
        f"`kubectl -n {namespace} create rolebinding penstock-{whose.replace(':', '-')} --role=penstock-deployer {subject}`; "
        "the Role is in manifests/base/deployer-role.yaml"
    )


def _about_spec(message: str) -> bool:
    """Whether an answer, whatever its status, is about the object: the schema's refusal is a 500, the webhook's a 403."""
    return any(sign in message for sign in ("field not declared in schema", "denied the request", "strict decoding error"))


def _is_object(error: ApiException) -> bool:
    """Whether a 404 is about an object, and not about the kind or the path."""
    try:
        return bool(json.loads(error.body).get("details", {}).get("name"))
    except (ValueError, AttributeError):
        return False
