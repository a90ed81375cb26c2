"""How a cluster serves; CPU and memory are the ServingRuntime's.

Every field is also an environment variable, `PENSTOCK_KSERVE_` and its name in capitals.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from components.classifier.errors import UsageError, one_line, validation_problems
from components.settings.base import check_namespace, check_service_name, refuse_unknown

TARGETS = ("local", "kserve")
"""What a version can be deployed to: the deployment ledger that `penstock serve` follows, or an InferenceService."""
Mode = Literal["Standard", "Knative", "RawDeployment", "Serverless"]
SYNONYMS = {"RawDeployment": "Standard", "Serverless": "Knative"}
"""KServe's old names of the modes, which its older releases ask for."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
Percent = Annotated[int, Field(ge=1, le=99)]


def clean_token(token: str, variable: str) -> str:
    """Return a bearer token without the line end that a file or Secret often has.

    Raises UsageError, which does not show it, for one that no HTTP header can carry.
    """
    token = token.strip()
    if not (token.isascii() and token.isprintable()):
        raise UsageError(f"the token of {variable} holds characters that no HTTP header can carry; write it again, in one line")
    return token


def _clean(token: SecretStr) -> SecretStr:
    return SecretStr(clean_token(token.get_secret_value(), "PENSTOCK_KSERVE_TOKEN"))


class KServeSettings(BaseSettings):
    """The settings of target `kserve`; docs/rollout.md says what each is good for."""

    model_config = SettingsConfigDict(
        env_prefix="PENSTOCK_KSERVE_", frozen=True, extra="ignore", protected_namespaces=(), use_attribute_docstrings=True
    )

    namespace: Annotated[str, AfterValidator(check_namespace)] = "default"
    """Where the InferenceService is."""
    service: str = ""
    """The InferenceService's name, which is also the model's name in the URL; empty: the model's name."""
    mode: Mode = "Standard"
    """Standard or Knative: whether KServe makes Deployments itself; older releases say RawDeployment and Serverless."""
    runtime: Name = "penstock-onnx-v1"
    """The ServingRuntime, which holds the predictor's image."""
    model_format: str = "penstock"
    """The model format that the ServingRuntime supports."""
    service_account: Name = "penstock-predictor"
    """The predictor's; it lists the Secret that the storage initializer reads S3 with."""
    min_replicas: int = Field(1, ge=0)
    """The least number of pods."""
    max_replicas: int = Field(0, ge=0)
    """The most pods; 0: as many as min_replicas, at least one."""

    url: str = ""
    """Where the service is called, such as an ingress' address; empty: the address that the InferenceService names."""
    host: str = ""
    """The Host header, by which an ingress finds the service."""
    token: Annotated[SecretStr, AfterValidator(_clean)] = SecretStr("")
    """A bearer token for the service."""
    ca: str = ""
    """A file of certificates of a private CA, for an https url."""

    canary: bool = False
    """Standard mode: try the version in an InferenceService of its own before it takes the traffic."""
    canary_steps: tuple[Percent, ...] = ()
    """Knative mode: percents of the traffic, one after another, such as [10, 50]."""
    canary_requests: int = Field(0, ge=0)
    """How many live requests both versions must have answered at each step of a canary before it goes on; 0: golden requests only."""
    canary_seconds: float = Field(1800, gt=0)
    """How long these requests may take to come, at each step."""
    canary_error: float = Field(0.05, gt=0, le=0.5)
    """The stated error of the comparison: with what probability, at most, a challenger that equals the champion is undone."""
    canary_agreement: float = Field(0, ge=0, lt=1)
    """With a shadow: the least share of pictures to which champion and challenger give the same class; 0: not asked for."""
    shadow_share: float = Field(0, ge=0, le=1)
    """Standard mode: the share of its requests that a version, while it serves, copies to a canary."""

    timeout_seconds: float = Field(300, gt=0)
    """How long a version may take to serve before it is undone."""
    settle_seconds: float = Field(20, ge=0)
    """How long a version that serves is watched before it is recorded: some crash after they were ready."""
    take_over: bool = False
    """Take over an InferenceService that serves another store's or name's model, and fields that another tool owns; else refused."""

    @model_validator(mode="after")
    def _agree(self) -> "KServeSettings":
        if self.max_replicas and self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below min_replicas {self.min_replicas}")
        if list(self.canary_steps) != sorted(set(self.canary_steps)):
            raise ValueError("canary_steps must rise, such as [10, 50]")
        if self.canary_steps and self.standard:
            raise ValueError("canary_steps need mode Knative: Standard mode has no traffic split and ignores it; set canary instead")
        if self.canary and not self.standard:
            raise ValueError("canary is for mode Standard; in Knative mode set canary_steps")
        if self.canary_requests and not (self.canary or self.canary_steps):
            raise ValueError("canary_requests needs a canary: set canary, or in Knative mode canary_steps")
        if self.canary_agreement and not (self.canary and self.canary_requests):
            raise ValueError("canary_agreement compares by a shadow: it needs canary and canary_requests")
        if self.shadow_share and not self.standard:
            raise ValueError("shadow_share is for mode Standard; in Knative mode canary_steps split the traffic itself")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url takes an address such as https://gateway.example, got {self.url!r}")
        return self

    @classmethod
    def read(cls, values: Mapping[str, Any], namespace: str = "") -> "KServeSettings":
        """Read settings given by a run, over those of the environment.

        Raises UsageError naming the first that is unknown, or does not fit.
        """
        refuse_unknown("serving", values, cls.model_fields)
        if "token" in values:
            raise UsageError("the token must not be a run parameter, which everybody can read; set PENSTOCK_KSERVE_TOKEN by a Secret")
        given = {key: value for key, value in values.items() if value not in ("", None)}
        try:
            return cls(**(given | ({"namespace": namespace} if namespace else {})))
        except ValidationError as error:
            raise UsageError(f"serving: {validation_problems(error)[0]}") from error
        except SettingsError as error:
            raise UsageError(f"a PENSTOCK_KSERVE_ variable: {one_line(error)}; write it as JSON, such as [10, 50]") from error

    @property
    def standard(self) -> bool:
        """Whether KServe makes Deployments itself, without Knative."""
        return canonical(self.mode) == "Standard"

    def service_name(self, model: str) -> str:
        """Return the InferenceService's name for a model; raises UsageError where KServe would refuse it."""
        return check_service_name(self.service or model, self.namespace, self.canary)


def canonical(mode: str) -> str:
    """Return the mode's present name."""
    return SYNONYMS.get(mode, mode)


def check_store(url: str) -> None:
    """Raise UsageError for a store that KServe cannot download from."""
    if not url.startswith("s3://"):
        raise UsageError(f"target kserve needs a store that the cluster can read, s3://bucket/prefix, not {url}; publish there first")


def check_owner(service: str, serves: str, models: str, champion: str, take_over: bool) -> None:
    """Raise UsageError when a service serves an address outside of `models`, where the versions of this store and name lie.

    `serves`: the address, empty where nothing is known to serve. `champion`: the version that should serve from `models`, or empty.
    """
    if not serves or serves.startswith(models) or take_over:
        return
    theirs = serves.rstrip("/").rpartition("/")[2]
    raise UsageError(
        f"{service} serves {serves} (champion {theirs}), which is not of {models} (champion {champion or 'none: nothing was deployed'}): "
        "it belongs to another store or model; correct store, name or serving.service, or set serving.take_over to replace what it serves"
    )


def check_target(target: str, store: str = "", name: str = "", serving: Mapping[str, Any] | None = None, namespace: str = "") -> None:
    """Raise UsageError for an unknown target, and for settings, a store or names that the target cannot work with."""
    if target not in TARGETS:
        raise UsageError(f"target {target!r} is not available in this release; use {' or '.join(TARGETS)}")
    if namespace:
        check_namespace(namespace)
    if target == "kserve":
        settings = KServeSettings.read(serving or {}, namespace)
        if store:
            check_store(store)
        if name:
            settings.service_name(name)
    elif serving:
        raise UsageError(f"serving is for target kserve; target {target!r} takes {', '.join(serving)} from `penstock serve`")
