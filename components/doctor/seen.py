"""What was seen of a cluster and a store: values only, so that checks can be tried by tables."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import yaml

from components.settings.serving import KServeSettings

Object = dict[str, Any]
Right = tuple[str, str, str, str]
"""Namespace, verb, API group and resource (with its subresource, such as pods/log)."""

PULL_FAILURES = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
CREATE_FAILURES = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
"""Reasons for which the kubelet says that a container waits, which mostly do not pass by themselves."""
DEPLOY_RIGHTS = (
    *(("serving.kserve.io", "inferenceservices", verb) for verb in ("get", "list", "watch", "create", "patch", "delete")),
    *(("apps", resource, verb) for resource in ("deployments", "replicasets") for verb in ("get", "list")),
    *(("", resource, verb) for resource in ("pods", "events") for verb in ("get", "list")),
    ("", "pods/log", "get"),
)
"""What the deploy step asks of the namespace that it deploys to."""
PREFLIGHT_RIGHTS = (("serving.kserve.io", "servingruntimes", "get"), ("", "serviceaccounts", "get"))
"""What preflight reads there besides, to refuse a run that would end at its deploy step; without them it makes fewer checks.

Both together are those of manifests/base/deployer-role.yaml.
"""
STEPS_SECRET = "penstock-s3"
"""From which the steps of a run take the object store's keys, in the namespace that they run in."""
RUN_RIGHTS = (
    ("", "configmaps", "get"),
    ("", "pods", "get"),
    ("argoproj.io", "workflows", "get"),
    ("argoproj.io", "workflowtaskresults", "create"),
    ("argoproj.io", "workflowtaskresults", "patch"),
)
"""What the account of a Kubeflow run needs in the namespace that it runs in; without it the first driver fails."""


class NotSeen(Exception):
    """A check needs what this account may not read, or what was not asked for."""


@dataclass(frozen=True)
class Unseen:
    """Why something could not be read."""

    reason: str


@dataclass(frozen=True)
class Scope:
    """What is examined: where models are served, where runs happen, and by which account.

    `account` is NAMESPACE:NAME, or empty for the account that looks. `service`: the InferenceService; `runtime`, `mode` and `predictor`
    (the predictor's ServiceAccount) are the deploy step's settings. `steps`: what each step asks for, as {name: {"requests": …}}.
    """

    namespace: str
    run_namespace: str = "kubeflow"
    account: str = ""
    service: str = "digits"
    runtime: str = "penstock-onnx-v1"
    model_format: str = "penstock"
    mode: str = "Standard"
    predictor: str = "penstock-predictor"
    steps: Mapping[str, Object] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: KServeSettings, service: str, run_namespace: str, **more: Any) -> Self:
        """What the deploy step's settings name; `more` are other fields."""
        return cls(
            settings.namespace, run_namespace, service=service, runtime=settings.runtime, model_format=settings.model_format,
            mode=settings.mode, predictor=settings.service_account, **more,
        )  # fmt: skip


@dataclass(frozen=True)
class StoreSeen:
    """A store as it answered. `problem`: an error with its remedy; `written`: whether writing was tried."""

    url: str
    problem: str = ""
    written: bool = False
    server: str = ""
    made_bucket: bool = False
    models: str = ""
    """The address of the model's versions, which ends with a slash."""
    champion: str = ""
    clock_seconds: float | None = None


@dataclass(frozen=True)
class Seen:
    """Everything that was read. A thing is an object, None when it does not exist, or Unseen."""

    scope: Scope
    things: Mapping[str, Object | Unseen | None] = field(default_factory=dict)
    rights: Mapping[Right, bool | Unseen] = field(default_factory=dict)
    store: StoreSeen | None = None
    kubeflow: Object | Unseen | None = Unseen("no --host was given")
    clock_seconds: float | None = None
    """The API server's clock less this machine's."""

    def find(self, name: str) -> Object | None:
        """A thing, or None when it does not exist. Raises NotSeen."""
        thing = self.things.get(name, Unseen("it was not read"))
        if isinstance(thing, Unseen):
            raise NotSeen(f"{name}: {thing.reason}")
        return thing

    def all(self, name: str) -> list[Object]:
        """The items of a list; [] when the kind does not exist. Raises NotSeen."""
        return list((self.find(name) or {}).get("items") or [])

    def places(self) -> Iterator[tuple[str, str]]:
        """The namespaces, and what the names of the things that were read there end with."""
        yield self.scope.namespace, ""
        if self.scope.run_namespace != self.scope.namespace:
            yield self.scope.run_namespace, " of runs"

    def groups(self) -> set[str]:
        """The API groups of the cluster. Raises NotSeen."""
        return {str(it.get("name")) for it in (self.find("API groups") or {}).get("groups") or []}


def apply(*objects: Object) -> str:
    """The command that applies these manifests."""
    return f"kubectl apply -f - <<'EOF'\n{yaml.safe_dump_all(objects, sort_keys=False)}EOF"
