"""Reads a cluster once, and changes nothing: GET requests, and questions about rights, which Kubernetes takes as POST."""

import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.rest import ApiException
from kubernetes.config import ConfigException

from components.classifier.errors import UsageError, one_line
from components.doctor.seen import DEPLOY_RIGHTS, RUN_RIGHTS, STEPS_SECRET, Object, Right, Scope, Seen, StoreSeen, Unseen
from components.lint.values import at
from components.settings.serving import clean_token

SECONDS = (3.0, 10.0)
"""For connecting, and for an answer to come."""
_KSERVE, _KUBEFLOW = "kserve", "kubeflow"


def client_configuration() -> client.Configuration:
    """Return how this process reaches its cluster: by the pod's own account, or by KUBECONFIG; raises UsageError where there is neither."""
    settings = client.Configuration()
    try:
        try:
            config.load_incluster_config(client_configuration=settings)
        except ConfigException:  # the client keeps the value that the variable had when it was imported
            config.load_kube_config(os.environ.get("KUBECONFIG") or None, client_configuration=settings)
    except (ConfigException, OSError) as error:
        reason = one_line(error)
        raise UsageError(f"there is neither a pod's account nor a usable KUBECONFIG ({reason}); set KUBECONFIG") from error
    return settings


class Reader:
    """The API server by the account that this process has: a pod's own, or KUBECONFIG's."""

    def __init__(self) -> None:
        settings = client_configuration()
        settings.retries = urllib3.Retry(1, redirect=0)
        self._api = client.ApiClient(settings)
        self.host = settings.host
        self.clock_seconds: float | None = None

    def get(self, path: str) -> Object | Unseen | None:
        """An object or a list; None when there is none."""
        return self._ask("GET", path)

    def may(self, account: str, right: Right) -> bool | Unseen:
        """Whether an account (NAMESPACE:NAME; empty: this one) has a right."""
        namespace, verb, group, resource = right
        resource, _, subresource = resource.partition("/")
        attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": resource, "subresource": subresource}
        spec: Object = {"resourceAttributes": attributes}
        kind = "SelfSubjectAccessReview"
        if account:
            owner, _, _ = account.partition(":")
            groups = ["system:serviceaccounts", f"system:serviceaccounts:{owner}", "system:authenticated"]
            spec |= {"user": f"system:serviceaccount:{account}", "groups": groups}
            kind = "SubjectAccessReview"
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
        answer = self._ask("POST", f"/apis/authorization.k8s.io/v1/{kind.lower()}s", body)
        return answer if isinstance(answer, Unseen) else bool(at(answer, "status", "allowed"))

    def account(self) -> str:
        """Who this account is, as NAMESPACE:NAME; empty for a person, or where the server does not tell."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = self._ask("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
        prefix, _, account = str(at(answer, "status", "userInfo", "username") or "").partition("serviceaccount:")
        return account if prefix == "system:" else ""

    def _ask(self, method: str, path: str, body: Object | None = None) -> Object | Unseen | None:
        path, _, query = path.partition("?")
        before = time.time()
        try:
            response = self._api.call_api(
                path,
                method,
                query_params=[tuple(it.split("=", 1)) for it in query.split("&") if it],
                header_params={"Accept": "application/json", "Content-Type": "application/json"},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=False,
                _request_timeout=SECONDS,
            )
        except ApiException as error:
            if error.status == 404:
                return None
            return Unseen(f"{message_of(error)} ({error.status})")
        except urllib3.exceptions.HTTPError as error:
            raise UsageError(
                f"the API server at {self.host} does not answer ({' '.join(str(error).split())[:200]}); check KUBECONFIG and the network"
            ) from error
        raw, _, headers = response
        if date := headers.get("Date"):
            self.clock_seconds = parsedate_to_datetime(date).timestamp() - (before + time.time()) / 2
        found: Object = json.loads(raw.data)
        return found


def message_of(error: ApiException, limit: int = 200) -> str:
    """Return what the API server says of an error, in one line of at most `limit` characters."""
    try:
        message = str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        message = str(error.body or error.reason)
    return one_line(message, limit)


def paths(scope: Scope) -> dict[str, str]:
    """What is read, by the name that checks use."""
    here, runs = scope.namespace, scope.run_namespace
    core, apps, serving = "/api/v1/namespaces", "/apis/apps/v1/namespaces", "/apis/serving.kserve.io"
    found = {
        "Kubernetes version": "/version",
        "API groups": "/apis",
        "KServe kinds": f"{serving}/v1beta1",
        "KServe controller": f"{apps}/{_KSERVE}/deployments/kserve-controller-manager",
        "KServe configuration": f"{core}/{_KSERVE}/configmaps/inferenceservice-config",
        "namespace": f"{core}/{here}",
        "ServingRuntime": f"{serving}/v1alpha1/namespaces/{here}/servingruntimes/{scope.runtime}",
        "ClusterServingRuntime": f"{serving}/v1alpha1/clusterservingruntimes/{scope.runtime}",
        "storage initializer": f"{serving}/v1alpha1/clusterstoragecontainers/default",
        "InferenceService": f"{serving}/v1beta1/namespaces/{here}/inferenceservices/{scope.service}",
        "predictor's account": f"{core}/{here}/serviceaccounts/{scope.predictor}",
        "Kubeflow server": f"{apps}/{_KUBEFLOW}/deployments/ml-pipeline",
        "Argo configuration": f"{core}/{_KUBEFLOW}/configmaps/workflow-controller-configmap",
        "Kubeflow server of runs": f"{apps}/{runs}/deployments/ml-pipeline",
        "Argo configuration of runs": f"{core}/{runs}/configmaps/workflow-controller-configmap",
        "Kubeflow launcher": f"{core}/{runs}/configmaps/kfp-launcher",
        "nodes": "/api/v1/nodes",
        "all pods": "/api/v1/pods",
        "system agents": f"{apps}/kube-system/daemonsets",
        "HorizontalPodAutoscalers": f"/apis/autoscaling/v2/namespaces/{here}/horizontalpodautoscalers",
        "NetworkPolicies": f"/apis/networking.k8s.io/v1/namespaces/{here}/networkpolicies",
        "admission policy": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/penstock-deployer",
        "admission policy's binding": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/penstock-deployer",
    }
    for namespace, suffix in ((here, ""), (runs, " of runs")):
        for name in ("ResourceQuotas", "LimitRanges", "pods"):
            found[f"{name}{suffix}"] = f"{core}/{namespace}/{name.lower()}"
        found[f"events{suffix}"] = f"{core}/{namespace}/events"
    return found


def gather(scope: Scope, store: StoreSeen | None = None, host: str = "", names: Iterable[str] | None = None) -> Seen:
    """Read everything that the checks use; `names` reads only these things, with the rights to deploy.

    Raises UsageError where there is no cluster, or it does not answer.
    """
    reader = Reader()
    wanted = paths(scope)
    chosen = wanted if names is None else {name: wanted[name] for name in names}
    rights: list[Right] = [(scope.namespace, verb, group, resource) for group, resource, verb in DEPLOY_RIGHTS]
    if names is None:
        rights += [(scope.run_namespace, verb, group, resource) for group, resource, verb in RUN_RIGHTS]
        rights.append((scope.namespace, "create", "", "pods"))
    with ThreadPoolExecutor(8) as pool:
        allowed = pool.map(lambda right: reader.may(scope.account, right), rights)
        things: dict[str, Object | Unseen | None] = dict(zip(chosen, pool.map(reader.get, chosen.values()), strict=True))
        account = things.get("predictor's account")
        secrets = [str(it.get("name")) for it in (account.get("secrets") or [] if isinstance(account, dict) else [])]
        for secret in secrets:
            things[f"Secret {secret}"] = _without_values(reader.get(f"/api/v1/namespaces/{scope.namespace}/secrets/{secret}"))
        if names is None:
            path = f"/api/v1/namespaces/{scope.run_namespace}/secrets/{STEPS_SECRET}"
            things["Secret of runs"] = _without_values(reader.get(path))
        return Seen(
            scope if scope.account else replace(scope, account=reader.account()),
            things,
            dict(zip(rights, allowed, strict=True)),
            store,
            ask_kubeflow(host) if host else Unseen("no --host was given"),
            reader.clock_seconds,
        )


def _without_values(secret: Any) -> Any:
    """The Secret without what it keeps: only whether each key holds something."""
    return {**secret, "data": {key: bool(it) for key, it in (secret.get("data") or {}).items()}} if isinstance(secret, dict) else secret


def ask_kubeflow(host: str) -> Object:
    """What a Kubeflow Pipelines server says of itself, or {"problem": …}."""
    headers = {"Authorization": f"Bearer {token}"} if (token := clean_token(os.environ.get("KFP_TOKEN", ""), "KFP_TOKEN")) else {}
    address = f"{host.rstrip('/')}/apis/v2beta1/healthz"
    try:
        answer = urllib3.request("GET", address, headers=headers, redirect=False, retries=False, timeout=urllib3.Timeout(*SECONDS))
    except urllib3.exceptions.HTTPError as error:
        return {"problem": f"{host} cannot be reached ({' '.join(str(error).split())[:200]})"}
    if answer.status != 200:
        asked = " (it asks for a login)" if answer.status in (301, 302, 303, 307, 401, 403) else ""
        return {"problem": f"{host} answered {answer.status}{asked}"}
    try:
        found = json.loads(answer.data)
    except ValueError:
        return {"problem": f"{host} answered with no JSON; is it a login page?"}
    return found if isinstance(found, dict) else {}
