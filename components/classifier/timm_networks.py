"""Networks of timm (PyTorch Image Models) by name: `timm/resnet18`, or `timm/resnet18.a1_in1k` where particular weights are meant.

timm is an extra: it is imported when a name begins with `timm/`, and is not needed otherwise.
"""

import importlib.util
from pathlib import Path
from typing import Any

from torch import nn

from components.classifier.errors import TrainingError, UsageError, did_you_mean, first_line

PREFIX = "timm/"
_INSTEAD = "add their file to the store by `penstock weights add FILE --name NAME`, and set weights=NAME in place of pretrained=true"
MIN_SIDE = 32
"""What networks without a smallest size of their own get at least: they halve a picture five times."""


def create_timm(name: str, classes: int, pretrained: bool = False) -> nn.Module:
    """Build a network with `classes` outputs: with random weights, or with those that its name stands for and a new last layer.

    Raises what `timm_config` raises, and TrainingError when the weights cannot be loaded.
    """
    timm_config(name)
    import timm

    try:
        network: nn.Module = timm.create_model(name.removeprefix(PREFIX), pretrained=pretrained, num_classes=classes)
    except (OSError, RuntimeError) as error:  # whatever the hub raises is an OSError
        if not pretrained:
            raise
        raise TrainingError(f"the pretrained weights of {name} cannot be loaded ({first_line(error)}); {_INSTEAD}") from error
    return network


def timm_size(name: str) -> tuple[tuple[int, int], bool]:
    """Return the least height and width of a picture in pixels, and whether the network takes pictures of this size only."""
    config = timm_config(name)
    if config.fixed_input_size:
        return config.input_size[1:], True
    smallest = max(MIN_SIDE, *(config.min_input_size or (3, 0, 0))[1:])
    return (smallest, smallest), False


def timm_normalisation(name: str) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of the three channels, of pixels / 255, in the network's data config."""
    config = timm_config(name)
    return list(config.mean), list(config.std)


def timm_heads(name: str) -> tuple[str, ...]:
    """Return the names of the layers that classify, within the network."""
    named = timm_config(name).classifier
    return tuple(named) if isinstance(named, tuple | list) else (named,)


def timm_source(name: str) -> tuple[str, Path, Path | None]:
    """Say where the weights come from: their address, the folder that they are kept in, and their file where it is there already.

    Raises UsageError when timm has no weights for this network.
    """
    config = timm_config(name)
    import timm

    if not config.hf_hub_id or not timm.models.is_model_pretrained(name.removeprefix(PREFIX)):
        near = [PREFIX + other for other in timm.list_models(f"{config.architecture}.*", pretrained=True)][:3]
        instead = f"use {' or '.join(near)}, or" if near else "use"
        raise UsageError(f"architecture {name!r} has no pretrained weights on the Hugging Face hub; {instead} pretrained=false")
    from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache

    names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    cached = [found for found in (try_to_load_from_cache(config.hf_hub_id, file) for file in names) if isinstance(found, str)]
    return hf_hub_url(config.hf_hub_id, names[0]), Path(constants.HF_HUB_CACHE), Path(cached[0]) if cached else None


def missing_timm_weights(name: str, problem: str, url: str) -> TrainingError:
    """The error for weights that are neither here nor can be downloaded."""
    return TrainingError(f"the pretrained weights of {name} are missing and {problem}; {_INSTEAD} (it is {url})")


def timm_config(name: str) -> Any:
    """timm's data config of a network.

    Raises UsageError when timm is not installed, or does not have this network or these weights of it; the nearest are named.
    """
    if importlib.util.find_spec("timm") is None:
        remedy = "run `pip install 'penstock[timm]'`, or make the steps' image with EXTRAS=timm"
        raise UsageError(f"architecture {name!r} needs timm, which is not installed; {remedy}")
    import timm

    plain = name.removeprefix(PREFIX)
    architecture, _, tag = plain.partition(".")
    if not timm.is_model(architecture):
        hint = did_you_mean(architecture.lower(), timm.list_models(), "`timm.list_models()` lists them", PREFIX)
        raise UsageError(f"unknown architecture {name!r}; {hint}")
    known = timm.models.get_arch_pretrained_cfgs(architecture)
    if tag and plain not in known:
        hint = did_you_mean(plain, known, f"use {PREFIX}{architecture}", PREFIX, cutoff=0.0)
        raise UsageError(f"timm has no weights {tag!r} for {architecture}; {hint}")
    config = timm.models.get_pretrained_cfg(plain)
    if config is None or config.classifier is None:
        raise UsageError(f"architecture {name!r} is not a classifier; choose another network of timm")
    return config
