"""The step as Kubeflow calls it."""

from pathlib import Path

from kfp import dsl

from components.bundle import files
from components.bundle.dataset import Dataset
from components.bundle.model import Classifier
from components.train.component import train_model


def test_the_step_leaves_a_model_that_knows_digits(digits_dataset: Dataset, tmp_path: Path) -> None:
    model, metrics = dsl.Model(uri=str(tmp_path / "model")), dsl.Metrics(uri=str(tmp_path / "metrics"))
    device = train_model.python_func(
        dataset=dsl.Dataset(uri=str(digits_dataset.path)),
        dataset_digest=digits_dataset.info.digest,
        model=model,
        metrics=metrics,
        curves=dsl.HTML(uri=str(tmp_path / "curves.html")),
        name="digits",
        epochs=3,
        device="cpu",
        training={"batch_size": 32.0},
    )
    test = digits_dataset.split("test")
    classifier = Classifier(tmp_path / "model", threads=1)
    assert (classifier.probabilities(test.images).argmax(axis=1) == test.labels).mean() >= 0.97
    assert device == "cpu"
    assert metrics.metadata["device"] == "cpu"
    assert metrics.metadata["validation_accuracy"] >= 0.97
    assert {path.name for path in (tmp_path / "model").iterdir()} == set(files.TRAINED_FILES)
    assert "all epochs were run" in (tmp_path / "curves.html").read_text("utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "curves.html"}, "checkpoints and working folders are gone"
