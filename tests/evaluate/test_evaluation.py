"""A whole evaluation on real ONNX models: what is written, what is refused, and what is only recorded."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from components.bundle import dataset, files
from components.bundle.dataset import Dataset
from components.bundle.evaluation import Evaluation
from components.bundle.golden import GOLDEN_TOLERANCE, load_golden
from components.bundle.model import Classifier
from components.bundle.predictions import Predictions
from components.bundle.reference import Reference
from components.classifier.errors import EvaluationError, IntegrityError
from components.evaluate.comparison import VersionFiles
from components.evaluate.evaluation import evaluate
from tests import tiny
from tests.evaluate import made

CLASSES = ["a", "b", "c"]
CHAMPION = "20260101-000000-aaaaaaaaaaaa"


def run(root: Path, labels: np.ndarray, probabilities: np.ndarray, classes: list[str] = CLASSES, **more: object) -> Evaluation:
    """Evaluate a made model on made pictures in `root`."""
    made.write_dataset(root / "data", labels, classes)
    made.write_model(root / "model", probabilities, classes)
    return evaluate(root / "data", root / "model", root / "out", **more)  # type: ignore[arg-type]


def test_a_trained_model_is_evaluated_with_all_its_files(digits_dataset: Dataset, tiny_bundle: Path, tmp_path: Path) -> None:
    evaluation = evaluate(digits_dataset.path, tiny_bundle, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(files.EVALUATED_FILES)
    assert evaluation == Evaluation.load(tmp_path / "out")
    test = digits_dataset.split("test")
    probabilities = Classifier(tiny_bundle).probabilities(test.images)
    assert evaluation.accuracy.correct == (probabilities.argmax(axis=1) == test.labels).sum()
    stored = Predictions.load(tmp_path / "out")
    np.testing.assert_array_equal(stored.labels, test.labels)
    np.testing.assert_allclose(stored.probabilities, probabilities, atol=1e-6)
    assert stored.probabilities.dtype == np.float32
    assert stored.champion_probabilities is None
    assert evaluation.champion is None
    assert evaluation.size_bytes == (tiny_bundle / "model.onnx").stat().st_size
    assert 0 < evaluation.latency.p50_ms <= evaluation.latency.p95_ms


def test_golden_pictures_cover_every_class_with_the_probabilities_evaluated(
    digits_dataset: Dataset, tiny_bundle: Path, tmp_path: Path
) -> None:
    evaluate(digits_dataset.path, tiny_bundle, tmp_path / "out")
    images, probabilities = load_golden(tmp_path / "out")
    assert len(images) == 16
    np.testing.assert_allclose(Classifier(tiny_bundle).probabilities(images), probabilities, atol=GOLDEN_TOLERANCE / 10)
    test = digits_dataset.split("test")
    labels = {int(test.labels[(test.images == image).all(axis=(1, 2, 3))][0]) for image in images}
    assert labels == set(range(10))


def test_the_reference_counts_every_picture_once(digits_dataset: Dataset, tiny_bundle: Path, tmp_path: Path) -> None:
    evaluate(digits_dataset.path, tiny_bundle, tmp_path / "out")
    reference = Reference.load(tmp_path / "out")
    assert {sum(h.counts) for h in (reference.confidence, reference.brightness, reference.contrast)} == {397}
    assert sum(reference.predicted) == 397


def test_the_test_digest_follows_labels_pixels_and_names(tmp_path: Path) -> None:
    labels, table = np.arange(12) % 3, made.guesses(np.arange(12) % 3, 3)
    digest = run(tmp_path / "one", labels, table).test_digest
    assert run(tmp_path / "same", labels, table).test_digest == digest
    assert run(tmp_path / "labels", labels[::-1].copy(), table).test_digest != digest
    assert run(tmp_path / "names", labels, table, ["a", "b", "d"]).test_digest != digest


def test_a_champion_is_scored_on_the_same_pictures(tmp_path: Path) -> None:
    labels = np.arange(60) % 3
    worse = labels.copy()
    worse[:12] = (worse[:12] + 1) % 3
    champion = made.write_model(tmp_path / "champion", made.guesses(worse, 3), CLASSES)
    evaluation = run(tmp_path, labels, made.guesses(labels, 3), champion=VersionFiles(CHAMPION, champion))
    assert evaluation.champion is not None
    assert evaluation.champion.same_images
    paired = evaluation.champion.paired
    assert paired is not None
    assert (paired.both_correct, paired.only_challenger, paired.only_champion, paired.neither) == (48, 12, 0, 0)
    stored = Predictions.load(tmp_path / "out").champion_probabilities
    assert stored is not None
    assert (stored.argmax(axis=1) == worse).all()


def other_names(root: Path, table: np.ndarray) -> Path:
    return made.write_model(root, table, ["a", "b", "x"])


def other_order(root: Path, table: np.ndarray) -> Path:
    return made.write_model(root, table, ["b", "a", "c"])


def more_classes(root: Path, table: np.ndarray) -> Path:
    return made.write_model(root, np.hstack([table, table[:, :1] * 0]), ["a", "b", "c", "d"])


def other_shape(root: Path, table: np.ndarray) -> Path:
    return made.write_model(root, table, CLASSES, shape=(8, 6))


def not_a_number(root: Path, table: np.ndarray) -> Path:
    return made.write_model(root, table * np.nan, CLASSES)


def damaged(root: Path, table: np.ndarray) -> Path:
    made.write_model(root, table, CLASSES)
    (root / "model.onnx").write_bytes(b"no graph")
    return root


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (other_names, "other classes: number 2 is 'x' against 'c'"),
        (other_order, "other classes: the same names in another order"),
        (more_classes, "other classes: 4 against 3"),
        (other_shape, "8x6x1 pictures, the challenger 6x6x1"),
        (not_a_number, "NaN"),
        (damaged, "cannot be loaded"),
    ],
)
def test_a_champion_that_cannot_be_compared_is_recorded(tmp_path: Path, make: Callable[[Path, np.ndarray], Path], reason: str) -> None:
    labels = np.arange(30) % 3
    table = made.guesses(labels, 3)
    champion = make(tmp_path / "champion", table)
    evaluation = run(tmp_path, labels, table, champion=VersionFiles(CHAMPION, champion))
    assert evaluation.champion is not None
    assert evaluation.champion.paired is None
    assert not evaluation.champion.same_images
    assert reason in evaluation.champion.reason
    assert any(CHAMPION in warning and reason in warning for warning in evaluation.warnings)
    assert Predictions.load(tmp_path / "out").champion_probabilities is None


def test_a_champion_that_could_not_be_fetched_is_recorded(tmp_path: Path) -> None:
    labels = np.arange(6) % 3
    evaluation = run(tmp_path, labels, made.guesses(labels, 3), champion=VersionFiles(CHAMPION, None, "it is gone"))
    assert evaluation.champion is not None
    assert (evaluation.champion.reason, evaluation.champion.paired) == ("it is gone", None)


def test_an_empty_test_split_is_refused(tmp_path: Path) -> None:
    made.write_model(tmp_path / "model", made.guesses(np.zeros(1, np.int64), 3), CLASSES)
    made.write_dataset(tmp_path / "data", np.zeros(0, np.int64), CLASSES)
    with pytest.raises(EvaluationError, match=r"test split .* is empty"):
        evaluate(tmp_path / "data", tmp_path / "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [-1, 3, 250])
def test_labels_out_of_range_are_refused(tmp_path: Path, wrong: int) -> None:
    with pytest.raises(EvaluationError, match=rf"test labels {wrong} are out of range: 3 classes have 0 to 2"):
        run(tmp_path, np.array([0, 1, wrong]), made.guesses(np.zeros(3, np.int64), 3))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    table = made.guesses(np.arange(9) % 3, 3)
    table[4, 1] = bad
    with pytest.raises(EvaluationError, match=r"NaN or infinite scores for 1 of 9 test pictures \(first: number 4\)"):
        run(tmp_path, np.arange(9) % 3, table)
    assert not (tmp_path / "out").exists()


def test_scores_that_are_not_probabilities_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="not probabilities for 9 of 9"):
        run(tmp_path, np.arange(9) % 3, np.random.default_rng(0).normal(0, 3, (9, 3)))


def test_a_model_of_other_classes_or_shape_is_refused(tmp_path: Path) -> None:
    labels = np.arange(9) % 3
    made.write_dataset(tmp_path / "data", labels, CLASSES)
    for name, make, words in (("names", other_names, "different classes"), ("shape", other_shape, "8x6x1 pictures")):
        model = make(tmp_path / name, made.guesses(labels, 3))
        with pytest.raises(EvaluationError, match=words):
            evaluate(tmp_path / "data", model, tmp_path / "out")


def test_a_class_without_test_pictures_is_null_and_said(tmp_path: Path) -> None:
    evaluation = run(tmp_path, np.array([0, 1, 0, 1]), made.guesses(np.array([0, 1, 0, 2]), 3))
    assert evaluation.per_class[2].recall is None
    assert "class 'c' has no test pictures (predicted 1 times): its recall is unknown" in evaluation.warnings
    assert evaluation.balanced_accuracy == 0.75


def test_a_single_class_is_evaluated_without_roc(tmp_path: Path) -> None:
    evaluation = run(tmp_path, np.zeros(8, np.int64), made.guesses(np.zeros(8, np.int64), 3))
    assert evaluation.roc_auc is None
    assert any("single class" in warning for warning in evaluation.warnings)


def test_pictures_without_any_contrast_give_finite_figures(tmp_path: Path) -> None:
    images, labels = np.zeros((24, 6, 6, 1), np.uint8), np.arange(24) % 2
    made.write_dataset(tmp_path / "data", labels, ["a", "b"], images)
    made.write_model(tmp_path / "model", np.array([[0.5, 0.5]], np.float32), ["a", "b"])
    evaluation = evaluate(tmp_path / "data", tmp_path / "model", tmp_path / "out")
    assert evaluation.accuracy.value == 0.5
    assert evaluation.per_class[1].recall == 0


def test_one_picture_can_be_evaluated(tmp_path: Path) -> None:
    evaluation = run(tmp_path, np.array([1]), made.guesses(np.array([0]), 3))
    assert evaluation.accuracy.value == 0
    assert evaluation.accuracy.high > 0.5


def test_training_on_another_dataset_is_said(tmp_path: Path) -> None:
    evaluation = run(tmp_path, np.arange(6) % 3, made.guesses(np.arange(6) % 3, 3))
    assert any("it may have seen these test pictures" in warning for warning in evaluation.warnings)
    info = Dataset.load(tmp_path / "data").info
    made.write_model(tmp_path / "model", made.guesses(np.arange(6) % 3, 3), CLASSES, dataset_digest=info.digest)
    assert evaluate(tmp_path / "data", tmp_path / "model", tmp_path / "out").warnings == []


def test_only_the_test_split_is_opened(digits_dataset: Dataset, tiny_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    info, test = digits_dataset.info, digits_dataset.split("test")
    dataset.write(copy, dataset.DatasetInfo(**asdict(info)), dict.fromkeys(dataset.SPLITS, (test.images, test.labels)))
    for name in ("train", "validation"):
        for path in (copy / name).iterdir():
            path.unlink()
    assert evaluate(copy, tiny_bundle, tmp_path / "out").n == 397


def test_a_second_evaluation_takes_the_place_of_the_first(tmp_path: Path) -> None:
    labels = np.arange(6) % 3
    run(tmp_path, labels, made.guesses(labels, 3))
    second = run(tmp_path, labels, made.guesses((labels + 1) % 3, 3))
    assert Evaluation.load(tmp_path / "out") == second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "model", "out"]


def test_a_missing_model_is_named(tmp_path: Path, digits_dataset: Dataset) -> None:
    with pytest.raises(IntegrityError, match=r"config\.json"):
        evaluate(digits_dataset.path, tmp_path / "nothing", tmp_path / "out")


def test_damaged_predictions_are_named(tmp_path: Path) -> None:
    run(tmp_path, np.arange(6) % 3, made.guesses(np.arange(6) % 3, 3))
    path = tmp_path / "out" / "predictions.npz"
    for content in (b"", b"PK no zip", path.read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(EvaluationError, match=r"predictions\.npz cannot be read"):
            Predictions.load(tmp_path / "out")


def test_colour_pictures_are_evaluated(tmp_path: Path) -> None:
    data = tiny.write_dataset(tmp_path / "data", size=12, channels=3)
    model = tiny.write_bundle(tmp_path / "model", size=12, channels=3, samples=400, golden=False)
    assert evaluate(data.path, model, tmp_path / "out").accuracy.value > 0.9


def test_groups_of_the_dataset_make_the_intervals_wider_and_are_told(tmp_path: Path) -> None:
    labels = np.arange(60) % 3
    table = np.eye(3)[np.where(np.arange(60) < 10, (labels + 1) % 3, labels)] * 0.97 + 0.01
    plain = run(tmp_path / "plain", labels, table)
    made.write_dataset(tmp_path / "data", labels, CLASSES, groups=[f"p{k // 10}" if k else None for k in range(60)])
    grouped = evaluate(tmp_path / "data", tmp_path / "plain" / "model", tmp_path / "out")
    assert grouped.groups is not None
    assert (grouped.groups.column, grouped.groups.n) == ("patient", 7)
    assert grouped.accuracy.value == plain.accuracy.value
    assert grouped.accuracy.low < plain.accuracy.low < plain.accuracy.high < grouped.accuracy.high
    assert any("the test pictures are of 7 groups (patient)" in line for line in grouped.warnings)
    assert plain.groups is None
    assert any("intervals and tests count groups" in line for line in grouped.warnings)
    assert Evaluation.load(tmp_path / "out").groups == grouped.groups
    for alone, by in zip(plain.per_class, grouped.per_class, strict=True):
        assert alone.effective is None
        assert by.effective is not None
        assert by.effective <= by.support


def test_a_dataset_whose_column_of_groups_is_missing_is_refused(tmp_path: Path) -> None:
    labels = np.arange(6) % 3
    made.write_dataset(tmp_path / "data", labels, CLASSES, groups=["a"] * 6)
    (tmp_path / "data" / "test" / "columns.parquet").unlink()
    made.write_model(tmp_path / "model", np.eye(3)[labels], CLASSES)
    with pytest.raises(EvaluationError, match="groups by column 'patient'"):
        evaluate(tmp_path / "data", tmp_path / "model", tmp_path / "out")
