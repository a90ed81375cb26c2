"""Weights that a name of torchvision or timm stands for, from the local cache or by download.

If neither works it is an error, never random weights.
"""

import hashlib
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

from components.classifier import timm_networks
from components.classifier.errors import TrainingError, UsageError, first_line
from components.classifier.progress import warn_once

PROBE_SECONDS = 5.0
"""How long to wait for an answer of the download server."""


def models() -> Any:
    """Return torchvision's module of classifiers, imported when it is needed: it takes 160 MB, with torch._dynamo."""
    import torchvision.models

    return torchvision.models


def check_pretrained(architecture: str) -> Path:
    """Check that the pretrained weights of an architecture are in the cache or can be downloaded; downloads nothing.

    Returns the path of the file, which may not exist before the download. Raises TrainingError when the file is damaged, or is missing
    and cannot be downloaded; UsageError when the architecture has no pretrained weights.
    """
    if architecture.startswith(timm_networks.PREFIX):
        address, folder, cached = timm_networks.timm_source(architecture)
        file = folder / address.rpartition("/")[2]
        if cached is None and (problem := _why_no_download(address, file)):
            raise timm_networks.missing_timm_weights(architecture, problem, address)
        return cached or file
    if architecture not in models().list_models(module=models()):
        raise UsageError(
            f"architecture {architecture!r} has no pretrained weights; use pretrained=false, a classifier of torchvision or timm, "
            "or weights of the store"
        )
    url: str = _weights(architecture).url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if file.is_file():
        _check_file(file, url)
        return file
    problem = _why_no_download(url, file)
    if problem:
        raise TrainingError(
            f"the pretrained weights of {architecture} are missing and {problem}; put {file.name} (from {url}) into {file.parent}, "
            "or point TORCH_HOME to a folder that holds hub/checkpoints/" + file.name
        )
    return file


def load_pretrained(architecture: str, options: dict[str, Any]) -> nn.Module:
    """Build a torchvision classifier with its ImageNet weights; `options` go to its constructor.

    Raises what `check_pretrained` raises, and TrainingError when the download fails.
    """
    file = check_pretrained(architecture)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30.0)  # torch.hub sets none: a silent server would block the step for ever
    try:
        network: nn.Module = models().get_model(architecture, weights=_weights(architecture), **options)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"the pretrained weights of {architecture} cannot be loaded ({first_line(error)}); "
            f"put an undamaged {file.name} into {file.parent}"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    return network


def normalisation(architecture: str, channels: int) -> tuple[list[float], list[float]]:
    """Return the mean and standard deviation per channel, of pixels / 255, that the pretrained weights expect.

    For grey pictures (`channels` 1) it is the average of the three channels.
    """
    if architecture.startswith(timm_networks.PREFIX):
        mean, std = timm_networks.timm_normalisation(architecture)
    else:
        preset = _weights(architecture).transforms()
        mean, std = list(preset.mean), list(preset.std)
    return (mean, std) if channels == 3 else ([sum(mean) / 3], [sum(std) / 3])


def has_data_config(architecture: str) -> bool:
    """Say whether an architecture has a normalisation of its own: that of torchvision's or timm's weights."""
    return architecture.startswith(timm_networks.PREFIX) or architecture in models().list_models(module=models())


def _weights(architecture: str) -> Any:
    return models().get_model_weights(architecture).DEFAULT


def _check_file(file: Path, url: str) -> None:
    named = re.search(r"-([0-9a-f]{8,})\.pth$", file.name)
    if named is None or sha256(file).startswith(named.group(1)):
        return
    try:  # somebody else's file under this name: load it without unpickling objects, which torchvision would not do
        torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{file} is damaged or holds no weights; replace it by {url}") from error
    warn_once(f"{file} is not torchvision's file (SHA-256 {sha256(file)[:12]}…); its weights are used all the same")


def sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _why_no_download(url: str, file: Path) -> str:
    folder = next(parent for parent in file.parents if parent.exists())
    if not os.access(folder, os.W_OK):
        return f"{folder} is not writable"
    outcome: list[str] = []

    def probe() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS):
                outcome.append("")
        except (OSError, ValueError) as error:
            outcome.append(f"cannot be downloaded ({getattr(error, 'reason', error)})")

    thread = threading.Thread(target=probe, daemon=True)  # urlopen's timeout does not cover the DNS lookup
    thread.start()
    thread.join(PROBE_SECONDS + 1)
    return outcome[0] if outcome else f"the network did not answer within {PROBE_SECONDS:g} s"
