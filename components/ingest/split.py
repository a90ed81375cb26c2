"""Assigns each picture to a split: given test and validation splits stay, the rest is decided by each picture's content and the seed.

Within a class the different pictures are ranked by a keyed hash of their pixels; the first become test, the next validation.
So shares are exact per class (stratified), copies of a picture stay together, names and order of files do not matter, and
adding pictures to a source moves hardly any of the others to another split.
A group is of one patient, video, camera or page, which a model knows again: the value of a column (`group_column`), or what a regular
expression finds in the picture's path (`group_pattern`). Equal pictures of two groups make these one group. Whole groups are given to
the splits, each class as near to its share as they allow.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from components.bundle.dataset import SPLITS, SplitName
from components.classifier.errors import DataError
from components.ingest.checks import Check
from components.ingest.collection import SPLIT_CODE, Collection, Prints
from components.readers.listing import counted, some
from components.settings.ingest import IngestSettings

MIN_VALUES, MIN_PICTURES = 10, 2
"""A column looks like an identifier from so many different values on, with so many pictures each on average."""
VERSION = re.compile(r"([^/]+)\.rf\.[0-9a-zA-Z]{16,}\.")
"""The name of a version of a picture that Roboflow made; its first bracket is the picture."""
SERIES = re.compile(r"([^/]*\d[^/]*?)[_. -]+\d+\.\w+$")
"""A name that is numbered within something that has a number itself, which is its first bracket."""
_NO_VALUE = frozenset(["na", "n/a", "nan", "none", "null", "unknown", "?", "-"])
"""What tables of R and pandas have in empty cells: a value like others, as it may be a name."""
PATTERN_COLUMN = "group"
"""The dataset's column that holds what `group_pattern` found."""

Splits = npt.NDArray[np.int8]


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


def add_groups(collection: Collection, settings: IngestSettings) -> None:
    """Find the group of each picture, and note it in the collection; without the settings nothing is done.

    Raises DataError for a column that is not there, names in which the pattern finds nothing, and groups that lie in several of the
    splits that the source itself has.
    """
    if settings.group_column:
        if settings.group_column not in collection.columns:
            known = some(collection.columns) or "none"
            raise DataError(f"there is no column {settings.group_column!r} of groups; the columns are: {known}")
        collection.group = settings.group_column
        values = [value and value.strip() for value in collection.columns[collection.group]]
        collection.columns[collection.group] = values
        without = sum(not value for value in values)
        if without:
            collection.notes.append(f"{counted(without, 'picture')} have no value in column {collection.group}: each is a group of its own")
        if doubtful := {value: count for value, count in Counter(values).items() if value and value.casefold() in _NO_VALUE and count > 1}:
            told = some(f"{value} ({count})" for value, count in doubtful.items())
            collection.notes.append(f"pictures with {told} in column {collection.group} are one group; leave it empty where it is unknown")
    elif settings.group_pattern:
        if PATTERN_COLUMN in collection.columns:
            raise DataError(f"the source has a column {PATTERN_COLUMN!r} already; set group_column={PATTERN_COLUMN}, or rename the column")
        collection.group = PATTERN_COLUMN
        collection.columns[PATTERN_COLUMN] = _found(settings.group_pattern, collection.names)
    if collection.group:
        _check_given(collection)


def _found(pattern: str, names: list[str]) -> list[str]:
    finds = [(name, re.search(pattern, name)) for name in names]
    groups = [(find[min(1, find.re.groups)] if find else None) or "" for _, find in finds]
    missing = [name for (name, _), group in zip(finds, groups, strict=True) if not group]
    if missing:
        raise DataError(f"group_pattern {pattern!r} finds nothing in {len(missing)} of {len(names)} names, such as {missing[0]}")
    return groups


def group_names(collection: Collection) -> list[str]:
    """The group of each picture; one without a value is a group of its own, called by its name."""
    return [value or f"\0{name}" for value, name in zip(collection.columns[collection.group], collection.names, strict=True)]


def _check_given(collection: Collection) -> None:
    places: dict[str, set[int]] = defaultdict(set)
    for name, given in zip(group_names(collection), np.maximum(collection.given, SPLIT_CODE["train"]).tolist(), strict=True):
        places[name].add(given)
    several = {name: codes for name, codes in places.items() if len(codes) > 1}
    if several:
        told = [f"{name} ({', '.join(SPLITS[code] for code in sorted(codes))})" for name, codes in several.items()]
        raise DataError(
            f"{len(several)} of {len(places)} groups ({collection.group}) are in several of the source's own splits: {some(told)}; "
            "move each into one split, or give no splits, so that they are made by groups"
        )


def check_groups(collection: Collection, splits: Splits, extra: bool = False) -> list[Check]:
    """Say how groups were split; without groups, warn of columns that look like identifiers and lie in several splits (int8 (N,)).

    `extra`: pictures of a second source are trained on, whose groups nothing tells.
    """
    if collection.group:
        names = np.array(group_names(collection), dtype=object)
        parts = {name: set(names[splits == SPLIT_CODE[name]]) for name in SPLITS}
        told = ", ".join(f"{name} {len(groups)}" for name, groups in parts.items())
        doubts = [*_doubts(set(names), len(collection), extra)]
        return [Check("groups", not doubts, "; ".join([f"every group ({collection.group}) is in one split: {told}", *doubts]))]
    checks = [*_versions(collection.names, splits), *_series(collection, splits)]
    doubtful = [detail for column, values in collection.columns.items() if (detail := _identifier(f"column {column}", values, splits))]
    if doubtful:
        told = (
            "where the values stand for people, places or recordings, the test pictures are not new to the model and the figures too good"
        )
        checks.append(Check("groups", False, f"{'; '.join(doubtful)}: {told}; keep each in one split by group_column"))
    elif collection.columns:
        checks.append(Check("groups", True, "no column looks like an identifier whose values are in several splits"))
    return checks


def _versions(names: list[str], splits: Splits) -> Iterator[Check]:
    """Warn of versions of one picture in several splits, as Roboflow makes and names them."""
    places: dict[str, set[int]] = defaultdict(set)
    for name, code in zip(names, splits.tolist(), strict=True):
        if code >= 0 and (version := VERSION.search(name)):
            places[version[1]].add(code)
    if several := [name for name, codes in places.items() if len(codes) > 1]:
        told = f"{len(several)} of {len(places)} pictures have versions (NAME.rf.…) in several splits, such as {several[0]}"
        yield Check("versions", False, f"{told}: the figures are too good; keep them together by group_pattern='{VERSION.pattern}'")


def _series(collection: Collection, splits: Splits) -> Iterator[Check]:
    """Warn of names that are numbered within something that has a number itself, as p07_1.png and p07_2.png are, in several splits."""
    found: list[str | None] = []
    for name in collection.names:
        match = SERIES.search(name)
        if not match:
            return
        found.append(match[1])
    if len(set(found)) <= 2 * len(collection.classes):  # these may be finer classes
        return
    if told := _identifier("what names begin with", found, splits):
        example = f"such as {found[0]} of {collection.names[0]}"
        told = f"{told}, {example}: where these are people, places or recordings, the figures are too good"
        yield Check("series", False, f"{told}; keep each in one split by group_pattern='{SERIES.pattern}'")


def _doubts(names: set[str], pictures: int, extra: bool) -> Iterator[str]:
    """Why groups may not keep together what belongs together."""
    if len(names) == pictures:
        yield "each group has one picture only, so that no pictures are kept together"
    alike = Counter(name.casefold() for name in names)
    twice = sorted(name for name in names if alike[name.casefold()] > 1 and not name.startswith("\0"))
    if twice:
        yield f"groups that differ only in case are several, in several splits where it happens so: {some(twice)}"
    if extra:
        yield "the extra training source does not say its groups: no picture of it may be of a group in test"


def _identifier(what: str, values: list[str | None], splits: Splits) -> str:
    places: dict[str, set[int]] = defaultdict(set)
    pictures: Counter[str] = Counter()
    for value, code in zip(values, splits.tolist(), strict=True):
        if value and code >= 0:
            places[value].add(code)
            pictures[value] += 1
    several = sum(len(codes) > 1 for codes in places.values())
    if len(places) < MIN_VALUES or pictures.total() < MIN_PICTURES * len(places) or not several:
        return ""
    return f"{several} of {len(places)} values of {what} are in several splits"


def assign_groups(collection: Collection, fractions: dict[SplitName, float], seed: int, result: Splits) -> None:
    """Move whole groups out of training, in `result` (N,), which is changed, into the splits of `fractions`.

    Groups are taken in the order of a keyed hash of their names, each that brings the counts per class nearer to the shares.
    Raises DataError where the groups leave a split without a class.
    """
    pool = np.flatnonzero(result == SPLIT_CODE["train"])
    names, member = _connected(collection, pool)
    counts = np.zeros((len(names), len(collection.classes)), np.int64)
    np.add.at(counts, (member, collection.labels[pool]), 1)
    order = np.argsort([_rank(name, seed) for name in names])
    free = np.ones(len(names), bool)
    for place, (split, fraction) in enumerate(fractions.items()):
        chosen = _choose(counts, free, np.maximum(1.0, fraction * counts.sum(axis=0)), order, len(fractions) - place)
        missing = np.flatnonzero((counts[chosen].sum(axis=0) == 0) & (counts.sum(axis=0) > 0))
        if len(missing):
            told = some(f"{collection.classes[k]} ({counted(int((counts[:, k] > 0).sum()), 'group')})" for k in missing)
            raise DataError(
                f"whole groups ({collection.group}) leave the {split} split without the classes {told}; each class must lie in at least "
                f"{len(fractions) + 1} groups that hold few pictures of other classes: add some, or remove the class"
            )
        free[chosen] = False
        result[pool[chosen[member]]] = SPLIT_CODE[split]


def _rank(name: str, seed: int) -> str:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), key=str(seed).encode()[:64], digest_size=16).hexdigest()


def _connected(collection: Collection, pool: npt.NDArray[np.intp]) -> tuple[list[str], npt.NDArray[np.intp]]:
    """Names of the groups, and which each picture of the pool belongs to; groups that share a picture are one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    of_all = group_names(collection)
    known: dict[str, int] = {}
    groups = np.array([known.setdefault(of_all[k], len(known)) for k in pool])
    different, pictures = np.unique(collection.prints[pool], return_inverse=True)
    nodes = len(known) + len(different)
    _, component = connected_components(coo_array((np.ones(len(pool)), (groups, pictures + len(known))), (nodes, nodes)), directed=False)
    names: dict[int, str] = {}
    for name, place in known.items():
        names[int(component[place])] = min(name, names.get(int(component[place]), name))
    number = {place: k for k, place in enumerate(names)}
    return list(names.values()), np.array([number[int(component[group])] for group in groups], np.intp)


def _choose(
    counts: npt.NDArray[np.int64], free: npt.NDArray[np.bool_], wanted: npt.NDArray[np.float64], order: npt.NDArray[np.intp], kept: int
) -> npt.NDArray[np.bool_]:
    """Which free groups, of `counts` (G, K) pictures, come near `wanted` (K,) per class and leave each class at least `kept` groups."""
    chosen = np.zeros(len(counts), bool)
    taken, left = np.zeros(counts.shape[1]), (counts[free] > 0).sum(axis=0)

    def distance(group: int) -> float:
        return float(((taken + counts[group] - wanted) ** 2 / wanted).sum())

    def spare(group: int) -> bool:
        return bool(free[group] and not chosen[group] and (left[counts[group] > 0] > kept).all())

    def take(group: int) -> None:
        nonlocal taken, left
        chosen[group], taken, left = True, taken + counts[group], left - (counts[group] > 0)

    for group in order:
        if spare(group) and distance(group) < ((taken - wanted) ** 2 / wanted).sum():
            take(group)
    for k in range(counts.shape[1]):
        candidates = [group for group in order if counts[group, k] and spare(group)] if not taken[k] else []
        if candidates:
            take(min(candidates, key=distance))
    return chosen
