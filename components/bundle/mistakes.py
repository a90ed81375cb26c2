"""Every wrong picture of an evaluation: made from predictions.npz, and written as a table for people and programs."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from components.bundle.dataset import Labels
from components.bundle.evaluation import Evaluation
from components.bundle.predictions import Predictions
from components.classifier.errors import UsageError
from components.classifier.images import Pixels, as_image
from components.storage.files import explain_os_errors

THUMBNAIL_SIDE = 112
"""Longest side of a thumbnail, in pixels."""
MAX_THUMBNAIL_BYTES = 32 * 2**20
"""Pixels of thumbnails that a version keeps, before compression: those of the most confident mistakes."""
MAX_SUSPECT = 50
"""Pictures that are shown, or exported where no limit is given, because their label is suspect."""


@dataclass(frozen=True)
class WrongPicture:
    """A test picture that was given another class than its label. `file` is "" where the dataset or an old version does not say it."""

    row: int
    """Of the test split."""
    file: str
    label: str
    predicted: str
    confidence: float
    label_probability: float
    familiarity: float | None
    """0 to 1; None where the model or an old version does not say it."""
    label_quality: float | None = None
    """0 to 1, low where the label itself is suspect; None where an old version does not say it."""


def wrong_pictures(evaluation: Evaluation, predictions: Predictions) -> list[WrongPicture]:
    """List all wrong pictures, most confident first."""
    names = predictions.files if predictions.files is not None else {mistake.index: mistake.file for mistake in evaluation.mistakes}
    probabilities, familiarity = predictions.probabilities, predictions.familiarity
    return [
        WrongPicture(
            row=int(row),
            file=names.get(int(row), ""),
            label=evaluation.classes[predictions.labels[row]],
            predicted=evaluation.classes[probabilities[row].argmax()],
            confidence=min(1.0, float(probabilities[row].max())),
            label_probability=float(probabilities[row, predictions.labels[row]]),
            familiarity=None if familiarity is None else float(familiarity[row]),
            label_quality=None if predictions.label_quality is None else float(predictions.label_quality[row]),
        )
        for row in predictions.wrong
    ]


def most_suspect(pictures: Iterable[WrongPicture]) -> list[WrongPicture]:
    """Sort wrong pictures by suspicion of their label, most suspect first; those without a label quality are left out."""
    known = [(picture.label_quality, picture) for picture in pictures if picture.label_quality is not None]
    return [picture for _, picture in sorted(known, key=lambda pair: pair[0])]


def thumbnails_of(images: Pixels, rows: Labels) -> tuple[Pixels, Labels]:
    """Make thumbnails uint8 (T, h, w, C) of `rows` of `images`, the first of them up to MAX_THUMBNAIL_BYTES; returns their rows too."""
    from PIL import Image

    _, height, width, channels = images.shape
    factor = min(1.0, THUMBNAIL_SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    rows = rows[: MAX_THUMBNAIL_BYTES // (size[0] * size[1] * channels)]
    made = np.empty((len(rows), size[1], size[0], channels), np.uint8)
    for place, row in enumerate(rows):
        image = np.asarray(images[row])
        if factor < 1:
            picture = as_image(image).resize(size, Image.Resampling.LANCZOS)
            image = np.asarray(picture).reshape(size[1], size[0], channels)
        made[place] = image
    return made, rows


def thumbnails_by_row(predictions: Predictions) -> dict[int, Pixels]:
    """The thumbnails that a version holds of its wrong pictures, by row of the test split."""
    if predictions.thumbnails is None or predictions.thumbnail_rows is None:
        return {}
    return dict(zip(predictions.thumbnail_rows.tolist(), predictions.thumbnails, strict=True))


def write_table(path: Path, pictures: Iterable[WrongPicture]) -> None:
    """Write wrong pictures as CSV or Parquet, by the ending of `path`; raises UsageError for another ending, and StoreError."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    types = {"row": pa.int64(), "confidence": pa.float64(), "label_probability": pa.float64(), "familiarity": pa.float64()}
    types["label_quality"] = pa.float64()
    schema = pa.schema([(field.name, types.get(field.name, pa.string())) for field in fields(WrongPicture)])
    table = pa.Table.from_pylist([asdict(picture) for picture in pictures], schema=schema)
    if path.suffix not in {".csv", ".parquet"}:
        raise UsageError(f"{path.name} ends in neither .csv nor .parquet; name a file that does")
    with explain_os_errors(f"cannot write {path}"):
        (pq.write_table if path.suffix == ".parquet" else pyarrow.csv.write_csv)(table, path)
