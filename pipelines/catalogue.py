"""Which pipelines there are, by the names that the command line uses."""

import importlib
from typing import Any

from components.classifier.errors import UsageError

PIPELINES = {
    "training": ("pipelines.training", "training_pipeline"),
    "retraining": ("pipelines.training", "retraining_pipeline"),
    "search": ("pipelines.search", "search_pipeline"),
    "scoring": ("pipelines.scoring", "scoring_pipeline"),
    "deployment": ("pipelines.deployment", "deployment_pipeline"),
    "approval": ("pipelines.deployment", "approval_pipeline"),
    "variant": ("pipelines.variant", "variant_pipeline"),
}


def load_pipeline(name: str) -> Any:
    """Import a pipeline by its short name; importing all of them would cost every command a second.

    Raises UsageError for a name that is not in PIPELINES.
    """
    if name not in PIPELINES:
        raise UsageError(f"no pipeline {name!r}; there are {', '.join(PIPELINES)}")
    module, function = PIPELINES[name]
    return getattr(importlib.import_module(module), function)
