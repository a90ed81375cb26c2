"""Assigns each picture to a split: a given split stays, the rest is decided by each picture's content and the seed.

Within a class the different pictures are ranked by a keyed hash of their pixels; the first become test, the next validation.
So shares are exact per class (stratified), copies of a picture stay together, names and order of files do not matter, and
adding pictures to a source moves hardly any of the others to another split. With groups, whole groups are split (groups.py).
"""

import hashlib

import numpy as np
import numpy.typing as npt

from components.bundle.dataset import SplitName
from components.ingest.collection import SPLIT_CODE, Collection
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
    copies: dict[bytes, list[int]] = {}
    for k in pool:
        copies.setdefault(collection.prints[k], []).append(int(k))
    ranked = sorted(copies, key=lambda print_: hashlib.blake2b(print_, key=str(seed).encode()[:64], digest_size=16).digest())
    for place, (split, fraction) in enumerate(fractions.items()):
        wanted, taken = max(1, round(fraction * len(pool))), 0
        needed_later = len(fractions) - place  # one different picture for each later split, and one to train on
        chosen: list[bytes] = []
        for print_ in ranked:
            if taken + len(copies[print_]) <= wanted and len(ranked) - len(chosen) > needed_later:
                chosen.append(print_)
                taken += len(copies[print_])
        for print_ in chosen or [min(ranked, key=lambda print_: len(copies[print_]))]:
            ranked.remove(print_)
            result[copies[print_]] = SPLIT_CODE[split]
