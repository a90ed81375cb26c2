"""The one rule for the names of models, and what Kubernetes asks of names that are made of them."""

import re

from components.classifier.errors import UsageError

MAX_LABEL = 63
"""Characters of one part of a host name, and of most names in Kubernetes."""

_MODEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def check_model_name(name: str) -> str:
    """Return the name of a model; raises UsageError where no InferenceService could have it."""
    if not _MODEL.fullmatch(name) or len(name) > MAX_LABEL:
        raise UsageError(
            f"name {name!r} cannot name an InferenceService; take small letters, digits and hyphens, a letter first, {MAX_LABEL} at most"
        )
    return name


def check_namespace(namespace: str) -> str:
    """Return the name of a namespace; raises UsageError where Kubernetes would refuse it."""
    if not _NAMESPACE.fullmatch(namespace) or len(namespace) > MAX_LABEL:
        raise UsageError(f"namespace {namespace!r} is not possible; take small letters, digits and hyphens, {MAX_LABEL} at most")
    return namespace


def check_service_name(service: str, namespace: str, canary: bool = False) -> str:
    """Return the name of an InferenceService.

    Raises UsageError where KServe would refuse it: KServe makes Services called NAME-predictor (and tries a version as
    NAME-canary), and host names whose first part is NAME-predictor-NAMESPACE.
    """
    longest = MAX_LABEL - len("-canary-predictor")
    if not _MODEL.fullmatch(service) or len(service) > longest:
        raise UsageError(
            f"an InferenceService cannot be called {service!r}: small letters, digits and '-', a letter first, "
            f"{longest} at most; name one by serving.service"
        )
    host = f"{service}{'-canary' if canary else ''}-predictor-{namespace}"
    if len(host) > MAX_LABEL:
        raise UsageError(
            f"an InferenceService {service!r} in namespace {namespace!r} needs the host name {host!r}, which has {len(host)} characters "
            f"of {MAX_LABEL} at most; name a shorter one by serving.service"
        )
    return service
