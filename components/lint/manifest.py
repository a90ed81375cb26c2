"""A Kubernetes object, as the rules read it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from components.lint.documents import Document, Keys, Place
from components.lint.pipeline import Image, is_image, split_image
from components.lint.values import is_template, mapping, sequence, text

KSERVE = "serving.kserve.io"
MODE = f"{KSERVE}/deploymentMode"
STANDARD, KNATIVE = "Standard", "Knative"
_OLD_MODES = {"RawDeployment": STANDARD, "Serverless": KNATIVE}
_POD_KEYS: dict[str, Keys] = {
    "Pod": ("spec",),
    **dict.fromkeys(("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"), ("spec", "template", "spec")),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
    "ServingRuntime": ("spec",),
    "ClusterServingRuntime": ("spec",),
}
COMPONENTS = ("predictor", "transformer", "explainer")


@dataclass(frozen=True)
class Container:
    """A container, its pod, and its place."""

    spec: dict[str, Any]
    pod: dict[str, Any]
    place: Place
    init: bool = False

    @property
    def name(self) -> str:
        """Its name, or a word that stands for it."""
        return text(self.spec, "name") or "the container"

    def at(self, *keys: str | int) -> Place:
        """A place below the container."""
        return Place(self.place.document, (*self.place.keys, *keys))


@dataclass
class Project:
    """All manifests that were read together, and the images whose tag a kustomization sets."""

    manifests: list["Manifest"] = field(default_factory=list)
    images: set[str] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class Manifest:
    """One object, and the others that were read with it."""

    document: Document
    project: Project

    @property
    def value(self) -> dict[str, Any]:
        """The object."""
        found: dict[str, Any] = self.document.value
        return found

    @cached_property
    def kind(self) -> str:
        """Its kind."""
        return text(self.value, "kind")

    @cached_property
    def group(self) -> str:
        """Its API group; empty for the core one."""
        version = text(self.value, "apiVersion")
        return version.rpartition("/")[0]

    @cached_property
    def name(self) -> str:
        """Its name; empty when a tool fills it in."""
        name = text(self.value, "metadata", "name")
        return "" if is_template(name) else name

    @cached_property
    def namespace(self) -> str:
        """Its namespace; empty when the manifest does not say."""
        name = text(self.value, "metadata", "namespace")
        return "" if is_template(name) else name

    @cached_property
    def annotations(self) -> dict[str, Any]:
        """Its annotations."""
        return mapping(self.value, "metadata", "annotations")

    @property
    def is_service(self) -> bool:
        """Whether it is a KServe InferenceService of the current API."""
        return self.kind == "InferenceService" and text(self.value, "apiVersion") == f"{KSERVE}/v1beta1"

    @property
    def mode(self) -> str:
        """An InferenceService's deployment mode by its present name; empty when it does not say."""
        mode = text(self.annotations, MODE)
        return _OLD_MODES.get(mode, mode)

    def at(self, *keys: str | int) -> Place:
        """A place in the object."""
        return self.document.place(*keys)

    def others(self, *kinds: str) -> list["Manifest"]:
        """The objects of these kinds that were read with it, in its namespace or in none that is written."""
        return [
            it
            for it in self.project.manifests
            if it.kind in kinds and (not it.namespace or not self.namespace or it.namespace == self.namespace)
        ]

    def components(self) -> Iterator[tuple[str, dict[str, Any], Keys]]:
        """An InferenceService's predictor, transformer and explainer: name, spec, keys; stable ones, then canaries."""
        if not self.is_service:
            return
        for name in COMPONENTS:
            if spec := mapping(self.value, "spec", name):
                yield name, spec, ("spec", name)
        for number, canary in enumerate(sequence(self.value, "spec", "canary")):
            if spec := mapping(canary, "predictor"):
                yield "canary", spec, ("spec", "canary", number, "predictor")

    def models(self) -> Iterator[tuple[dict[str, Any], Keys]]:
        """The parts of an InferenceService that name a model: `model`, or an old framework field such as `sklearn`."""
        for _, spec, keys in self.components():
            for name, part in spec.items():
                if isinstance(part, dict) and ("storageUri" in part or name == "model"):
                    yield mapping(part), (*keys, name)

    def pods(self) -> Iterator[tuple[dict[str, Any], Keys]]:
        """The pod specs that it holds."""
        if self.is_service:
            for _, spec, keys in self.components():
                yield spec, keys
        elif self.kind in _POD_KEYS and (self.kind not in ("ServingRuntime", "ClusterServingRuntime") or self.group == KSERVE):
            keys = _POD_KEYS[self.kind]
            if spec := mapping(self.value, *keys):
                yield spec, keys

    def containers(self) -> Iterator[Container]:
        """All containers, the initial ones too."""
        for pod, keys in self.pods():
            for part in ("initContainers", "containers"):
                for number, spec in enumerate(sequence(pod, part)):
                    if isinstance(spec, dict):
                        yield Container(mapping(spec), pod, self.at(*keys, part, number), init=part == "initContainers")

    def images(self) -> Iterator[Image]:
        """The images of all containers that are written as such and are not set by a kustomization."""
        for container in self.containers():
            image = text(container.spec, "image")
            if is_image(image) and split_image(image)[0] not in self.project.images:
                yield Image(image, container.at("image"))
