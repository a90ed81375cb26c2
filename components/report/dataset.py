"""What ingest found as one page: counts, checks, what was set aside, and pictures of two splits that look alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from components.bundle.dataset import SPLITS, DatasetInfo
from components.classifier.images import Pixels
from components.report.html import template
from components.report.views import picture_address

MAX_PAIRS, MAX_FILES = 60, 200
"""What is shown of each at most."""


@dataclass(frozen=True)
class PictureOfDataset:
    """One picture, uint8 (H, W, C), and where it is from."""

    name: str
    split: str
    label: str
    pixels: Pixels

    @property
    def address(self) -> tuple[str, bool]:
        """The picture as a data address, and whether it is drawn larger than it is."""
        return picture_address(self.pixels)


def render_dataset(info: DatasetInfo, alike: Sequence[tuple[PictureOfDataset, PictureOfDataset, float]], found: int) -> str:
    """Render the page; `alike`: a picture, the one of another split that it looks like, and their correlation; `found` are there in all."""
    totals = {split: sum(info.counts[split].values()) for split in SPLITS}
    return template("dataset.html.jinja").render(
        info=info, splits=SPLITS, totals=totals, alike=alike, more=found - len(alike), max_files=MAX_FILES
    )
