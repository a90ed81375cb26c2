"""The sets of the training benchmark: MNIST from its files, and sets that are made here from a seed.

| name | pictures | what it is |
|---|---|---|
| digits | 8x8, grey | scikit-learn's, 10 classes, 1,258 to train on |
| mnist, mnist_part | 28x28, grey | the files in a folder; the part has 10,000 pictures to train on |
| letters | 28x28, grey | A to Z in every installed font that has them; the fonts of the test are in no other split |
| few | 28x28, grey | letters with five training pictures per class |
| many | 28x28, grey | 100 letters and signs of several alphabets, the same way |
| colour | 64x64, RGB | eight shapes, turned, of any colour, before a background of noise |
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits

from components.bundle.dataset import Split
from components.readers.idx import parse

Part = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
Parts = tuple[Split, Split, Split]
"""Training, validation, test."""

FONT_FOLDERS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path("/Library/Fonts"), Path("/System/Library/Fonts"))
LATIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SIGNS = LATIN + LATIN.lower() + "0123456789" + "ÄÖÜÑÇÅØÆÞß" + "ΓΔΘΛΞΠΣΦΨΩ" + "БГДЖЗИЙЛФЦЧШЩЫЬЭЮЯ"
NAMES = ("digits", "mnist_part", "letters", "few", "many", "colour")


def load(name: str, mnist: Path | None = None) -> Parts:
    """Make or read a set by its name; `mnist`: the folder of MNIST's four files."""
    if name.startswith("mnist"):
        if mnist is None:
            raise SystemExit("name the folder of MNIST's files: --mnist FOLDER")
        return _mnist(mnist, 10_000 if name == "mnist_part" else 54_000)
    makers: dict[str, Callable[[], Parts]] = {
        "digits": _digits,
        "letters": lambda: _letters(LATIN, None),
        "few": lambda: _letters(LATIN, 5),
        "many": lambda: _letters(SIGNS[:100], 40),
        "colour": _colour,
    }
    return makers[name]()


def _digits() -> Parts:
    data = load_digits()
    images, labels = (data.images * 255 / 16).round().astype(np.uint8)[..., None], data.target.astype(np.int64)
    order = np.random.default_rng(7).permutation(len(labels))
    return tuple(Split(images[part], labels[part]) for part in (order[:1258], order[1258:1438], order[1438:]))  # type: ignore[return-value]


def _mnist(folder: Path, pictures: int) -> Parts:
    def read(name: str) -> npt.NDArray[np.generic]:
        (file,) = sorted(folder.glob(f"{name}*"))[:1]
        return parse(file.read_bytes(), str(file))

    images, labels = read("train-images"), read("train-labels").astype(np.int64)
    order = np.random.default_rng(7).permutation(len(labels))
    test = Split(read("t10k-images")[..., None].astype(np.uint8), read("t10k-labels").astype(np.int64))
    parts = (order[:pictures], order[54_000 : 54_000 + pictures // 9])
    training, validation = (Split(images[part][..., None].astype(np.uint8), labels[part]) for part in parts)
    return training, validation, test


@cache
def fonts() -> list[Path]:
    """Return the installed fonts in which every letter from A to Z looks different from the others, in a mixed order."""
    found = sorted({path.name: path for folder in FONT_FOLDERS for path in folder.rglob("*.[to]tf")}.values(), key=lambda path: path.name)
    usable = [path for path in found if len({_glyph(path, letter).tobytes() for letter in LATIN}) == len(LATIN)]
    np.random.default_rng(7).shuffle(usable)  # type: ignore[arg-type]
    return usable


def _letters(letters: str, per_class: int | None) -> Parts:
    """Letters by font: a tenth of the fonts validates, a fifth tests; two pictures per letter and font, shifted and sized at random."""
    usable, parts = fonts(), list[Split]()
    limits = (None, None, None) if per_class is None else (per_class, math.ceil(per_class / 10), None)
    counts = [len(usable) - len(usable) // 10 - len(usable) // 5, len(usable) // 10, len(usable) // 5]
    for number, (start, count) in enumerate(zip((0, counts[0], counts[0] + counts[1]), counts, strict=True)):
        random = np.random.default_rng(number)
        made = [_letter(letters, usable[start : start + count], label, random, limits[number]) for label in range(len(letters))]
        labels = np.concatenate([np.full(len(pictures), label) for label, pictures in enumerate(made)])
        order = random.permutation(len(labels))
        parts.append(Split(np.concatenate(made)[order][..., None], labels[order].astype(np.int64)))
    return parts[0], parts[1], parts[2]


def _letter(letters: str, files: Sequence[Path], label: int, random: np.random.Generator, count: int | None) -> npt.NDArray[np.uint8]:
    wanted = [files[k] for k in random.permutation(len(files))] * 2
    absent, letter = "\U000e0001", letters[label]  # a font draws the same box for all that it has not
    has = [file for file in wanted if ord(letter) < 128 or not np.array_equal(_glyph(file, letter), _glyph(file, absent))]
    sizes = random.uniform(15, 23, len(has))
    return np.stack([_glyph(file, letter, size, *random.uniform(-3, 3, 2)) for file, size in zip(has[:count], sizes, strict=False)])


def _glyph(file: Path, letter: str, size: float = 20, x: float = 0, y: float = 0) -> npt.NDArray[np.uint8]:
    picture = Image.new("L", (28, 28))
    ImageDraw.Draw(picture).text((14 + x, 14 + y), letter, 255, ImageFont.truetype(file, size), anchor="mm")
    return np.asarray(picture)


def _colour() -> Parts:
    parts = []
    for number, count in enumerate((1600, 240, 800)):
        random = np.random.default_rng(number)
        labels = np.arange(count) % 8
        parts.append(Split(np.stack([_shape(int(label), random) for label in labels]), labels.astype(np.int64)))
    return parts[0], parts[1], parts[2]


def _shape(label: int, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A polygon or star of 3 to 6 points, of a random colour, size, place and turn, before blurred noise, under noise."""
    points, star = 3 + label % 4, label >= 4
    noise = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
    radius, turn = random.uniform(10, 24), random.uniform(0, 2 * math.pi)
    centre = random.uniform(radius, 64 - radius, 2)
    corners = 2 * points if star else points
    reach = [radius * (0.45 if star and k % 2 else 1) for k in range(corners)]
    angles = [turn + 2 * math.pi * k / corners for k in range(corners)]
    outline = [(centre[0] + r * math.cos(a), centre[1] + r * math.sin(a)) for r, a in zip(reach, angles, strict=True)]
    ImageDraw.Draw(noise).polygon(outline, fill=tuple(int(v) for v in random.integers(0, 256, 3)))
    return np.clip(np.asarray(noise) + random.normal(0, 20, (64, 64, 3)), 0, 255).astype(np.uint8)
