"""A listing of picture files as a collection: classes from the folders, pixels from the files."""

from collections import Counter
from pathlib import Path

import numpy as np

from components.classifier.cpu import available_cpus
from components.classifier.errors import DataError
from components.ingest import columns
from components.ingest.collection import SPLIT_CODE, Collection, natural
from components.ingest.decoding import Decoded, Log, decode_members
from components.ingest.layout import WANTED, Layout, arrange
from components.ingest.listing import Listing, counted, looks_like_picture, some, suffix
from components.settings.ingest import IngestSettings

MAX_UNREADABLE = 0.25
"""Share of the pictures that may be set aside before the source is refused as a whole."""


def load(listing: Listing, options: IngestSettings, scratch: Path, log: Log) -> Collection:
    """Decode the pictures of a listing and label them by their folders.

    Raises DataError when the folders are no classes, and when unreadable pictures are refused: by option, or being too many.
    """
    layout = arrange(listing)
    members = sorted((m for m in listing.members if m.name in layout.places), key=lambda member: member.name)
    decoded = decode_members(members, options, scratch, max(listing.workers, available_cpus()), log)
    faults = [*listing.faults, *_outside(listing, layout), *((member.name, reason) for member, reason in decoded.faults)]
    _check_faults(faults, len(decoded.members), options)
    classes = natural(sorted(layout.class_names))
    index = {name: k for k, name in enumerate(classes)}
    places = [layout.places[member.name] for member in decoded.members]
    attributes, remarks = columns.read(listing, layout.root, [member.name for member in decoded.members])
    collection = Collection(
        images=decoded.images,
        labels=np.array([index[place.class_name] for place in places], np.int64),
        classes=classes,
        given=np.array([SPLIT_CODE[place.split] for place in places], np.int8),
        names=[member.name for member in decoded.members],
        prints=decoded.prints,
        constant=np.array(decoded.constant, bool),
        set_aside=[{"file": name, "reason": reason} for name, reason in faults],
        notes=[*listing.notes, *layout.notes, *_others(listing, layout, decoded), *remarks],
        columns={name: list(values) for name, values in attributes.items()},
        other_files=Counter(layout.places[member.name].class_name for member in decoded.others),
    )
    if not len(collection) and not faults:
        raise DataError(f"{listing.address} holds no pictures in its class folders ({some(classes)}); {WANTED}")
    return collection


def _outside(listing: Listing, layout: Layout) -> list[tuple[str, str]]:
    """Pictures beside the class folders: they have no label."""
    return [
        (m.name, "lies outside the class folders") for m in listing.members if m.name not in layout.places and looks_like_picture(m.name)
    ]


def _others(listing: Listing, layout: Layout, decoded: Decoded) -> list[str]:
    others = [m.name for m in decoded.others]
    outside = [m.name for m in listing.members if m.name not in layout.places and not looks_like_picture(m.name)]
    others += [name for name in outside if name != layout.root + columns.FILE]
    if not others:
        return []
    kinds = [f"{kind or 'no suffix'} ({count})" for kind, count in sorted(Counter(suffix(name) for name in others).items())]
    return [f"passed over {counted(len(others), 'file')} without a picture, such as {others[0]}: {some(kinds)}"]


def _check_faults(faults: list[tuple[str, str]], good: int, options: IngestSettings) -> None:
    if not faults:
        return
    if options.on_unreadable == "fail":
        raise DataError(f"{counted(len(faults), 'file')} cannot be used and on_unreadable is 'fail': {_by_reason(faults)}")
    if len(faults) > MAX_UNREADABLE * (good + len(faults)):
        raise DataError(
            f"{len(faults)} of {good + len(faults)} pictures cannot be used, more than {MAX_UNREADABLE:.0%}; "
            f"repair or remove them: {_by_reason(faults)}"
        )


def _by_reason(faults: list[tuple[str, str]]) -> str:
    names: dict[str, list[str]] = {}
    for name, reason in faults:
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{some(files, 5)}: {reason}" for reason, files in list(names.items())[:6])
