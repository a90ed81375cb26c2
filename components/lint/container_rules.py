"""Traps of containers, images and texts that hold for every Kubernetes object."""

import json
import re
from collections.abc import Iterator

from components.classifier.errors import listed
from components.lint.manifest import Manifest
from components.lint.pipeline import Pipeline, split_image
from components.lint.registry import Hit, Level, rule
from components.lint.values import at, mapping, sequence
from components.settings.base import quantity

_QUANTITY = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(([KMGTPE]i)|[numkMGTPE]|[eE][+-]?\d+)?")
_OFFICIAL = frozenset(
    re.findall(
        r"\S+",
        """
        alpine almalinux amazoncorretto bash busybox caddy cassandra centos consul couchdb debian docker eclipse-temurin elasticsearch
        erlang fedora gcc golang gradle haproxy httpd influxdb joomla kibana logstash mariadb maven memcached mongo mosquitto mysql nats
        neo4j nginx node nextcloud openjdk oraclelinux perl php postgres pypy python r-base rabbitmq redis registry rockylinux ruby rust
        solr sonarqube swift telegraf tomcat traefik ubuntu vault wordpress zookeeper
        """,
    )
)


@rule(Level.WARNING)
def latest_image(subject: Pipeline | Manifest) -> Iterator[Hit]:
    """An image has the tag latest, or none.

    A node that holds an older image under the tag runs the old code; nobody can say later what ran, and a rollback changes nothing.

    Fix: an immutable tag, such as a version, or a digest.
    """
    seen = subject.cached_images() if isinstance(subject, Pipeline) else set()  # mutable-image-cached reports these
    for image in subject.images():
        _, tag, digest = split_image(image.name)
        if not digest and tag in ("", "latest") and image.name not in seen:
            seen.add(image.name)
            yield Hit(image.place, f"image {image.name}")


@rule(Level.NOTE)
def image_without_registry(subject: Pipeline | Manifest) -> Iterator[Hit]:
    """An image has no registry in its name, and Docker Hub has none of its own by this name.

    The nodes ask Docker Hub for library/NAME: ErrImagePull, unless every node was given the image by hand.

    Fix: the full name, registry.example/team/name:tag.
    """
    seen = set()
    for image in subject.images():
        name, tag, _ = split_image(image.name)
        if "/" not in name and name not in _OFFICIAL and tag not in ("", "latest") and name not in seen:
            seen.add(name)
            yield Hit(image.place, f"image {image.name}")


@rule(Level.NOTE)
def container_without_resources(manifest: Manifest) -> Iterator[Hit]:
    """Containers have neither requests nor limits.

    A namespace with a ResourceQuota refuses the pod; elsewhere it is the first to be ended when a node runs out of memory.

    Fix: resources: {requests: {cpu: …, memory: …}, limits: {memory: …}}.
    """
    found = [it for it in manifest.containers() if not it.init and it.spec.get("image") and not mapping(it.spec, "resources")]
    if found:
        yield Hit(found[0].at(), f"no requests or limits: {listed(it.name for it in found)}")


@rule(Level.WARNING)
def root_container(manifest: Manifest) -> Iterator[Hit]:
    """A container is told to run as root, or with all rights of its node.

    Pod Security "restricted" refuses the pod; the event stands at the ReplicaSet only, and the service just never gets ready.

    Fix: securityContext: {runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}, and a user above 0.
    """
    for container in manifest.containers():
        own = mapping(container.spec, "securityContext")
        user = own.get("runAsUser", at(container.pod, "securityContext", "runAsUser"))
        key = "securityContext" if own else "name"
        if own.get("privileged") is True:
            yield Hit(container.at("securityContext", "privileged"), f"{container.name} is privileged")
        elif user == 0 and not isinstance(user, bool):
            yield Hit(container.at(key), f"{container.name} runs as user 0")


@rule(Level.NOTE)
def may_run_as_root(manifest: Manifest) -> Iterator[Hit]:
    """Nothing keeps containers from running as root.

    Where the image's user is root, it runs as root; Pod Security "restricted" refuses the pod in any case.

    Fix: securityContext: {runAsNonRoot: true} on the pod, or on each container.
    """
    found = []
    for container in manifest.containers():
        own, pod = mapping(container.spec, "securityContext"), mapping(container.pod, "securityContext")
        said = any("runAsUser" in it or it.get("runAsNonRoot") is True for it in (own, pod))
        if container.spec.get("image") and not container.init and not said and own.get("privileged") is not True:
            found.append(container)
    if found:
        yield Hit(found[0].at(), f"may run as root: {listed(it.name for it in found)}")


@rule(Level.ERROR)
def quantity_form(manifest: Manifest) -> Iterator[Hit]:
    """A resource quantity is not one.

    The API server refuses the object, or KServe's webhook does.

    Fix: such as 500m, 2, 512Mi or 1Gi, without a blank.
    """
    parts = [(it.spec, it.place.keys) for it in manifest.containers()] + list(manifest.models())
    for spec, keys in parts:
        for part in ("requests", "limits"):
            for name, value in mapping(spec, "resources", part).items():
                if isinstance(value, str) and "{{" not in value and "$" not in value and not _QUANTITY.fullmatch(value):
                    yield Hit(manifest.at(*keys, "resources", part, name), f"{part}.{name} is {value!r}")


@rule(Level.ERROR)
def text_expected(manifest: Manifest) -> Iterator[Hit]:
    """An annotation, a label or an environment variable is not text.

    The API server refuses the object ("cannot unmarshal number into Go struct field … of type string"); an unquoted 1, true or yes
    is not text in YAML.

    Fix: write the value in quotes.
    """
    places: list[tuple[str, ...]] = [("metadata", "annotations"), ("metadata", "labels")]
    if manifest.kind == "ConfigMap":
        places.append(("data",))
    for place in places:
        for key, value in mapping(manifest.value, *place).items():
            if isinstance(value, bool | int | float):
                yield from _unquoted(manifest, (*place, key), value)
    for container in manifest.containers():
        for index, variable in enumerate(sequence(container.spec, "env")):
            value = at(variable, "value")
            if isinstance(value, bool | int | float):
                yield from _unquoted(manifest, (*container.place.keys, "env", index, "value"), value)


def _unquoted(manifest: Manifest, keys: tuple[str | int, ...], value: object) -> Iterator[Hit]:
    written = getattr(manifest.document.nodes(keys)[1], "value", "")
    if isinstance(written, str) and ":" not in written:  # 12:30 is a number here, and a text for Kubernetes
        yield Hit(manifest.at(*keys), f"{keys[-1]} is {json.dumps(value)}, without quotes", written)


@rule(Level.ERROR)
def request_over_limit(manifest: Manifest) -> Iterator[Hit]:
    """A container requests more than its limit.

    The API server refuses the pod: a Deployment is accepted, and never gets one.

    Fix: raise the limit, or lower the request.
    """
    parts = [(it.spec, it.place.keys) for it in manifest.containers()] + list(manifest.models())
    for spec, keys in parts:
        limits = mapping(spec, "resources", "limits")
        for name, asked in mapping(spec, "resources", "requests").items():
            wanted, most = quantity(asked), quantity(limits.get(name))
            if wanted is not None and most is not None and wanted > most:
                yield Hit(manifest.at(*keys, "resources", "requests", name), f"{name}: requests {asked}, limit {limits[name]}")
