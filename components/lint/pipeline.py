"""A compiled Kubeflow pipeline (its intermediate representation), as the rules read it."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from components.lint.documents import Document, Keys, Place
from components.lint.values import at, is_template, mapping, sequence, text

ROOT = "root"
_PARAMETER = re.compile(r"\{\{\$\.inputs\.parameters\['([^']*)'\]\}\}")
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)s")


@dataclass(frozen=True)
class Task:
    """A task of a pipeline, in the group (a component with a DAG, or the root) that holds it."""

    name: str
    group: str
    spec: dict[str, Any]
    component: dict[str, Any]
    place: Place

    @property
    def executor(self) -> str:
        """The name of what runs it; empty for a group."""
        return text(self.component, "executorLabel")

    @property
    def cached(self) -> bool:
        """Whether an earlier result may be used in place of running it."""
        return at(self.spec, "cachingOptions", "enableCache") is True

    def at(self, *keys: str | int) -> Place:
        """A place below the task."""
        return Place(self.place.document, (*self.place.keys, *keys))


@dataclass(frozen=True)
class Image:
    """An image's name and the place where it stands."""

    name: str
    place: Place


def is_image(name: str) -> bool:
    """Whether a registry is asked for this name: it is not a template, an import path for ko, or a stand-in of KFP's own tasks."""
    return bool(name) and not is_template(name) and "://" not in name and not name.startswith("argostub/")


def split_image(image: str) -> tuple[str, str, str]:
    """An image's name, tag and digest; the last two may be empty."""
    name, _, digest = image.partition("@")
    folder, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    return folder + slash + last, tag, digest


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A pipeline's spec, and the settings for Kubernetes that stand in a document of their own.

    `spec_keys` and `platform_keys` lead to them inside of their documents.
    """

    document: Document
    spec_keys: Keys = ()
    platform: Document | None = None
    platform_keys: Keys = ()

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The spec's mapping."""
        return mapping(self.document.value, *self.spec_keys)

    def at(self, *keys: str | int) -> Place:
        """A place in the spec."""
        return self.document.place(*self.spec_keys, *keys)

    @cached_property
    def groups(self) -> dict[str, dict[str, Any]]:
        """The root, and every component that is a DAG, by name."""
        dags = {name: it for name, it in mapping(self.spec, "components").items() if isinstance(it, dict) and "dag" in it}
        return {ROOT: mapping(self.spec, ROOT), **dags}

    @cached_property
    def tasks(self) -> list[Task]:
        """All tasks of all groups."""
        return [
            Task(name, group, mapping(spec), mapping(self.spec, "components", text(spec, "componentRef", "name")), place)
            for group, definition in self.groups.items()
            for name, spec in mapping(definition, "dag", "tasks").items()
            for place in [self.at(*self.group_keys(group), "dag", "tasks", name)]
        ]

    @property
    def steps(self) -> list[Task]:
        """The tasks that run a container; none in a compiled component, where nothing is set on them."""
        if self.is_component:
            return []
        return [task for task in self.tasks if mapping(self.executors, task.executor, "container")]

    @property
    def is_component(self) -> bool:
        """Whether this is a single compiled component, whose settings are those of the pipelines that load it."""
        return [task.name for task in self.tasks] == [text(self.spec, "pipelineInfo", "name")]

    @staticmethod
    def group_keys(group: str) -> Keys:
        """Where a group's definition stands in the spec."""
        return (ROOT,) if group == ROOT else ("components", group)

    @cached_property
    def executors(self) -> dict[str, Any]:
        """What tasks run, by name."""
        return mapping(self.spec, "deploymentSpec", "executors")

    def executor_at(self, name: str, *keys: str | int) -> Place:
        """A place below an executor."""
        return self.at("deploymentSpec", "executors", name, *keys)

    def settings(self, executor: str) -> dict[str, Any]:
        """An executor's settings for Kubernetes."""
        return mapping(self.platform.value, *self._settings_keys(executor)) if self.platform else {}

    def settings_at(self, executor: str, *keys: str | int) -> Place:
        """A place below an executor's settings for Kubernetes; without any, the executor."""
        return self.platform.place(*self._settings_keys(executor), *keys) if self.platform else self.executor_at(executor)

    def _settings_keys(self, executor: str) -> Keys:
        return (*self.platform_keys, "platforms", "kubernetes", "deploymentSpec", "executors", executor)

    def input_type(self, group: str, parameter: str) -> str:
        """The type of a group's input parameter; empty when it has none of that name."""
        return text(mapping(self.groups, group), "inputDefinitions", "parameters", parameter, "parameterType")

    def images(self) -> Iterator[Image]:
        """The images of all containers that are written as such."""
        for name in self.executors:
            image = text(self.executors, name, "container", "image")
            if is_image(image):
                yield Image(image, self.executor_at(name, "container", "image"))

    def cached_images(self) -> set[str]:
        """The images of the steps that may be cached."""
        return {text(self.executors, task.executor, "container", "image") for task in self.steps if task.cached}

    def functions(self, executor: str) -> list[ast.FunctionDef]:
        """The Python functions that an executor carries in its command; [] when there are none."""
        return self._functions.get(executor, [])

    @cached_property
    def _functions(self) -> dict[str, list[ast.FunctionDef]]:
        found = {}
        for name in self.executors:
            for line in sequence(self.executors, name, "container", "command"):
                if isinstance(line, str) and "def " in line and "kfp" in line:
                    try:
                        tree = ast.parse(line)
                    except (SyntaxError, ValueError, RecursionError, MemoryError):
                        continue  # a shell script, or another Python's syntax
                    found[name] = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        return found

    def source(self, executor: str) -> str:
        """All text of an executor's command."""
        return "\n".join(it for it in sequence(self.executors, executor, "container", "command") if isinstance(it, str))


def parameters_in(value: Any) -> list[str]:
    """The run parameters that a setting takes its value from."""
    return _PARAMETER.findall(value) if isinstance(value, str) else []


def seconds(value: Any) -> float | None:
    """A duration as protobuf writes it ("600s"), in seconds; None when it is none."""
    match = _SECONDS.fullmatch(value) if isinstance(value, str) else None
    return float(match[1]) if match else None
