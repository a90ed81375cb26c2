"""What shifts of the pictures cost, beside what drift says of them without labels.

    python -m benchmarks.drift            # two minutes

Trains small_cnn on two thirds of scikit-learn's digits, measures the reference on one half of the rest, shifts the other half, and prints
for each shift the true accuracy, the expected one with its interval, and which features raise the alarm.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits

from components.bundle.dataset import DatasetInfo, write
from components.bundle.model import Answers, Classifier
from components.bundle.reference import Reference
from components.classifier.images import Pixels, brightness_and_contrast
from components.score.drift import ExpectedAccuracy, Feature, compare, expected_accuracy
from components.settings.training import TrainingSettings
from components.train.training import train

Shift = Callable[[Pixels], Pixels]


def main() -> None:
    """Train, measure, print."""
    images, labels = _digits()
    with tempfile.TemporaryDirectory() as name:
        classifier = _trained(Path(name), images[:1200], labels[:1200])
    reference = _reference(classifier, images[1200:1500], labels[1200:1500])
    print("| shift | accuracy | expected (95%) | harmful | drifted |")
    print("|---|---|---|---|---|")
    errors = []
    for name, shift in SHIFTS.items():
        pictures, truth = shift(images[1500:]), labels[1500:]
        answers = classifier.answer(pictures)
        accuracy = float((answers.probabilities.argmax(axis=1) == truth).mean())
        expected, drifted = _judge(reference, classifier, answers, pictures)
        errors.append(abs(expected.value - accuracy))
        interval = f"{expected.value:.3f} ({expected.low:.3f} to {expected.high:.3f})"
        print(f"| {name} | {accuracy:.3f} | {interval} | {'yes' if expected.harmful else ''} | {', '.join(drifted)} |", flush=True)
    print(f"\nmean error of the expected accuracy: {100 * np.mean(errors):.1f} points; largest: {100 * max(errors):.1f} points")


def _digits() -> tuple[Pixels, np.ndarray]:
    data, order = load_digits(), np.random.default_rng(7).permutation(1797)
    return (data.images * 255 / 16).round().astype(np.uint8)[order][..., None], data.target.astype(np.int64)[order]


def _trained(folder: Path, images: Pixels, labels: np.ndarray) -> Classifier:
    parts = {"train": slice(0, 1000), "validation": slice(1000, 1200), "test": slice(1100, 1200)}
    counts = {name: {str(k): int((labels[rows] == k).sum()) for k in range(10)} for name, rows in parts.items()}
    info = DatasetInfo("digits", [str(k) for k in range(10)], (8, 8, 1), counts, seed=0)
    write(folder / "dataset", info, {name: (images[rows], labels[rows]) for name, rows in parts.items()})
    train(folder / "dataset", folder / "model", TrainingSettings(name="digits", epochs=6))
    return Classifier(folder / "model")


def _reference(classifier: Classifier, pictures: Pixels, labels: np.ndarray) -> Reference:
    answers = classifier.answer(pictures)
    brightness, contrast = brightness_and_contrast(pictures)
    return Reference.of(classifier.classes, answers.probabilities, brightness, contrast, answers.familiarity, labels)


def _judge(reference: Reference, classifier: Classifier, answers: Answers, pictures: Pixels) -> tuple[ExpectedAccuracy, list[str]]:
    now = _reference(classifier, pictures, answers.probabilities.argmax(axis=1))
    assert reference.sureness is not None
    assert reference.familiarity is not None
    assert now.familiarity is not None
    expected = expected_accuracy(reference, reference.sureness.count(answers.probabilities), len(pictures))
    assert expected is not None
    features = [
        Feature("predicted class", reference.predicted, now.predicted),
        Feature("confidence", reference.confidence.counts, now.confidence.counts, ordered=True),
        Feature("familiarity", reference.familiarity.counts, now.familiarity.counts, ordered=True),
        Feature("brightness", reference.brightness.counts, now.brightness.counts),
        Feature("contrast", reference.contrast.counts, now.contrast.counts),
    ]
    return expected, [drift.feature for drift in compare(features) if drift.drifted]


def _clipped(change: Callable[[np.ndarray], np.ndarray]) -> Shift:
    return lambda pictures: np.clip(change(pictures.astype(np.float64)), 0, 255).astype(np.uint8)


def _noise(deviation: float) -> Shift:
    return _clipped(lambda pictures: pictures + np.random.default_rng(1).normal(0, deviation, pictures.shape))


def _blurred(pictures: Pixels) -> Pixels:
    blur = ImageFilter.GaussianBlur(0.8)
    return np.stack([np.asarray(Image.fromarray(picture[:, :, 0]).filter(blur)) for picture in pictures])[..., None]


def _turned(degrees: float) -> Shift:
    turn = Image.Resampling.BILINEAR
    return lambda pictures: np.stack([np.asarray(Image.fromarray(p[:, :, 0]).rotate(degrees, turn)) for p in pictures])[..., None]


SHIFTS: dict[str, Shift] = {
    "none": lambda pictures: pictures,
    "brightness +10": _clipped(lambda pictures: pictures + 10),
    "brightness +40": _clipped(lambda pictures: pictures + 40),
    "contrast x 0.8": _clipped(lambda pictures: 0.8 * pictures),
    "contrast x 0.4": _clipped(lambda pictures: 0.4 * pictures),
    "noise 20": _noise(20),
    "noise 40": _noise(40),
    "noise 60": _noise(60),
    "noise 90": _noise(90),
    "blur": _blurred,
    "turned by 15°": _turned(15),
    "turned by 30°": _turned(30),
    "moved by a pixel": lambda pictures: np.roll(pictures, 1, axis=2),
    "inverted": lambda pictures: 255 - pictures,
}


if __name__ == "__main__":
    main()
