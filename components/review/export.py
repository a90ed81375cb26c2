"""The queue as folders: one for people to label, one for ingest to train on; and the labels back.

`write_suspects` makes the same folder for people of test pictures whose label may be wrong.

DIR/index.html         for review: every picture with its classes to click, gives labels.csv
DIR/labels.csv         the same by spreadsheet: fill in the column `label`
DIR/pictures/ID.png

DIR/train/CLASS/ID.png    labelled pictures, a source for training only
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import resources
from itertools import zip_longest
from pathlib import Path

from components.bundle.evaluation import Evaluation
from components.bundle.mistakes import WrongPicture, most_suspect, thumbnails_by_row, wrong_pictures
from components.bundle.predictions import Predictions
from components.classifier.errors import DataError, ObjectNotFound, UsageError, listed
from components.classifier.images import encode_png
from components.readers.listing import some
from components.readers.table import csv_rows
from components.review.labels import UNUSABLE
from components.review.queue import QueuedPicture, ReviewQueue
from components.storage.files import new_directory

LABELS, PAGE, PICTURES = "labels.csv", "index.html", "pictures"
LABEL_SO_FAR = "label_so_far"
"""The column that only the labels.csv of test pictures has."""
_DATA_MARK = "/*DATA*/"
_NAMED = 5
_NOT_SHOWN = {".tif", ".ppm", ".jp2", ".heic"}


@dataclass
class ImportReport:
    """What an import did, per row of the file."""

    recorded: int = 0
    unchanged: int = 0
    """The reviewer had given the same label already."""
    superseded: list[str] = field(default_factory=list)
    """The reviewer had given this label and another one since, or the disagreement was resolved differently: nothing was changed."""
    empty: int = 0
    conflicting: list[str] = field(default_factory=list)
    """Pictures of the import about which reviewers now disagree: left out of training and accuracy until resolved."""


def newest_by_picture(entries: Iterable[QueuedPicture]) -> list[QueuedPicture]:
    """Keep one entry per picture, the newest version's; least confident first.

    Audited pictures alone come by ID, which is a random order: whoever stops half way has labelled a random part of the sample.
    """
    newest: dict[str, QueuedPicture] = {}
    for entry in sorted(entries, key=lambda entry: entry.version):
        newest[entry.id] = entry
    at_random = all("audit" in entry.reasons for entry in newest.values())
    return sorted(newest.values(), key=lambda entry: (0.0 if at_random else entry.prediction.confidence, entry.id))


@dataclass
class ExportReport:
    """What an export wrote: pictures by class (by predicted class where they are to be labelled)."""

    classes: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    """Pictures that were removed from the store, and are left out."""

    @property
    def pictures(self) -> int:
        """How many were written."""
        return sum(self.classes.values())


@dataclass(frozen=True)
class Card:
    """One picture of the page: its file below `pictures/`, the classes offered first, all of them, and more columns of labels.csv."""

    picture: str
    likely: list[str]
    classes: list[str]
    columns: dict[str, str]


def write_page(folder: Path, cards: Sequence[Card]) -> None:
    """Write the page and the table in which a folder's pictures are labelled."""
    buffer = io.StringIO()
    columns = {card.picture: {"picture": card.picture, "label": "", **card.columns} for card in cards}
    writer = csv.DictWriter(buffer, next(iter(columns.values()), {}))
    writer.writeheader()
    writer.writerows(columns.values())
    (folder / LABELS).write_text(buffer.getvalue(), "utf-8-sig")  # with the mark, spreadsheets read it as UTF-8
    data = json.dumps({"pictures": [asdict(card) for card in cards], "unusable": UNUSABLE}).replace("<", "\\u003c")
    page = resources.files("components.review").joinpath("review.html").read_text("utf-8").replace(_DATA_MARK, data)
    (folder / PAGE).write_text(page, "utf-8")


def write_for_review(queue: ReviewQueue, entries: Iterable[QueuedPicture], directory: Path) -> ExportReport:
    """Write pictures with a page and a table to label them in.

    Raises UsageError when the directory is there and not empty: filled-in labels are never overwritten.
    """
    with new_directory(directory) as folder:
        written, missing = _write_pictures(
            newest_by_picture(entries), partial(_shown, queue), lambda entry: folder / PICTURES / _shown_name(entry)
        )
        write_page(folder, [_card(entry) for entry in written])
    return ExportReport(counts(entry.prediction.label for entry in written), missing)


def write_labelled(queue: ReviewQueue, entries: Iterable[QueuedPicture], directory: Path) -> ExportReport:
    """Write the pictures on whose label people agree as `train/CLASS/ID.png`.

    There is no `test` folder on purpose: pictures selected by the model's low confidence must not be used to evaluate it.
    Raises UsageError when the directory is there and not empty.
    """
    chosen = [entry for entry in newest_by_picture(entries) if entry.labels.label not in {None, UNUSABLE}]
    with new_directory(directory) as folder:
        written, missing = _write_pictures(
            chosen, queue.picture, lambda entry: folder / "train" / _folder_name(str(entry.labels.label)) / entry.file_name
        )
    return ExportReport(counts(str(entry.labels.label) for entry in written), missing)


def read_labels(path: Path) -> list[tuple[str, str]]:
    """Read (picture ID, label) rows of a labels.csv, or of the one in a folder; empty labels come as "".

    Comma, semicolon and tab separate; other columns are ignored. Raises DataError for a file of another form, and for one of test
    pictures, which are no part of the queue.
    """
    path = path / LABELS if path.is_dir() else path
    try:
        header, *rows = [[field.strip() for field in row] for _, row in csv_rows(path.read_bytes())] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table in UTF-8 ({error}); save it as 'CSV UTF-8'") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give the labels.csv of an export, or its folder") from error
    if not {"picture", "label"} <= set(header):
        raise DataError(f"{path} has the columns {some(header) or 'none'}; 'picture' and 'label' are needed")
    if LABEL_SO_FAR in header:
        raise DataError(
            f"{path} is about test pictures, which are not in the review queue and never trained on; correct the labels of the source "
            f"where 'label' differs from '{LABEL_SO_FAR}', and ingest it again"
        )
    found = [dict(zip_longest(header, row[: len(header)], fillvalue="")) for row in rows]
    return [(Path(row["picture"]).stem, row["label"]) for row in found if row["picture"]]


def import_labels(queue: ReviewQueue, rows: Sequence[tuple[str, str]], reviewer: str) -> ImportReport:
    """Record one reviewer's labels; labels that they gave before are not recorded again, so a second import changes nothing.

    Raises DataError, before anything is recorded, for pictures that are not in the queue, labels that are not a class of
    the model that predicted, and pictures labelled twice in different ways.
    """
    entries = queue.entries()
    known = {entry.id: entry for entry in newest_by_picture(entries)}
    _check_rows(rows, {identity: classes_of(identity, entries) for identity in known})
    report = ImportReport()
    for identity, label in dict.fromkeys(rows):
        if not label:
            report.empty += 1
            continue
        labels = known[identity].labels
        given = any(record.reviewer == reviewer and record.label == label for record in labels.records)
        if not given:
            report.recorded += queue.label(identity, label, reviewer)
        elif label in {labels.label, labels.opinions.get(reviewer)}:
            report.unchanged += 1
        else:
            report.superseded.append(identity)
    labelled = {identity for identity, label in rows if label}
    report.conflicting = sorted({e.id for e in queue.entries() if e.id in labelled and e.labels.state == "conflicting"})
    return report


def classes_of(identity: str, entries: Iterable[QueuedPicture]) -> list[str]:
    """The labels that one picture may get: the classes of every version that predicted it."""
    return sorted({name for entry in entries if entry.id == identity for name in entry.prediction.probabilities})


def _check_rows(rows: Sequence[tuple[str, str]], classes: dict[str, list[str]]) -> None:
    unknown = [identity for identity, _ in rows if identity not in classes]
    if unknown:
        raise DataError(f"not in the review queue: {listed(unknown, _NAMED)}; nothing was recorded. Is it the right --store and --name?")
    wrong = [f"{identity} {label!r}" for identity, label in rows if label and label not in {*classes[identity], UNUSABLE}]
    if wrong:
        names = ", ".join(classes[wrong[0].split()[0]][:20])
        raise DataError(
            f"labels that are not a class: {listed(wrong, _NAMED)}; nothing was recorded. Classes: {names}; {UNUSABLE!r} for none of them"
        )
    by_picture: dict[str, set[str]] = {}
    for identity, label in rows:
        by_picture.setdefault(identity, set()).update({label} - {""})
    twice = [f"{identity} ({', '.join(sorted(labels))})" for identity, labels in by_picture.items() if len(labels) > 1]
    if twice:
        raise DataError(f"labelled twice in one file, differently: {listed(twice, _NAMED)}; nothing was recorded")


def _card(entry: QueuedPicture) -> Card:
    prediction, probabilities = entry.prediction, entry.prediction.probabilities
    return Card(
        picture=_shown_name(entry),
        likely=sorted(sorted(probabilities, key=lambda name: -probabilities[name])[:3]),  # by name: what the model said leads nobody
        classes=sorted(probabilities),
        columns={
            "predicted": prediction.label,
            "confidence": f"{prediction.confidence:.4f}",
            "reasons": " ".join(sorted(entry.reasons)),
            "version": entry.version,
        },
    )


def _folder_name(label: str) -> str:
    if "/" in label or "\\" in label or label.startswith("."):
        raise DataError(f"class {label!r} cannot be the name of a folder; rename the class in the dataset")
    return label


def _shown_name(entry: QueuedPicture) -> str:
    """A file name that browsers show: TIFF, PPM, JPEG 2000 and HEIC become PNG."""
    return f"{entry.id}.png" if Path(entry.file_name).suffix in _NOT_SHOWN else entry.file_name


def _shown(queue: ReviewQueue, entry: QueuedPicture) -> bytes:
    """A picture as browsers show it: where its version reads files of 16 bits by fewer `levels`, a PNG is written anew as it was read."""
    suffix = Path(entry.file_name).suffix
    again = suffix in _NOT_SHOWN or (suffix == ".png" and entry.prediction.levels != 16)
    return encode_png(queue.pixels(entry)) if again else queue.picture(entry)


def counts(labels: Iterable[str]) -> dict[str, int]:
    """Count labels, in the order of their names."""
    return dict(sorted(Counter(labels).items()))


def _write_pictures(
    entries: Iterable[QueuedPicture], read: Callable[[QueuedPicture], bytes], path_of: Callable[[QueuedPicture], Path]
) -> tuple[list[QueuedPicture], list[str]]:
    """Write each picture to its place; returns those written, and the IDs of those that are missing."""
    written, missing = [], []
    for entry in entries:
        path = path_of(entry)
        try:
            picture = read(entry)
        except ObjectNotFound:
            missing.append(entry.id)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
        written.append(entry)
    return written, missing


def write_suspects(version: str, evaluation: Evaluation, predictions: Predictions, directory: Path, limit: int) -> ExportReport:
    """Write the `limit` most suspect pictures of a version's evaluation, with a page and a table to label them in.

    The pictures are the thumbnails that the version keeps. Raises UsageError for a version that does not say which labels are suspect
    or has no such picture, and when the directory is there and not empty.
    """
    if predictions.label_quality is None:
        raise UsageError(f"{version} is too old to say which labels are suspect; evaluate it again")
    thumbnails = thumbnails_by_row(predictions)
    chosen = most_suspect(wrong_pictures(evaluation, predictions))[:limit]
    shown = [wrong for wrong in chosen if wrong.row in thumbnails]
    if not shown:
        raise UsageError(f"nothing to export: {version} has no wrong test picture that it keeps, so no label is suspect")
    with new_directory(directory) as folder:
        (folder / PICTURES).mkdir()
        for wrong in shown:
            (folder / PICTURES / _name_of_wrong(wrong)).write_bytes(encode_png(thumbnails[wrong.row]))
        write_page(folder, [_card_of_wrong(wrong, version, evaluation.classes, predictions) for wrong in shown])
    missing = [wrong.file or _name_of_wrong(wrong) for wrong in chosen if wrong.row not in thumbnails]
    return ExportReport(counts(wrong.label for wrong in shown), missing)


def _name_of_wrong(wrong: WrongPicture) -> str:
    return f"test-{wrong.row:06d}.png"


def _card_of_wrong(wrong: WrongPicture, version: str, classes: list[str], predictions: Predictions) -> Card:
    """Three classes are offered first, in the order of their names: it does not lead to the label, nor to the prediction."""
    likeliest = [classes[k] for k in (-predictions.probabilities[wrong.row]).argsort(kind="stable")]
    others = [name for name in likeliest if name not in {wrong.label, wrong.predicted}]
    return Card(
        picture=_name_of_wrong(wrong),
        likely=sorted([wrong.label, wrong.predicted, *others[:1]]),
        classes=sorted(classes),
        columns={
            "file": wrong.file,
            LABEL_SO_FAR: wrong.label,
            "predicted": wrong.predicted,
            "confidence": f"{wrong.confidence:.4f}",
            "label_quality": f"{wrong.label_quality:.4f}",
            "version": version,
        },
    )
