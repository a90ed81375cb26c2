"""Random changes to training pictures, which teach a network what does not matter.

| name | what | `auto` takes it for |
|---|---|---|
| none | nothing | |
| light | shifts of up to 8% | |
| affine | rotations of up to 10 degrees, scale 0.9 to 1.1, shifts of up to 8% | grey pictures: digits, letters, scans |
| photo | a mirror image half the time, scale 0.9 to 1.1, shifts of up to 10% | RGB pictures |

Only `photo` mirrors: a mirrored letter is another letter. torchvision's transforms draw one change per batch; these draw one per
picture, in one call on the device, which on a CPU takes about a tenth of a training step.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from components.classifier.images import ImageSpec
from components.train.distributed import ALONE, Group


@dataclass(frozen=True)
class Augmentation:
    """The largest changes: rotation in degrees, relative scale, shift as a fraction of the side, and whether pictures are mirrored."""

    degrees: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    mirror: bool = False

    def __call__(self, pictures: Tensor, generator: torch.Generator, group: Group = ALONE, whole: int = 0) -> Tensor:
        """Return float pictures (N, C, H, W), each changed in its own random way; edge pixels are repeated outwards.

        The generator is on the CPU, so that every device draws the same numbers. Of a group, each process draws for all pictures of
        the batch, `whole`, and uses what its own part is given: a picture's change does not depend on the number of processes.
        """
        if self == Augmentation():
            return pictures
        count, _, height, width = pictures.shape
        draws = group.part(torch.rand(whole or count, 5, generator=generator)).to(pictures.device) * 2 - 1
        angle = draws[:, 0] * math.radians(self.degrees)
        size = 1 + draws[:, 1] * self.scale
        flip = torch.where(draws[:, 2] < 0, -1.0, 1.0) if self.mirror else torch.ones_like(size)
        cosine, sine = torch.cos(angle) / size, torch.sin(angle) / size
        ratio = height / width  # the grid runs from -1 to 1 along both sides: without this a rotation would shear
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
    """Return the name of an augmentation and the augmentation; `auto` becomes the name that suits pictures of `spec`."""
    if name == "auto":
        name = "photo" if spec.channels == 3 else "affine"
    return name, _BY_NAME[name]
