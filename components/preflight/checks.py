"""Asks every step's own checks about a run's parameters, and the store whether it can be written to."""

import difflib
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.classifier.errors import UsageError
from components.storage import open_store

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_OWN_ARCHITECTURE = "small_cnn"


def check_training(parameters: Mapping[str, Any], here: bool = False) -> list[str]:
    """Check the parameters of a training run; returns one line a check that passed.

    `here`: the run's steps will use this machine, so that a GPU which is asked for must be in it. Raises what the steps
    would raise, in seconds instead of after hours: UsageError, PolicyError, TrainingError, StoreError.
    """
    return list(_checks(dict(parameters), here))


def _checks(given: dict[str, Any], here: bool) -> Iterator[str]:
    _check_name(given["name"])
    yield f"name: {given['name']}"
    yield _check_ingest(given)
    yield _check_train(given, here)
    yield _check_gate(given)
    yield _check_store(given["store"])


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"name {name!r} cannot name an InferenceService; take small letters, digits and hyphens, a letter first, 63 at most"
        )


def _check_ingest(given: Mapping[str, Any]) -> str:
    from components.ingest.sources import NAMED
    from components.settings.ingest import IngestSettings, parse_channels, parse_image_size

    IngestSettings(
        image_size=parse_image_size(given["image_size"]),
        channels=parse_channels(given["channels"]),
        validation_fraction=given["validation_fraction"],
        test_fraction=given["test_fraction"],
        seed=int(given["split_seed"]),
        on_unreadable=given["on_unreadable"],
        max_duplicates=int(given["max_duplicates"]),
    )
    source = given["source"]
    if "://" not in source and source not in NAMED and not Path(source).exists():
        near = difflib.get_close_matches(source, NAMED, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"give {', '.join(NAMED)}, a folder, a tar, a zip or an s3:// address"
        raise UsageError(f"source {source!r} does not exist; {hint}")
    return f"source: {source}"


def _check_train(given: Mapping[str, Any], here: bool) -> str:
    from components.settings.training import TrainingSettings

    options = TrainingSettings(
        name=given["name"],
        architecture=given["architecture"],
        pretrained=given["pretrained"],
        epochs=given["epochs"],
        batch_size=given["batch_size"],
        learning_rate=given["learning_rate"],
        augmentation=given["augmentation"],
        device=given["device"],
        gpus=given["gpus"],
        seed=given["seed"],
    )
    if options.architecture != _OWN_ARCHITECTURE or options.pretrained:  # the names are torchvision's, whose import takes seconds
        from components.classifier.network import check_architecture
        from components.classifier.pretrained import check_pretrained

        check_architecture(options.architecture)
        if options.pretrained:
            check_pretrained(options.architecture)
    if here and (options.gpus not in {"", "0"} or options.device not in {"auto", "cpu"}):
        from components.classifier.device import choose_device

        choose_device(options.device, options.gpus)
    return f"training: {options.architecture}, {options.epochs} epochs at most"


def _check_gate(given: Mapping[str, Any]) -> str:
    from components.bundle.decision import check_strategy
    from components.bundle.environment import load_environment
    from components.settings.serving import check_target

    environment = load_environment(given["environment"])
    environment.policy.override(given["policy"])
    check_strategy(given["strategy"], given["actor"], given["reason"])
    check_target(given["target"], given["store"], given["name"], given["serving"])
    return f"gate: {given['strategy']} in {given['environment']}"


def _check_store(url: str) -> str:
    """Write and delete one small object: a registry that cannot be written is known before the training, not after."""
    store = open_store(url)
    key = f"preflight/{uuid.uuid4().hex}"
    store.create(key, b"can this be written?")
    store.delete(key)
    return f"store: {store.url} can be written"
