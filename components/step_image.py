"""How every step is declared: in one of three images, with no installation at pod start."""

import functools
import os

from kfp import dsl

DEFAULT_IMAGE = "penstock-pipeline:0.1.0"
UNNAMED = "PENSTOCK_PREDICTOR_IMAGE"
"""Stands for the predictor's image where nothing tells it; no image can have this name, so that none is run by mistake."""


def predictor_of(image: str) -> str:
    """Return the predictor's image of the same release: the same place and tag, `penstock-predictor` for `penstock-pipeline`.

    UNNAMED when it cannot be told: the pipeline's image has another name, no tag, or a digest, which the predictor's does not share.
    """
    folder, slash, last = image.rpartition("/")
    name, _, tag = last.partition(":")
    if not tag or "@" in last or "penstock-pipeline" not in name:
        return UNNAMED
    return f"{folder}{slash}{name.replace('penstock-pipeline', 'penstock-predictor')}:{tag}"


IMAGE_VARIABLE = "PENSTOCK_IMAGE"
IMAGE = os.environ.get(IMAGE_VARIABLE, DEFAULT_IMAGE)
"""The image of the steps, read when a pipeline is compiled; name an immutable tag or a digest."""
PREDICTOR_IMAGE = os.environ.get("PENSTOCK_PREDICTOR_IMAGE") or predictor_of(IMAGE)
"""The image that serves, and in which a version is tried before; the ServingRuntime should name the same."""

SLIM_IMAGE = os.environ.get("PENSTOCK_SLIM_IMAGE") or IMAGE
"""Of the steps that need no torch, where one is named; else the image of all steps."""

component = functools.partial(dsl.component, base_image=IMAGE, install_kfp_package=False)
slim_component = functools.partial(dsl.component, base_image=SLIM_IMAGE, install_kfp_package=False)
predictor_component = functools.partial(dsl.component, base_image=PREDICTOR_IMAGE, install_kfp_package=False)
