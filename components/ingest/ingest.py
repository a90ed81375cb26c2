"""From a source to a dataset version: read, check, split, write."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.bundle import dataset
from components.bundle.dataset import SPLITS, DatasetInfo, SplitName
from components.classifier import images
from components.classifier.errors import DataError, UsageError
from components.classifier.images import ImageSpec
from components.ingest import extra, likeness, sources, split
from components.ingest.checks import (
    Check,
    check_classes,
    check_columns,
    check_companions,
    check_constant,
    check_levels,
    check_names,
    check_weights,
    resolve_duplicates,
)
from components.ingest.collection import SPLIT_CODE, Collection, FileRows, Selection, blocks, from_arrays
from components.ingest.pixels import Log
from components.ingest.split import add_groups, check_groups
from components.integrations import steps
from components.integrations.observe import observed
from components.readers.listing import counted, quoted, some
from components.registry import kept_dataset
from components.report.html import MAX_PAIRS, render_dataset
from components.settings.ingest import IngestSettings

SCRATCH = ".scratch"

_print_now: Callable[[str], None] = partial(print, flush=True)


@observed(steps.ingest)
def ingest(source: str, path: str | Path, options: IngestSettings | None = None, log: Log = _print_now, store: str = "") -> DatasetInfo:
    """Read `source`, check it, split it and write it as a dataset version into the folder `path`.

    A source that is a dataset version kept in a store is copied as it is. `store` is where `keep_dataset` keeps the dataset. Returns
    what dataset.json holds; that file is written last, so that a broken run leaves no dataset. Progress and a summary go to `log`, one
    line per call. Raises DataError or UsageError, naming file, class or limit and the remedy, and StoreError where the store fails.
    """
    options = options or IngestSettings()
    if options.keep_dataset and not store:
        raise UsageError("keep_dataset needs a store; set store")
    path = Path(path)
    if kept_dataset.is_kept(source):
        with _workspace(path):
            info = kept_dataset.fetch(source, path, options)
        log(f"note: source {source}: a kept dataset version, taken as it is; it was made of {info.source}")
        _tell_result(info, [Check(**check) for check in info.checks], log)
    else:
        info = _make(source, path, options, log)
    if options.keep_dataset:
        log(f"note: the dataset is kept as {kept_dataset.keep(path, info, store)}")
    return info


def _make(source: str, path: Path, options: IngestSettings, log: Log) -> DatasetInfo:
    with _workspace(path) as scratch:
        collection = _as_wanted(sources.load(source, options, scratch, log), options, scratch)
        if "file" in collection.columns:
            collection.columns["source_file"] = collection.columns.pop("file")
            collection.notes.append("column file is kept as source_file, since file says where a picture came from")
        add_groups(collection, options)
        _tell_found(source, collection, log)
        keep = np.ones(len(collection), bool)
        checks = _check(collection, keep, options)
        splits = split.assign(collection, keep, options)
        checks += check_groups(collection, splits, bool(options.extra_training_source))
        checks += check_weights(collection, splits, options)
        more = _extra(collection, options, scratch, log) if options.extra_training_source else None
        pictures = _pictures(collection, splits, more)
        alike = likeness.find(pictures, scratch / "thumbnails", log)
        checks += [likeness.check_likeness(pictures, alike, options.max_near_duplicates), *([more.check] if more else [])]
        shown = [(pictures.shown(match.k), pictures.shown(match.other), match.correlation) for match in alike[:MAX_PAIRS]]
        report = partial(render_dataset, alike=shown, found=len(alike))
        info = _write(source, path, collection, splits, checks, options, report, more)
        _tell_result(info, checks, log)
        return info


@contextmanager
def _workspace(path: Path) -> Iterator[Path]:
    """An empty folder in `path`, gone afterwards; raises DataError where that, or the source, is not to be written or read."""
    scratch = path / SCRATCH
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        (path / "dataset.json").unlink(missing_ok=True)
        yield scratch
    except OSError as error:
        if error.filename and not Path(os.fsdecode(error.filename)).absolute().is_relative_to(path.absolute()):
            raise DataError(f"{error.filename} cannot be read ({error.strerror}); give the right to read it, or another source") from error
        raise DataError(
            f"the dataset cannot be written to {path} ({error.strerror or error}); free space or give another folder"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _as_wanted(collection: Collection, options: IngestSettings, scratch: Path) -> Collection:
    """Bring pictures that came as arrays to the size and channels that were asked for."""
    height, width, channels = collection.images.shape[1:]
    size = options.image_size or (height, width)
    wanted = ImageSpec(size[0], size[1], options.channels or channels)
    if not len(collection) or wanted.shape == (height, width, channels):
        return collection
    resized = FileRows(scratch / "resized", (len(collection), *wanted.shape))
    with resized.path.open("wb") as file:
        for image in chain.from_iterable(blocks(collection.images)):
            file.write(images.prepare(image, wanted).data)
    changed = from_arrays(resized, collection.labels, collection.classes, collection.given, collection.names)
    return replace(collection, images=changed.images, prints=changed.prints, constant=changed.constant)


def _extra(collection: Collection, options: IngestSettings, scratch: Path, log: Log) -> extra.Extra:
    """Read the extra training source at the size of the first."""
    height, width, channels = collection.images.shape[1:]
    wanted = options.model_copy(update={"image_size": (height, width), "channels": channels})
    workspace = scratch / "extra"
    workspace.mkdir()
    more = _as_wanted(sources.load(options.extra_training_source, wanted, workspace, log), wanted, workspace)
    _tell_found(options.extra_training_source, more, log)
    return extra.choose(collection, more)


def _pictures(collection: Collection, splits: npt.NDArray[np.int8], more: extra.Extra | None) -> likeness.Pictures:
    """All pictures, those of the extra training source included."""
    if more is None:
        return likeness.Pictures(collection.images, splits, collection.names, collection.labels, collection.classes)
    return likeness.Pictures(
        extra.Joined(collection.images, more.images),
        np.concatenate([splits, np.full(len(more.labels), SPLIT_CODE["train"], np.int8)]),
        [*collection.names, *more.names],
        np.concatenate([collection.labels, more.labels]),
        collection.classes,
    )


def _check(collection: Collection, keep: npt.NDArray[np.bool_], options: IngestSettings) -> list[Check]:
    """Run all checks; those that drop pictures change `keep`, so the classes are looked at before and after."""
    check_classes(collection, keep, copies_count=True)
    limit = max(options.max_duplicates, collection.known_duplicates)
    checks = [
        check_names(collection),
        check_constant(collection, keep, options.levels),
        check_levels(collection, options.levels),
        *resolve_duplicates(collection, keep, limit),
    ]
    return [check_classes(collection, keep), *checks, *filter(None, (check_columns(collection), check_companions(collection)))]


def _write(
    source: str,
    path: Path,
    collection: Collection,
    splits: npt.NDArray[np.int8],
    checks: list[Check],
    options: IngestSettings,
    report: Callable[[DatasetInfo], str],
    more: extra.Extra | None,
) -> DatasetInfo:
    parts: dict[SplitName, tuple[dataset.Rows, dataset.Labels]] = {}
    columns: dict[SplitName, dict[str, list[Any]]] = {}
    counts: dict[str, dict[str, int]] = {}
    for name in SPLITS:
        chosen = np.flatnonzero(splits == SPLIT_CODE[name])
        labels = collection.labels[chosen]
        rows: dataset.Rows = Selection(collection.images, chosen)
        columns[name] = {"file": [collection.names[k] for k in chosen]}
        columns[name] |= {column: [values[k] for k in chosen] for column, values in collection.columns.items()}
        if more and name == "train":
            rows, labels = extra.Joined(rows, more.images), np.concatenate([labels, more.labels])
            for column, values in columns[name].items():
                values += more.names if column == "file" else [None] * len(more.names)
        parts[name] = (rows, labels)
        counts[name] = {class_name: int((labels == k).sum()) for k, class_name in enumerate(collection.classes)}
    height, width, channels = collection.images.shape[1:]
    info = DatasetInfo(
        source=f"{source} and, for training only, {options.extra_training_source}" if more else source,
        classes=collection.classes,
        shape=(height, width, channels),
        counts=counts,
        seed=options.split_seed,
        levels=options.levels,
        group=collection.group,
        weight=options.weight_column,
        checks=[check.as_dict() for check in checks],
        set_aside=[*collection.set_aside, *(more.set_aside if more else [])],
    )
    return dataset.write(path, info, parts, columns, report)


def _tell_found(source: str, collection: Collection, log: Log) -> None:
    shape = ImageSpec(*collection.images.shape[1:4])
    counts = np.bincount(collection.labels, minlength=len(collection.classes))
    per_class = some((f"{quoted(name)} {count}" for name, count in zip(collection.classes, counts, strict=True)), 30)
    log(f"note: source {source}: {counted(len(collection), 'picture')} of {shape} in {len(collection.classes)} classes: {per_class}")
    for note in collection.notes:
        log(f"note: {note}")
    for entry in collection.set_aside[:20]:
        log(f"warning: set aside {quoted(entry['file'])}: {entry['reason']}")
    if len(collection.set_aside) > 20:
        log(f"warning: set aside {len(collection.set_aside) - 20} more; dataset.json names them all")


def _tell_result(info: DatasetInfo, checks: list[Check], log: Log) -> None:
    for check in checks:
        log(f"{'check' if check.passed else 'warning'}: {check.name}: {check.detail}")
    for name in SPLITS:
        counts = info.counts[name].values()
        log(f"{name}: {sum(counts):,} pictures, {min(counts):,} to {max(counts):,} per class")
        if lacking := [class_name for class_name, count in info.counts[name].items() if not count]:
            log(f"warning: the {name} split has no picture of {some(lacking)}")
    log(f"{counted(len(info.set_aside), 'file')} set aside; dataset digest {info.digest[:12]}")
