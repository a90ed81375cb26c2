"""torchvision's ImageNet weights: from the local cache, or by download where there is a network; never random ones instead."""

import hashlib
import logging
import os
import pickle
import re
import socket
import threading
import urllib.request
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models

from components.classifier.errors import TrainingError, UsageError, first_line
from components.classifier.network import OWN, check_architecture

log = logging.getLogger(__name__)

PROBE_SECONDS = 5.0
"""How long the download server may take to answer before the network counts as absent."""


def check_pretrained(architecture: str) -> Path:
    """Make sure that an architecture's pretrained weights can be had, before anything costs time.

    Returns where the file lies, or will lie after its download. Raises TrainingError, naming the file and its place, when it is
    damaged, or not there and there is no network; UsageError when the architecture has no pretrained weights.
    """
    check_architecture(architecture)
    if architecture in OWN:
        raise UsageError(f"architecture {architecture!r} has no pretrained weights; use pretrained=false or a classifier of torchvision")
    url: str = _weights(architecture).url
    place = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if place.is_file():
        _check_file(place, url)
        return place
    problem = _why_no_download(url, place)
    if problem:
        raise TrainingError(
            f"the pretrained weights of {architecture} are missing and {problem}; put {place.name} (from {url}) into {place.parent}, "
            "or point TORCH_HOME to a folder that holds hub/checkpoints/" + place.name
        )
    return place


def load_pretrained(architecture: str, options: dict[str, Any]) -> nn.Module:
    """Build a torchvision classifier with its ImageNet weights.

    Raises TrainingError as `check_pretrained` does, or when the download breaks off.
    """
    place = check_pretrained(architecture)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30.0)  # torch.hub sets none: a silent server would hold the step for ever
    try:
        network: nn.Module = models.get_model(architecture, weights=_weights(architecture), **options)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"the pretrained weights of {architecture} cannot be loaded ({first_line(error)}); put a sound {place.name} into {place.parent}"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    return network


def normalisation(architecture: str, channels: int) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation per channel (of pixels / 255) that the pretrained weights expect; their average for grey."""
    preset = _weights(architecture).transforms()
    if channels == 1:
        return [sum(preset.mean) / 3], [sum(preset.std) / 3]
    return list(preset.mean), list(preset.std)


def _weights(architecture: str) -> Any:
    return models.get_model_weights(architecture).DEFAULT


def _check_file(place: Path, url: str) -> None:
    named = re.search(r"-([0-9a-f]{8,})\.pth$", place.name)
    if named is None or sha256(place).startswith(named.group(1)):
        return
    try:  # a file of someone else's under this name: torchvision would unpickle whatever it holds
        torch.load(place, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{place} is damaged or holds no weights; replace it by {url}") from error
    log.warning("%s is not torchvision's file (SHA-256 %s…); its weights are used all the same", place, sha256(place)[:12])


def sha256(place: Path) -> str:
    """Hash a file; 64 hexadecimal digits."""
    with place.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _why_no_download(url: str, place: Path) -> str:
    folder = next(parent for parent in place.parents if parent.exists())
    if not os.access(folder, os.W_OK):
        return f"{folder} cannot be written"
    outcome: list[str] = []

    def probe() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS):
                outcome.append("")
        except (OSError, ValueError) as error:
            outcome.append(f"cannot be downloaded ({getattr(error, 'reason', error)})")

    thread = threading.Thread(target=probe, daemon=True)  # the timeout of urlopen does not cover looking up the name
    thread.start()
    thread.join(PROBE_SECONDS + 1)
    return outcome[0] if outcome else f"the network gives no answer within {PROBE_SECONDS:g} s"
