"""Pictures that a model of digits was not trained on: noise, photographs, letters."""

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images

from components.classifier.images import Pixels

LETTERS = "ABCDEFGHJKLMNPQRTUVWXYabdefhkmnprty"
FONTS = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("DejaVuS*.ttf"))


def strange(own: Pixels) -> dict[str, Pixels]:
    """By name, grey pictures of the size of `own`, uint8 (N, H, W, 1)."""
    generator, shape = np.random.default_rng(0), own.shape[1:]
    return {
        "noise": generator.integers(0, 256, (200, *shape), dtype=np.uint8),
        "soft noise": generator.normal(128, 40, (200, *shape)).clip(0, 255).astype(np.uint8),
        "black": np.zeros((1, *shape), np.uint8),
        "white": np.full((1, *shape), 255, np.uint8),
        "grey": np.full((1, *shape), 128, np.uint8),
        "inverted": 255 - own,
        "photographs": _photographs(generator, shape[0]),
        "letters": _letters(shape[0]),
    }


def brighter(own: Pixels, by: int) -> Pixels:
    """The same pictures in another light."""
    return np.clip(own.astype(np.int16) + by, 0, 255).astype(np.uint8)


def _photographs(generator: np.random.Generator, size: int) -> Pixels:
    crops = []
    for photograph in map(Image.fromarray, load_sample_images().images):
        for _ in range(100):
            side = int(generator.integers(32, 300))
            x, y = (int(generator.integers(0, length - side)) for length in photograph.size)
            crops.append(_small(photograph.convert("L").crop((x, y, x + side, y + side)), size))
    return np.stack(crops)


def _letters(size: int) -> Pixels:
    """White on black, filling the picture as the digits do."""
    drawn = []
    for font in FONTS:
        for letter in LETTERS:
            page = Image.new("L", (96, 96))
            ImageDraw.Draw(page).text((48, 48), letter, fill=255, font=ImageFont.truetype(str(font), 56), anchor="mm")
            cut = page.crop(page.getbbox())
            square = Image.new("L", (max(cut.size), max(cut.size)))
            square.paste(cut, ((square.width - cut.width) // 2, (square.height - cut.height) // 2))
            drawn.append(_small(square, size))
    return np.stack(drawn)


def _small(picture: Image.Image, size: int) -> Pixels:
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))[..., None]
