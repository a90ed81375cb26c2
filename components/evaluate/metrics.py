"""Figures of one set of predictions, by scikit-learn and scipy: labels int64 (N,), probabilities (N, K).

Also calibration error and reliability bins, and coverage and accuracy per review threshold.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special, stats
from sklearn import metrics as sk
from sklearn.exceptions import UndefinedMetricWarning

from components.bundle.dataset import Labels
from components.bundle.evaluation import (
    Calibration,
    ClassResult,
    Confusion,
    CoveragePoint,
    Groups,
    Mistake,
    Proportion,
    ReliabilityBin,
    TopK,
)
from components.bundle.model import Probabilities
from components.classifier.intervals import effective_interval, effective_pictures, proportion_interval

TOP_K = (2, 3, 5)
MAX_CONFUSIONS = 10
MAX_MISTAKES = 24

BINS = 15
THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)

Floats = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Figures:
    """What one model reaches on labelled pictures; names and meanings as in bundle's Evaluation."""

    accuracy: Proportion
    balanced_accuracy: float
    macro_f1: float
    weighted_f1: float
    log_loss: float
    brier: float
    roc_auc: float | None
    top_k: list[TopK]
    per_class: list[ClassResult]
    confusion_matrix: Matrix


def proportion(correct: int, n: int) -> Proportion:
    """Give a share its 95% Wilson interval; `n` is at least 1."""
    low, high = proportion_interval(int(correct), int(n))
    value = int(correct) / int(n)
    # At 0 and at n correct a bound meets the value in theory, and misses it by a rounding error in floating point.
    low, high = min(max(low, 0.0), value), max(min(high, 1.0), value)
    return Proportion(value=value, correct=int(correct), n=int(n), low=low, high=high)


def classes_by_groups(per_class: list[ClassResult], labels: Labels, correct: npt.NDArray[np.bool_], groups: Labels) -> list[ClassResult]:
    """Give each class' recall the interval that counts groups; see `by_groups`."""
    results = []
    for k, result in enumerate(per_class):
        mine = labels == k
        if result.recall is not None:
            effective = effective_by_groups(correct[mine], groups[mine])
            low, high = effective_interval(result.recall, effective)
            result = result.model_copy(update={"recall_low": low, "recall_high": high, "effective": effective})
        results.append(result)
    return results


def effective_by_groups(correct: npt.NDArray[np.bool_], groups: Labels) -> float:
    """Effective sample size of the share of correct pictures, (N,) at least one, of `groups` int64 (N,)."""
    sizes = np.bincount(groups)
    present = sizes > 0
    return effective_pictures(np.bincount(groups, correct)[present].astype(int).tolist(), sizes[present].tolist())


def by_groups(accuracy: Proportion, correct: npt.NDArray[np.bool_], column: str, groups: Labels) -> tuple[Proportion, Groups]:
    """Give an accuracy the interval that counts groups; `correct` (N,) says which pictures are, `groups` int64 (N,) which each is of."""
    effective = effective_by_groups(correct, groups)
    low, high = effective_interval(accuracy.value, effective)
    method = f"{accuracy.method}, groups"
    return accuracy.model_copy(update={"low": low, "high": high, "method": method}), Groups(
        column=column, n=len(np.unique(groups)), effective=effective
    )


def predicted_classes(probabilities: Probabilities) -> Labels:
    """Index of the most probable class; ties go to the lowest index, as in the predictor."""
    return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)


def measure(labels: Labels, probabilities: Probabilities, classes: list[str]) -> Figures:
    """Compute every figure that needs labels and probabilities only.

    At least one picture; labels in range and rows finite, which the caller has checked. Averages over classes are over
    those that have pictures: a class that the test split lacks changes no figure.
    """
    every = np.arange(len(classes))
    predicted = predicted_classes(probabilities)
    present = np.unique(labels)
    per_class = _per_class(labels, predicted, probabilities, classes)
    aucs = [result.roc_auc for result in per_class if result.roc_auc is not None]
    return Figures(
        accuracy=proportion(int((labels == predicted).sum()), len(labels)),
        balanced_accuracy=_share(sk.recall_score(labels, predicted, labels=present, average="macro", zero_division=0.0)),
        macro_f1=_share(sk.f1_score(labels, predicted, labels=present, average="macro", zero_division=0.0)),
        weighted_f1=_share(sk.f1_score(labels, predicted, labels=present, average="weighted", zero_division=0.0)),
        log_loss=max(0.0, float(sk.log_loss(labels, probabilities, labels=every))),
        brier=brier(labels, probabilities),
        roc_auc=float(np.mean(aucs)) if aucs else None,
        top_k=_top_k(labels, probabilities),
        per_class=per_class,
        confusion_matrix=np.asarray(sk.confusion_matrix(labels, predicted, labels=every), dtype=np.int64),
    )


def brier(labels: Labels, probabilities: Probabilities) -> float:
    """Brier score as scikit-learn defines it: 0 to 1 for two classes, 0 to 2 for more."""
    every = np.arange(probabilities.shape[1])
    if len(every) == 2:
        return float(sk.brier_score_loss(labels, probabilities[:, 1].astype(np.float64), pos_label=1, labels=every))
    return float(sk.brier_score_loss(labels, probabilities, labels=every))


def largest_confusions(matrix: Matrix, classes: list[str]) -> list[Confusion]:
    """The ten most frequent mistakes, most frequent first."""
    mistakes = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:MAX_CONFUSIONS]
    pairs = [(int(flat) // len(classes), int(flat) % len(classes)) for flat in order]
    return [
        Confusion(label=classes[i], predicted=classes[j], count=int(mistakes[i, j]), share=float(mistakes[i, j] / matrix[i].sum()))
        for i, j in pairs
        if mistakes[i, j] > 0
    ]


def label_quality(labels: Labels, probabilities: Probabilities) -> npt.NDArray[np.float32]:
    """Say of each label how well the model's answer agrees with it, float32 (N,), 0 to 1: cleanlab's normalised margin.

    The pictures must be none that the model was trained on. A low score is suspicion of a wrong label, not proof: the model may err.
    """
    from cleanlab.rank import get_label_quality_scores

    if probabilities.shape[1] < 2:
        return np.ones(len(labels), np.float32)
    return np.asarray(get_label_quality_scores(labels, probabilities, method="normalized_margin"), np.float32)


def confident_mistakes(labels: Labels, probabilities: Probabilities, classes: list[str], files: list[str] | None) -> list[Mistake]:
    """The mistakes, most confident first."""
    predicted = predicted_classes(probabilities)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(labels != predicted)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:MAX_MISTAKES]
    return [
        Mistake(
            index=int(row),
            file=files[row] if files else "",
            label=classes[labels[row]],
            predicted=classes[predicted[row]],
            confidence=_share(confidence[row]),
            label_probability=_share(probabilities[row, labels[row]]),
        )
        for row in chosen
    ]


def _per_class(labels: Labels, predicted: Labels, probabilities: Probabilities, classes: list[str]) -> list[ClassResult]:
    every = np.arange(len(classes))
    precision, recall, f1, support = sk.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=np.nan)
    given = np.bincount(predicted, minlength=len(classes))
    correct = np.bincount(labels[labels == predicted], minlength=len(classes))
    results = []
    for k, name in enumerate(classes):
        interval = proportion(correct[k], support[k]) if support[k] else None
        results.append(
            ClassResult(
                name=name,
                support=int(support[k]),
                predicted=int(given[k]),
                correct=int(correct[k]),
                precision=_finite(precision[k]),
                recall=_finite(recall[k]),
                recall_low=interval.low if interval else None,
                recall_high=interval.high if interval else None,
                f1=_finite(f1[k]) if interval else None,
                roc_auc=_one_against_rest(labels, probabilities, k),
            )
        )
    return results


def _one_against_rest(labels: Labels, probabilities: Probabilities, k: int) -> float | None:
    mine = labels == k
    if not mine.any() or mine.all():
        return None
    # With two classes both directions are one curve; the second column is scikit-learn's, so that ties agree.
    column = 1 if probabilities.shape[1] == 2 else k
    return float(sk.roc_auc_score(labels == column, probabilities[:, column]))


def _top_k(labels: Labels, probabilities: Probabilities) -> list[TopK]:
    count = probabilities.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        return [
            TopK(k=k, accuracy=float(sk.top_k_accuracy_score(labels, probabilities, k=k, labels=np.arange(count))))
            for k in TOP_K
            if k < count
        ]


def _finite(value: float) -> float | None:
    return _share(value) if np.isfinite(value) else None


def _share(value: float) -> float:
    """Within 0 to 1: a sum of shares may leave it by a rounding error."""
    return float(min(max(value, 0.0), 1.0))


def calibrate(labels: Labels, probabilities: Probabilities, temperature: float, how: str = "") -> Calibration:
    """Compare the shipped probabilities with those before temperature scaling, which are recovered from them."""
    before, after = reliability(labels, uncalibrated(probabilities, temperature)), reliability(labels, probabilities)
    return Calibration(
        temperature=temperature,
        how=how,
        ece_before=expected_error(before),
        ece_after=expected_error(after),
        bins=after,
        bins_before=before,
    )


def uncalibrated(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Undo temperature scaling: softmax(z) = softmax(T log p) where p = softmax(z / T)."""
    logits = temperature * np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny))
    return np.asarray(special.softmax(logits, axis=1), dtype=np.float32)


def reliability(labels: Labels, probabilities: Probabilities) -> list[ReliabilityBin]:
    """Mean confidence and accuracy in 15 bins of equal width; a confidence of 1 belongs to the last."""
    confidence = np.clip(probabilities.max(axis=1).astype(np.float64), 0, 1)
    correct = (predicted_classes(probabilities) == labels).astype(np.float64)
    means, edges, _ = stats.binned_statistic(confidence, [confidence, correct], "mean", bins=BINS, range=(0, 1))
    counts, _ = np.histogram(confidence, bins=edges)
    return [
        ReliabilityBin(
            low=float(edges[k]),
            high=float(edges[k + 1]),
            n=int(counts[k]),
            confidence=float(means[0, k]) if counts[k] else None,
            accuracy=float(means[1, k]) if counts[k] else None,
        )
        for k in range(BINS)
    ]


def expected_error(bins: list[ReliabilityBin]) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy, weighted by the bins' counts."""
    total = sum(b.n for b in bins)
    return sum(b.n * abs(b.confidence - b.accuracy) for b in bins if b.confidence is not None and b.accuracy is not None) / total


def coverage(labels: Labels, probabilities: Probabilities) -> list[CoveragePoint]:
    """The share that is answered without a person, and its accuracy, for each confidence below which pictures go to review."""
    confidence = probabilities.max(axis=1)
    correct = predicted_classes(probabilities) == labels
    points = []
    for threshold in THRESHOLDS:
        kept = confidence >= np.float32(threshold)
        n = int(kept.sum())
        points.append(
            CoveragePoint(threshold=threshold, n=n, coverage=n / len(labels), accuracy=float(correct[kept].mean()) if n else None)
        )
    return points
