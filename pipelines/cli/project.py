"""What a command takes where nothing was said: `penstock.yaml` in this folder, the store's only model, the folder's name."""

import json
import re
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
import yaml
from pydantic import Field

from components.classifier.errors import UsageError
from components.settings.base import Settings
from components.storage.files import user_path
from pipelines.catalogue import PIPELINES

if TYPE_CHECKING:
    from components.registry import Registry

FILE = Path("penstock.yaml")
DEFAULT_STORE, DEFAULT_NAME = ".penstock/store", "digits"
_SUFFIXES = re.compile(r"(\.(tar|tgz|gz|bz2|xz|zst|zip|parquet|csv|jsonl|npy|npz))+$")


class Project(Settings):
    """The content of penstock.yaml. The command line and environment variables come before it."""

    group = str(FILE)

    store: str = ""
    """Where model versions lie: a directory or s3://bucket/prefix."""
    name: str = ""
    """The model's name."""
    environment: str = ""
    """Whose policy and thresholds hold: dev, staging, prod, or the path of an environment file."""
    regions: dict[str, str] = Field({})
    """The stores of all regions by name, for `penstock models regions`: `eu: s3://models-eu/penstock`."""
    parameters: dict[str, dict[str, Any]] = Field({})
    """By pipeline, what `--set` would say: `training: {source: data/pets, epochs: 20}`."""


def read_project() -> Project:
    """Read penstock.yaml of this folder, which may be absent; raises UsageError for what it does not know."""
    try:
        content = yaml.safe_load(FILE.read_text("utf-8"))
    except FileNotFoundError:
        return Project()
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{FILE} cannot be read ({' '.join(str(error).split())}); write it as YAML, or remove it") from error
    project = Project.read(content or {})
    if unknown := sorted(set(project.parameters) - set(PIPELINES)):
        raise UsageError(f"{FILE}: parameters are for a pipeline ({', '.join(PIPELINES)}), not for {unknown[0]!r}")
    return project


def default_map(project: Project, group: Any) -> dict[str, Any]:
    """The project's values as click takes them, for each command that has an option for them."""
    given = {"store": project.store, "name": project.name, "env": project.environment}
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found[name] = default_map(project, command)
        else:
            options = {parameter.name for parameter in command.params if f"--{parameter.name}" in parameter.opts}
            found[name] = {key: value for key, value in given.items() if value and key in options}
    return found


def project_settings(pipeline: str) -> list[str]:
    """The project's parameters of a pipeline, as `--set` takes them; those of training are retraining's too, empty ones are left out."""
    known = read_project().parameters
    values = {**(known.get("training", {}) if pipeline == "retraining" else {}), **known.get(pipeline, {})}
    texts = {
        key: value if isinstance(value, str | date) else json.dumps(value, default=str)
        for key, value in values.items()
        if value is not None
    }
    return [f"{key}={text}" for key, text in texts.items()]


def model_names(store: str) -> list[str]:
    """The models that a store holds versions of."""
    from components import registry
    from components.storage import open_store

    return registry.model_names(open_store(store))


def open_registry(store: str, name: str) -> "Registry":
    """The registry of a model; without a name that of the store's only one, or of digits.

    Raises UsageError when there are several and none of them is called digits.
    """
    from components.registry import Registry
    from components.storage import open_store

    return Registry(open_store(store), chosen_name(store, name))


def chosen_name(store: str, name: str) -> str:
    """The model's name that was given, or else the store's only one, or digits; raises UsageError where none of these is meant."""
    if name:
        return name
    names = model_names(store)
    if not names or DEFAULT_NAME in names:
        return DEFAULT_NAME
    if len(names) > 1:
        raise UsageError(f"{store} holds several models ({', '.join(names[:20])}); say which one by --name")
    return names[0]


def name_of_source(source: str) -> str:
    """A model's name made of a source's: `~/data/Our Pets.tar.gz` gives our-pets.

    Raises UsageError when nothing is left of it.
    """
    last = _SUFFIXES.sub("", source.rstrip("/").rpartition("/")[2].lower())
    if last in {"", ".", ".."}:
        last = user_path(source).resolve().name.lower()
    name = re.sub(r"[^a-z0-9]+", "-", last).strip("-").lstrip("0123456789-")[:40].rstrip("-")
    if not name:
        raise UsageError(f"no model name can be made of {source!r}; give one by --name")
    return name


def complete_pipeline(incomplete: str) -> list[str]:
    """Names of pipelines for the shell."""
    return [name for name in PIPELINES if name.startswith(incomplete)]


def complete_setting(context: typer.Context, incomplete: str) -> list[str]:
    """For the shell: names of parameters, and after `=` the values of those that have a few."""
    from pipelines.catalogue import load_pipeline
    from pipelines.descriptions import values_of
    from pipelines.parameters import parameter_defaults

    pipeline = context.params.get("pipeline") or "training"
    known = values_of(parameter_defaults(load_pipeline(pipeline)))
    name, equals, _ = incomplete.partition("=")
    offered = [f"{name}={value}" for value in known.get(name, [])] if equals else [f"{known_name}=" for known_name in known]
    return [text for text in offered if text.startswith(incomplete)]


def complete_version(context: typer.Context, incomplete: str) -> list[str]:
    """Versions of the store's model for the shell, newest first."""
    from components.classifier.errors import PenstockError

    try:
        registry = open_registry(context.params.get("store") or DEFAULT_STORE, context.params.get("name") or "")
        return [text for text in ("champion", "previous", *registry.newest()) if text.startswith(incomplete)]
    except PenstockError:  # the command itself will say it
        return []


def complete_name(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the store's models for the shell."""
    from components.classifier.errors import PenstockError

    try:
        return [text for text in model_names(context.params.get("store") or DEFAULT_STORE) if text.startswith(incomplete)]
    except PenstockError:
        return []
