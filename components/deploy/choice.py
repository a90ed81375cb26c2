"""A version that a person chose: by its name, or the one before the champion."""

from collections.abc import Mapping
from typing import Any

from components.classifier.errors import UsageError
from components.deploy.request import DeployRequest
from components.registry import Registry
from components.settings.serving import check_target
from components.storage import open_store

PREVIOUS = "previous"


def strategy_of(asked: str) -> str:
    """Return the strategy that a wish stands for: going back is undo, and recorded as such."""
    return "rollback" if asked.strip() == PREVIOUS else "manual"


def choose(asked: str, store: str, name: str, actor: str, reason: str, target: str, serving: Mapping[str, Any]) -> str:
    """Return the version that is asked for.

    Raises UsageError for a wish that nobody may have, VersionNotFound when there is no such version.
    """
    if not asked.strip():
        raise UsageError(f"name the version to deploy, or {PREVIOUS} to go back: `penstock models list` shows which there are")
    check_target(target, store, name, serving)
    DeployRequest(asked, strategy_of(asked), None, actor=actor, reason=reason).check()
    return Registry(open_store(store), name).resolve(asked.strip())
