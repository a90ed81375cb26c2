"""Which integrations are configured, by the environment variables of their own tools, and which lack their extra."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

RUN = "PENSTOCK_RUN"
"""The environment variable with the pipeline run's ID: set for local runs, and in a pod taken from its label."""
MODEL_REGISTRY = "PENSTOCK_MODEL_REGISTRY"
"""The environment variable with the address of the Kubeflow Model Registry."""

OPENLINEAGE, MLFLOW, REGISTRY = "OpenLineage", "MLflow", "Model Registry"
EXTRAS = {OPENLINEAGE: ("lineage", "openlineage"), MLFLOW: ("mlflow", "mlflow"), REGISTRY: ("model-registry", "model_registry")}
"""Integration -> the extra that it needs, and the module that the extra installs."""


def configured() -> list[str]:
    """Return the integrations that the environment asks for."""
    wanted = {OPENLINEAGE: _openlineage(), MLFLOW: bool(_value("MLFLOW_TRACKING_URI")), REGISTRY: bool(_value(MODEL_REGISTRY))}
    return [name for name, asked in wanted.items() if asked]


def active() -> list[str]:
    """Return the integrations that are configured and installed."""
    return [name for name in configured() if find_spec(EXTRAS[name][1])]


def missing() -> Iterator[str]:
    """Yield one line, with the remedy, for each integration that is configured and whose extra is not installed."""
    for name in configured():
        extra, module = EXTRAS[name]
        if not find_spec(module):
            remedy = f"pip install 'penstock[{extra}]', or build the image with EXTRAS={extra}"
            yield f"warning: {name} is configured but not installed; {remedy}"


def run_id() -> str:
    """Return the pipeline run's ID; empty outside of runs."""
    return _value(RUN)


def _openlineage() -> bool:
    """Look where the library itself looks, which would print events to the log if it found nothing."""
    if _value("OPENLINEAGE_DISABLED").lower() == "true":
        return False
    named = any(name == "OPENLINEAGE_URL" or name.startswith("OPENLINEAGE__TRANSPORT") for name, value in os.environ.items() if value)
    places = [Path("openlineage.yml"), Path("~/.openlineage/openlineage.yml").expanduser()]
    if config := _value("OPENLINEAGE_CONFIG"):
        places.insert(0, Path(config))
    return named or any(place.is_file() for place in places)


def _value(name: str) -> str:
    return os.environ.get(name, "").strip()
