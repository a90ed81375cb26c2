"""Environments: whose policy decides, who may deploy how, and how a model serves there. Files of `environments/`, or the user's own."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from components.bundle.policy import Policy, parse_number, parse_share, plain
from components.classifier.errors import PolicyError, UsageError, near, validation_problems
from components.storage.files import user_path

DIRECTORY = Path(__file__).with_name("environments")


def _milliseconds(value: object) -> float:
    number = parse_number(value)
    if number < 0:
        raise ValueError(f"{plain(number)} must be 0 or more")
    return number


Share = Annotated[float, BeforeValidator(parse_share)]
Table = TypeVar("Table", bound=BaseModel)


class Serving(BaseModel):
    """How a version serves."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    review_threshold: Share = 0.8
    """Pictures classified with less confidence go to the review queue."""
    audit_rate: Share = 0.01
    """Share of the confident answers that go to review too, so that the accuracy in use can be estimated."""
    latency_budget_ms: Annotated[float, BeforeValidator(_milliseconds)] = 0.0
    """What validate_serving allows one request to take; 0 for no limit."""

    def variables(self) -> dict[str, str]:
        """Return the predictor's environment variables."""
        return {"PENSTOCK_REVIEW_THRESHOLD": plain(self.review_threshold), "PENSTOCK_AUDIT_RATE": plain(self.audit_rate)}


class Deployment(BaseModel):
    """By what a version may come to serve. Going back to one that served before is always allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    strategies: tuple[Literal["quality", "manual", "force"], ...] = Field(("quality", "manual", "force"), min_length=1)
    """quality: the gate lets it through. manual: a person names it. force: despite the policy."""
    approval: Literal["required", "none"] = "none"
    """required: what the gate lets through, or a person names, waits for `penstock models approve`."""
    held: Literal["refuse", "warn"] = "warn"
    """What deploying a version by its name does when the gate held it."""

    def require_strategy(self, strategy: str, environment: str) -> None:
        """Raise UsageError for a strategy that the environment does not allow."""
        if strategy not in self.strategies:
            raise UsageError(
                f"environment {environment} allows strategy {' and '.join(self.strategies)}, not {strategy}; let the gate decide on a "
                "version by a training run, or go back by version=previous"
            )


class Environment(BaseModel):
    """A name, the gate's policy, what may be deployed, and the serving settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    policy: Policy
    deployment: Deployment
    serving: Serving

    def policy_with(self, changes: object, source: str = "run parameter policy") -> Policy:
        """Return the policy with single rules replaced for a run; where force is not allowed, they may only become stricter.

        Raises PolicyError for rules that cannot be applied, or that would let more through than the environment does.
        """
        changed = self.policy.override(changes, source)
        if "force" not in self.deployment.strategies and (looser := changed.looser_than(self.policy)):
            raise PolicyError(
                f"{source}: environment {self.name} allows only stricter rules, and {', '.join(looser)} would be looser; "
                "leave it out, or change the environment's file"
            )
        return changed


def environment_names() -> list[str]:
    """The environments that come with Penstock."""
    return sorted(path.stem for path in DIRECTORY.glob("*.yaml"))


def load_environment(name: str) -> Environment:
    """Load an environment by its name, or from the path of a YAML file (with a `/`, or ending in .yaml or .yml).

    Raises UsageError for an unknown name, saying which there are, and PolicyError for a file that cannot be applied.
    """
    if "/" in name or name.endswith((".yaml", ".yml")):
        return _read(user_path(name))
    names = environment_names()
    if name not in names:
        raise UsageError(f"unknown environment {name!r}{near(name, names)}; there are {', '.join(names)}, or give the path of a YAML file")
    return _read(DIRECTORY / f"{name}.yaml")


def deciding_environment(name: str) -> Environment:
    """Load the environment by which a deployment is decided: PENSTOCK_ENVIRONMENT, where it is set, allows no other.

    Raises UsageError for another one, and what `load_environment` raises.
    """
    only = os.environ.get("PENSTOCK_ENVIRONMENT", "")
    if only and name != only:
        raise UsageError(f"only environment {only} decides here (PENSTOCK_ENVIRONMENT), not {name}; set environment={only}")
    return load_environment(name)


_TABLES = ("policy", "deployment", "serving")


def _read(path: Path) -> Environment:
    try:
        values = yaml.load(path.read_text("utf-8"), _UniqueKeys)
    except OSError as error:
        raise UsageError(
            f"environment file {path} cannot be read ({error.strerror}); give its path, or {' or '.join(environment_names())}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path} is not valid YAML: {error}") from error
    tables = f"an environment has the tables {', '.join(_TABLES)}"
    if not isinstance(values, dict):
        raise PolicyError(f"{path}: {tables}")
    unknown = sorted(str(key) for key in values if key not in _TABLES)
    if unknown:
        raise PolicyError(f"{path}: unknown {', '.join(unknown)}; {tables}")
    return Environment(
        name=path.stem,
        policy=Policy.read(values.get("policy") or {}, str(path)),
        deployment=_table(Deployment, values, "deployment", path),
        serving=_table(Serving, values, "serving", path),
    )


def _table(model: type[Table], values: dict[str, Any], name: str, path: Path) -> Table:
    try:
        return model.model_validate(values.get(name) or {})
    except ValidationError as error:
        raise PolicyError(f"{path}: {name}: {'; '.join(validation_problems(error))}") from error


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key given twice is an error, as PyYAML would take the last and say nothing, and one that is not read as text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for (written, _), key in zip(node.value, keys, strict=True):
            if not isinstance(key, str):  # the classes 7, no and off
                told = f'the name {written.value} is not text to YAML; write it in quotes: "{written.value}"'
                raise yaml.constructor.ConstructorError(None, None, told, written.start_mark)
        twice = {str(key) for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(sorted(twice))} is set twice", node.start_mark)
        return super().construct_mapping(node, deep)
