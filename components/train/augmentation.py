"""Random changes to training pictures, so that a network learns what does not matter.

| name | what | `auto` takes it for |
|---|---|---|
| none | nothing | |
| light | shifts of up to 8% | |
| affine | rotations of up to 10 degrees, scale 0.9 to 1.1, shifts of up to 8% | grey pictures: digits, letters, scans |
| photo | a mirror image half the time, scale 0.9 to 1.1, shifts of up to 10% | RGB pictures |

Only `photo` mirrors: a mirrored letter is another letter. torchvision's transforms draw once for a whole batch; these draw for
each picture, in one call on the device, which costs a CPU about a tenth of a training step.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from components.classifier.images import ImageSpec


@dataclass(frozen=True)
class Augmentation:
    """How far pictures may be moved: degrees, relative scale, shift as a share of the side, and whether they are mirrored."""

    degrees: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    mirror: bool = False

    def __call__(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """Move each picture (N, C, H, W, float) by its own random transformation; edges are continued outwards.

        The generator is on the CPU, so that every device draws the same.
        """
        if self == Augmentation():
            return pictures
        count, _, height, width = pictures.shape
        draws = torch.rand(count, 5, generator=generator).to(pictures.device) * 2 - 1
        angle = draws[:, 0] * math.radians(self.degrees)
        size = 1 + draws[:, 1] * self.scale
        flip = torch.where(draws[:, 2] < 0, -1.0, 1.0) if self.mirror else torch.ones_like(size)
        cosine, sine = torch.cos(angle) / size, torch.sin(angle) / size
        ratio = height / width  # the grid runs from -1 to 1 on both sides: without this a rotation would shear
        x = torch.stack([cosine * flip, -sine * ratio, draws[:, 3] * 2 * self.shift], dim=1)
        y = torch.stack([sine * flip / ratio, cosine, draws[:, 4] * 2 * self.shift], dim=1)
        grid = F.affine_grid(torch.stack([x, y], dim=1), list(pictures.shape), align_corners=False)
        return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)


_BY_NAME = {
    "none": Augmentation(),
    "light": Augmentation(shift=0.08),
    "affine": Augmentation(degrees=10, scale=0.1, shift=0.08),
    "photo": Augmentation(scale=0.1, shift=0.1, mirror=True),
}


def resolve(name: str, spec: ImageSpec) -> tuple[str, Augmentation]:
    """Return the name that `auto` stands for with these pictures (other names stay), and what it does."""
    if name == "auto":
        name = "photo" if spec.channels == 3 else "affine"
    return name, _BY_NAME[name]
