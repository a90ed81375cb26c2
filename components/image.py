"""How every step is declared: one image, no installation at pod start."""

import functools
import os

from kfp import dsl

DEFAULT_IMAGE = "penstock-pipeline:0.1.0"
IMAGE = os.environ.get("PENSTOCK_IMAGE", DEFAULT_IMAGE)
"""The image of all steps, read when a pipeline is compiled; name an immutable tag or a digest."""

component = functools.partial(dsl.component, base_image=IMAGE, install_kfp_package=False)
