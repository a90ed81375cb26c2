"""Labelling in the browser: which pictures, in which order, by which keys, and the pictures themselves."""

import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from components.classifier.decode import decode
from components.classifier.errors import UsageError
from components.classifier.images import as_image
from components.review.export import classes_of, newest_by_picture
from components.review.queue import QueuedPicture

STATES = ("any", "unlabelled", "labelled", "conflicting")
REASONS = ("any", "low_confidence", "unfamiliar", "audit")
MAX_BUTTONS = 30
"""Classes up to which each has a button; of more, the likeliest three, and a list."""
THUMBNAIL, LARGE = 112, 560
"""Longest side of a picture in the list, and of the one to label, in pixels."""
_FILE = re.compile(r"[0-9a-f]{24}\.[a-z0-9]{3,4}")


@dataclass(frozen=True)
class Chosen:
    """The part of the queue that is looked at."""

    state: str = "any"
    reason: str = "any"
    version: str = ""


EVERYTHING = Chosen()


@dataclass(frozen=True)
class Choice:
    """A class that a picture can get, and the digits that choose it."""

    label: str
    key: str


def read_chosen(state: str, reason: str, version: str) -> Chosen:
    """Check what an address asks for; raises UsageError."""
    if state not in STATES or reason not in REASONS:
        raise UsageError(f"a state is one of {', '.join(STATES)}, a reason one of {', '.join(REASONS)}")
    return Chosen(state, reason, version)


def select(entries: Iterable[QueuedPicture], chosen: Chosen) -> list[QueuedPicture]:
    """One entry for each picture that is asked for, in the order of `penstock review export`."""
    return [entry for entry in _in_order(entries, chosen) if chosen.state in {"any", entry.labels.state}]


def _in_order(entries: Iterable[QueuedPicture], chosen: Chosen) -> list[QueuedPicture]:
    found = [entry for entry in entries if chosen.version in {"", entry.version}]
    return newest_by_picture(entry for entry in found if chosen.reason == "any" or chosen.reason in entry.reasons)


def counts(entries: Iterable[QueuedPicture]) -> Counter[str]:
    """How many pictures are in each state."""
    return Counter(entry.labels.state for entry in newest_by_picture(entries))


def next_entry(entries: Sequence[QueuedPicture], chosen: Chosen, *, picture: str = "", after: str = "") -> tuple[QueuedPicture | None, int]:
    """The picture to label, and how many are left with it.

    `picture`: exactly this one. `after`: the first that is asked for behind this one in the order, so that skipped ones do not come
    back. Raises UsageError for a picture that is not in the queue.
    """
    if picture:
        found = next((entry for entry in newest_by_picture(entries) if entry.id == picture), None)
        if found is None:
            raise UsageError(f"no picture {picture!r} in the review queue")
        return found, 1
    ordered = _in_order(entries, chosen)
    passed = next((position for position, entry in enumerate(ordered, 1) if entry.id == after), 0)
    left = [entry for entry in ordered[passed:] if chosen.state in {"any", entry.labels.state}]
    return (left[0] if left else None), len(left)


def choices(identity: str, entries: Iterable[QueuedPicture]) -> list[Choice]:
    """The classes of a picture in the order of their names, each with its key.

    A class that is a digit has that digit where all are; else up to ten classes have 1 to 9 and 0, and more of them numbers of equal
    length, such as 07, so that no key waits for another.
    """
    classes = classes_of(identity, entries)
    if all(re.fullmatch("[0-9]", name) for name in classes):
        return [Choice(name, name) for name in classes]
    width = 1 if len(classes) <= 10 else len(str(len(classes)))
    return [Choice(name, f"{number % 10**width:0{width}d}") for number, name in enumerate(classes, 1)]


def likely(entry: QueuedPicture, every: Sequence[Choice]) -> list[Choice]:
    """The classes that get a button: all where they are few, else the three that the model found likeliest."""
    if len(every) <= MAX_BUTTONS:
        return list(every)
    probabilities = entry.prediction.probabilities
    return sorted(every, key=lambda choice: -probabilities.get(choice.label, 0.0))[:3]


def check_file_name(file_name: str) -> str:
    """Return the name of a queued picture's file; raises UsageError for any other text."""
    if not _FILE.fullmatch(file_name):
        raise UsageError(f"{file_name!r} is not a picture of the review queue")
    return file_name


def shown(picture: bytes, side: int, levels: int = 16) -> bytes:
    """A picture as PNG that fits into a square of `side` pixels; a small one is enlarged by a whole number, its pixels as they are.

    `levels` are those of the version that predicted. Raises ImageError as `decode` does.
    """
    image = as_image(decode(picture, levels=levels))
    times = side // max(image.size)
    if times > 1:
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
