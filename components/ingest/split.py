"""Assigns each picture to a split: given test and validation splits stay, the rest is decided by each picture's content and the seed.

Within a class the different pictures are ranked by a keyed hash of their pixels; the first become test, the next validation.
So shares are exact per class (stratified), copies of a picture stay together, names and order of files do not matter, and
adding pictures to a source moves hardly any of the others to another split. With groups, whole groups are split (groups.py).
"""

import hashlib

import numpy as np
import numpy.typing as npt

from components.bundle.dataset import SplitName
from components.ingest.collection import SPLIT_CODE, Collection, Prints
from components.ingest.groups import assign_groups
from components.settings.ingest import IngestSettings


def assign(collection: Collection, keep: npt.NDArray[np.bool_], options: IngestSettings) -> npt.NDArray[np.int8]:
    """Give each picture its split: int8 (N,) of SPLIT_CODE; pictures that are not kept get SPLIT_CODE[None].

    Each class has at least one picture in each split that is split off; `checks.check_classes` has made that possible.
    Raises DataError where groups do not allow it.
    """
    fractions: dict[SplitName, float] = {}
    if "test" not in collection.given_splits:
        fractions["test"] = options.test_fraction
    if "validation" not in collection.given_splits:
        fractions["validation"] = options.validation_fraction
    result = np.where(keep, np.maximum(collection.given, SPLIT_CODE["train"]), SPLIT_CODE[None]).astype(np.int8)
    if collection.group:
        assign_groups(collection, fractions, options.split_seed, result)
        return result
    for label in range(len(collection.classes)):
        pool = np.flatnonzero((result == SPLIT_CODE["train"]) & (collection.labels == label))
        _split_class(collection, pool, fractions, options.split_seed, result)
    return result


def _split_class(
    collection: Collection, pool: npt.NDArray[np.intp], fractions: dict[SplitName, float], seed: int, result: npt.NDArray[np.int8]
) -> None:
    prints, member, counts = np.unique(collection.prints[pool], return_inverse=True, return_counts=True)
    ranked = _ranked(prints, seed)
    for place, (split, fraction) in enumerate(fractions.items()):
        wanted, taken = max(1, round(fraction * len(pool))), 0
        needed_later = len(fractions) - place  # one different picture for each later split, and one to train on
        chosen = np.zeros(len(prints), bool)
        left = len(ranked) - needed_later
        for number, count in zip(ranked.tolist(), counts[ranked].tolist(), strict=True):
            if left <= 0 or taken == wanted:
                break
            if taken + count <= wanted:
                chosen[number] = True
                taken, left = taken + count, left - 1
        if not taken:
            chosen[ranked[np.argmin(counts[ranked])]] = True
        result[pool[chosen[member]]] = SPLIT_CODE[split]
        ranked = ranked[~chosen[ranked]]


def _ranked(prints: Prints, seed: int) -> npt.NDArray[np.intp]:
    """The order of fingerprints by a keyed hash."""
    raw, key = prints.tobytes(), str(seed).encode()[:64]  # a single element of type S16 would lose zeros at its end
    hashes = b"".join(hashlib.blake2b(raw[at : at + 16], key=key, digest_size=16).digest() for at in range(0, len(raw), 16))
    parts = np.frombuffer(hashes, ">u8").reshape(-1, 2)
    return np.lexsort((parts[:, 1], parts[:, 0]))
