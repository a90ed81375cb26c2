"""The Kubeflow Model Registry: publish registers a version, and whoever changes what serves marks the version that is live.

A registered version carries the facts of its manifest and its headline figures as custom properties, and `live`: true for the version
that serves, false for those that served before.
"""

import asyncio
import logging
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from components.integrations.observe import MODEL_REGISTRY, Event, Listener, Report

if TYPE_CHECKING:
    from model_registry import ModelRegistry

AUTHOR = "penstock"
TOKEN, CA = "PENSTOCK_MODEL_REGISTRY_TOKEN", "PENSTOCK_MODEL_REGISTRY_CA"
"""Environment variables: a bearer token where the pod's own does not do, and a file with the certificates of a private CA."""
LIVE = "live"


def listener() -> Listener:
    """Return what keeps the registry up to date with one step's reports."""

    def tell(event: Event) -> None:
        report = event.report
        if event.state != "COMPLETE" or not (report.registered or report.champion is not None):
            return
        with asyncio.Runner() as runner:
            registry = _connect(runner.run)
            if report.registered:
                register(registry, report)
            if report.champion is not None:
                mark_live(registry, report.model, report.champion)

    return tell


def register(registry: "ModelRegistry", report: Report) -> None:
    """Register a version with its address, the facts of its manifest and its figures; one that is there already stays as it is."""
    facts: dict[str, Any] = dict(report.registered)
    version, uri = facts.pop("version"), facts.pop("uri")
    if registry.get_registered_model(report.model) and registry.get_model_version(report.model, version):
        return
    registry.register_model(
        report.model,
        uri,
        model_format_name="onnx",
        model_format_version="1",
        version=version,
        version_description=f"{facts['architecture']}, trained {facts['trained_at']}",
        model_source_kind="kfp",
        model_source_name=facts["run"] or None,
        metadata={**{name: value for name, value in facts.items() if value != ""}, LIVE: False},
    )


def mark_live(registry: "ModelRegistry", model: str, champion: str) -> None:
    """Set `live` of the version that serves, and take it from all others; versions that were never registered are passed over."""
    if registry.get_registered_model(model) is None:
        return
    for version in registry.get_model_versions(model):
        properties = version.custom_properties or {}
        live = version.name == champion
        if properties.get(LIVE, False) != live:
            version.custom_properties = {**properties, LIVE: live}
            registry.update(version)


def _connect(run: Callable[..., Any]) -> "ModelRegistry":
    """Return a client; without its own way to run coroutines it would change asyncio for the whole process."""
    before = logging.root.handlers[:]
    from model_registry import ModelRegistry

    logging.root.handlers[:] = before  # the library gives the root logger a handler when it is imported

    def runner(coroutine: Any) -> Any:
        return run(coroutine)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no token, which an open registry does not ask for
        return ModelRegistry(
            os.environ[MODEL_REGISTRY].strip().rstrip("/"),
            author=AUTHOR,
            async_runner=runner,
            user_token=os.environ.get(TOKEN) or None,
            custom_ca=os.environ.get(CA) or None,
            log_level=logging.ERROR,
        )
