"""Test pictures whose label may be wrong, as a folder for people to label: the one that the queue's pictures get."""

from pathlib import Path

from components.bundle.evaluation import Evaluation
from components.bundle.mistakes import WrongPicture, most_suspect, thumbnails_by_row, wrong_pictures
from components.bundle.predictions import Predictions
from components.classifier.errors import UsageError
from components.classifier.images import encode_png
from components.review.export import LABEL_SO_FAR, PICTURES, Card, ExportReport, counts, write_page
from components.storage.files import new_directory


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
            (folder / PICTURES / _name(wrong)).write_bytes(encode_png(thumbnails[wrong.row]))
        write_page(folder, [_card(wrong, version, evaluation.classes, predictions) for wrong in shown])
    missing = [wrong.file or _name(wrong) for wrong in chosen if wrong.row not in thumbnails]
    return ExportReport(counts(wrong.label for wrong in shown), missing)


def _name(wrong: WrongPicture) -> str:
    return f"test-{wrong.row:06d}.png"


def _card(wrong: WrongPicture, version: str, classes: list[str], predictions: Predictions) -> Card:
    """Three classes are offered first, in the order of their names: it does not lead to the label, nor to the prediction."""
    likeliest = [classes[k] for k in (-predictions.probabilities[wrong.row]).argsort(kind="stable")]
    others = [name for name in likeliest if name not in {wrong.label, wrong.predicted}]
    return Card(
        picture=_name(wrong),
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
