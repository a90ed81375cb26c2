"""Evaluate a trained model on the sealed test split, beside the champion, and write all that follows from it."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from components.bundle import files
from components.bundle.dataset import Dataset, Labels, Split
from components.bundle.evaluation import Champion, Evaluation, Unfamiliar
from components.bundle.golden import choose_golden, save_golden
from components.bundle.mistakes import thumbnails_of
from components.bundle.model import Classifier, Probabilities
from components.bundle.predictions import Predictions
from components.bundle.reference import Reference
from components.bundle.training import LearningCurves
from components.classifier.errors import EvaluationError
from components.classifier.intervals import proportion_interval
from components.evaluate import metrics, slices
from components.evaluate.comparison import VersionFiles, difference, score_champion
from components.evaluate.inference import Scores, measure_latency, score
from components.evaluate.occlusion import occlude
from components.evaluate.tradeoff import candidates, measure_tradeoff
from components.report.html import render


def evaluate(
    dataset_path: str | Path,
    model_path: str | Path,
    output_path: str | Path,
    champion: VersionFiles | None = None,
    parents: Mapping[str, Path] | None = None,
) -> Evaluation:
    """Score the shipped ONNX on the test split and write files.EVALUATED_FILES into `output_path`, evaluation.json last.

    The champion is scored on the same pictures. Where it cannot be compared (another class list or shape, or it could not be fetched)
    that is recorded with its reason; it is not an error.
    `parents`: the versions that the model was made of, by name, beside which it is timed; None for one that was trained.
    Raises EvaluationError for a test split or scores that would not mean anything, and DataError or IntegrityError for
    inputs that cannot be read.
    """
    dataset, classifier = Dataset.load(dataset_path), Classifier(model_path)
    test = dataset.split("test")
    labels = np.array(test.labels, dtype=np.int64)
    _check(dataset, classifier, labels)
    columns = slices.read_columns(test.columns_path, len(labels))
    column = dataset.info.group
    groups = slices.read_groups(test.columns_path, column, columns.files or []) if column else None
    scored = _Scored(
        dataset, classifier, test, labels, score(classifier, test.images), slices.measure_appearance(test.images), columns, groups
    )
    compared, theirs = None, None
    if champion is not None:
        compared, theirs = score_champion(champion, classifier, test.images, labels, scored.scores.probabilities, groups)
    evaluation = _assemble(scored, compared, Path(model_path))
    if parents is not None:
        beside = candidates(Path(model_path), parents, champion)
        doubts, known = list(evaluation.warnings), {"": scored.scores.probabilities}
        if champion is not None and theirs is not None:
            known[champion.version] = theirs
        tradeoff = measure_tradeoff(beside, test.images, labels, known, doubts)
        evaluation = evaluation.model_copy(update={"tradeoff": tradeoff, "warnings": doubts})
    _write(scored, evaluation, theirs, Path(output_path))
    return evaluation


@dataclass(frozen=True)
class _Scored:
    """The model, the test split, and the model's scores for it."""

    dataset: Dataset
    classifier: Classifier
    test: Split
    labels: Labels
    scores: Scores
    appearance: slices.Appearance
    columns: slices.Columns
    groups: Labels | None
    """Which group each test picture is of; None where the dataset has no groups."""


def split_digest(classes: list[str], split: Split) -> str:
    """Hash the pictures that figures are about: class names, labels and pixels of a split; 64 hexadecimal digits (SHA-256)."""
    sha = hashlib.sha256(json.dumps([classes, list(split.images.shape)]).encode())
    sha.update(np.ascontiguousarray(split.labels, dtype="<i8").data)
    for start in range(0, len(split), 4096):
        sha.update(np.ascontiguousarray(split.images[start : start + 4096]).data)
    return sha.hexdigest()


def _check(dataset: Dataset, classifier: Classifier, labels: Labels) -> None:
    classes = dataset.info.classes
    if len(labels) == 0:
        raise EvaluationError(f"the test split of {dataset.path} is empty; ingest again with a larger test_fraction")
    outside = np.unique(labels[(labels < 0) | (labels >= len(classes))])
    if len(outside):
        raise EvaluationError(
            f"test labels {', '.join(map(str, outside[:5]))} are out of range: {len(classes)} classes have 0 to "
            f"{len(classes) - 1}; run ingest again"
        )
    if classifier.classes != classes:
        raise EvaluationError(
            f"the model and the dataset name different classes ({difference(classifier.classes, classes)}); train on this dataset"
        )
    if classifier.spec != dataset.info.spec:
        raise EvaluationError(f"the model takes {classifier.spec} pictures, the dataset holds {dataset.info.spec}; train on this dataset")


def _assemble(scored: _Scored, champion: Champion | None, model: Path) -> Evaluation:
    config, info = scored.classifier.config, scored.dataset.info
    labels, probabilities = scored.labels, scored.scores.probabilities
    columns = scored.columns
    figures = metrics.measure(labels, probabilities, info.classes)
    predicted = metrics.predicted_classes(probabilities)
    unfamiliar = _unfamiliar(scored, predicted)
    accuracy, per_class, groups, doubts = figures.accuracy, figures.per_class, None, list[str]()
    if scored.groups is not None:
        accuracy, groups = metrics.by_groups(accuracy, labels == predicted, info.group, scored.groups)
        per_class = metrics.classes_by_groups(per_class, labels, labels == predicted, scored.groups)
        doubts.append(
            f"the test pictures are of {groups.n} groups ({info.group}): intervals and tests count groups, those of review "
            "thresholds and of the calibration error count pictures, as does the mark of a slice that is worse than the rest"
        )
    return Evaluation(
        name=config.name,
        architecture=config.architecture,
        trained_at=config.trained_at,
        evaluated_at=datetime.now(UTC).isoformat(timespec="seconds"),
        code_version=config.code_version,
        dataset_digest=info.digest,
        trained_on_digest=config.dataset_digest,
        source=info.source,
        test_digest=split_digest(info.classes, scored.test),
        n=len(labels),
        classes=info.classes,
        groups=groups,
        **{**vars(figures), "accuracy": accuracy, "per_class": per_class, "confusion_matrix": figures.confusion_matrix.tolist()},
        largest_confusions=metrics.largest_confusions(figures.confusion_matrix, info.classes),
        calibration=metrics.calibrate(labels, probabilities, config.temperature, config.calibration),
        unfamiliar=unfamiliar,
        coverage=metrics.coverage(labels, probabilities),
        slices=slices.slice_accuracies(labels, predicted, info.classes, scored.appearance, columns, scored.groups),
        mistakes=metrics.confident_mistakes(labels, probabilities, info.classes, columns.files),
        latency=measure_latency(scored.classifier, scored.test.images, scored.scores),
        size_bytes=(model / files.ONNX).stat().st_size,
        champion=champion,
        warnings=[*_warnings(info.digest, config.dataset_digest, figures, champion), *_strange(unfamiliar), *columns.left_out, *doubts],
        training=LearningCurves.of(model),
    )


def _unfamiliar(scored: _Scored, predicted: Labels) -> Unfamiliar | None:
    rows, config = scored.classifier.unfamiliar(scored.scores.familiarity), scored.classifier.config.familiarity
    if rows is None or config is None:
        return None
    count, n = int(rows.sum()), len(rows)
    low, high = proportion_interval(count, n)
    accuracy = float((predicted == scored.labels)[rows].mean()) if count else None
    return Unfamiliar(count=count, n=n, share=count / n, low=low, high=high, expected=config.quantile, accuracy=accuracy)


def _strange(found: Unfamiliar | None) -> list[str]:
    if found is None or found.low <= found.expected:
        return []
    return [
        f"{found.count} of {found.n} test pictures look unfamiliar, {found.expected:.0%} were expected: "
        "the test pictures are of another kind than those of training and validation"
    ]


def _warnings(dataset_digest: str, trained_on: str, figures: metrics.Figures, champion: Champion | None) -> list[str]:
    lines = []
    if trained_on != dataset_digest:
        lines.append(
            f"the model was trained on dataset {trained_on[:12]}, not on {dataset_digest[:12]}: it may have seen these test pictures"
        )
    for result in figures.per_class:
        if result.support == 0:
            lines.append(f"class {result.name!r} has no test pictures (predicted {result.predicted} times): its recall is unknown")
    if sum(result.support > 0 for result in figures.per_class) == 1:
        lines.append("a single class is present in the test split: ROC AUC is not defined")
    if champion is not None and champion.reason:
        lines.append(f"no comparison with the champion {champion.version}: {champion.reason}")
    elif champion is not None and champion.dataset_digest != dataset_digest:
        lines.append(
            f"the champion {champion.version} was trained on dataset {champion.dataset_digest[:12]}, not on {dataset_digest[:12]}: "
            "it may have seen these test pictures"
        )
    return lines


def _write(scored: _Scored, evaluation: Evaluation, champion: Probabilities | None, output: Path) -> None:
    probabilities, images = scored.scores.probabilities, scored.test.images
    predictions = _predictions(scored, evaluation, champion)
    rows, seen, familiarity = choose_golden(scored.labels), scored.appearance, scored.scores.familiarity
    reference = Reference.of(evaluation.classes, probabilities, seen.brightness, seen.contrast, familiarity, scored.labels)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".evaluating-") as name:
        staging = Path(name)
        predictions.save(staging)
        reference.save(staging)
        save_golden(staging, images[rows], probabilities[rows], None if familiarity is None else familiarity[rows])
        (staging / files.REPORT).write_text(render(evaluation, predictions), "utf-8")
        evaluation.save(staging)
        output.mkdir(exist_ok=True)
        # evaluation.json is deleted first and written last, so that it never describes another evaluation's files.
        (output / files.EVALUATION).unlink(missing_ok=True)
        for file in (files.PREDICTIONS, files.REFERENCE, files.GOLDEN, files.REPORT, files.EVALUATION):
            (staging / file).replace(output / file)


def _predictions(scored: _Scored, evaluation: Evaluation, champion: Probabilities | None) -> Predictions:
    images, probabilities, familiarity = scored.test.images, scored.scores.probabilities, scored.scores.familiarity
    rows = [mistake.index for mistake in evaluation.mistakes]
    shown, answers = images[rows], metrics.predicted_classes(probabilities)[rows].tolist()
    predictions = Predictions(scored.labels, probabilities, champion, shown, familiarity)
    names = scored.columns.files
    thumbnails, thumbnail_rows = thumbnails_of(images, predictions.wrong)
    origins = {int(row): names[row] for row in predictions.wrong} if names else {}
    return replace(
        predictions,
        files=origins,
        thumbnails=thumbnails,
        thumbnail_rows=thumbnail_rows,
        label_quality=metrics.label_quality(scored.labels, probabilities),
        groups=scored.groups,
        occluded=occlude(scored.classifier, shown, answers, scored.scores.batch_size),
    )
