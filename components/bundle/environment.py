"""Environments: whose policy decides, and how a model serves there. Files of `environments/`, or the user's own."""

import difflib
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from components.bundle.numbers import parse_number, parse_share, plain
from components.bundle.policy import Policy
from components.classifier.errors import PolicyError, UsageError, validation_problems

DIRECTORY = Path(__file__).with_name("environments")


def _milliseconds(value: object) -> float:
    number = parse_number(value)
    if number < 0:
        raise ValueError(f"{plain(number)} must be 0 or more")
    return number


Share = Annotated[float, BeforeValidator(parse_share)]


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


class Environment(BaseModel):
    """A name, the gate's policy and the serving settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    policy: Policy
    serving: Serving


def environment_names() -> list[str]:
    """The environments that come with Penstock."""
    return sorted(path.stem for path in DIRECTORY.glob("*.yaml"))


def load_environment(name: str) -> Environment:
    """Load an environment by its name, or from the path of a YAML file (with a `/`, or ending in .yaml or .yml).

    Raises UsageError for an unknown name, saying which there are, and PolicyError for a file that cannot be applied.
    """
    if "/" in name or name.endswith((".yaml", ".yml")):
        return _read(Path(name).expanduser())
    names = environment_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UsageError(f"unknown environment {name!r}{hint}; there are {', '.join(names)}, or give the path of a YAML file")
    return _read(DIRECTORY / f"{name}.yaml")


def _read(path: Path) -> Environment:
    try:
        values = yaml.load(path.read_text("utf-8"), _UniqueKeys)
    except OSError as error:
        raise UsageError(
            f"environment file {path} cannot be read ({error.strerror}); give its path, or {' or '.join(environment_names())}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise PolicyError(f"{path}: an environment has the tables policy and serving")
    unknown = sorted(str(key) for key in values if key not in ("policy", "serving"))
    if unknown:
        raise PolicyError(f"{path}: unknown {', '.join(unknown)}; an environment has the tables policy and serving")
    policy = Policy.read(values.get("policy") or {}, str(path))
    try:
        serving = Serving.model_validate(values.get("serving") or {})
    except ValidationError as error:
        raise PolicyError(f"{path}: serving: {'; '.join(validation_problems(error))}") from error
    return Environment(name=path.stem, policy=policy, serving=serving)


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key given twice is an error: PyYAML would take the last and say nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {str(key) for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(sorted(twice))} is set twice", node.start_mark)
        return super().construct_mapping(node, deep)
