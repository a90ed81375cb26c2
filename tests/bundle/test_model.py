"""The one forward path, on a tiny trained model."""

from pathlib import Path

import numpy as np
import pytest

from components.bundle.model import Classifier
from components.classifier.errors import IntegrityError, UsageError
from tests import tiny


def test_a_trained_bundle_knows_its_digits(tiny_bundle: Path) -> None:
    images, labels = tiny.digits()
    probabilities = Classifier(tiny_bundle).probabilities(images)
    assert (probabilities.argmax(axis=1) == labels).mean() > 0.95
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_rows_do_not_depend_on_the_batch(tiny_bundle: Path) -> None:
    images, _ = tiny.digits()
    classifier = Classifier(tiny_bundle, threads=1)
    together = classifier.probabilities(images[:70], batch_size=64)
    alone = np.concatenate([classifier.probabilities(images[k : k + 1]) for k in range(70)])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_no_pictures_give_no_rows(tiny_bundle: Path) -> None:
    assert Classifier(tiny_bundle).probabilities(np.zeros((0, 8, 8, 1), np.uint8)).shape == (0, 10)


@pytest.mark.parametrize("wrong", [np.zeros((1, 8, 8), np.uint8), np.zeros((1, 9, 8, 1), np.uint8), np.zeros((1, 8, 8, 1), np.float32)])
def test_another_shape_or_type_is_refused(tiny_bundle: Path, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        Classifier(tiny_bundle).probabilities(wrong)


def test_a_device_that_is_not_there_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="cuda"):
        Classifier(tiny_bundle, device="cuda")
    assert Classifier(tiny_bundle, device="auto").device == "cpu"


def test_a_graph_that_does_not_fit_its_configuration_is_refused(tmp_path: Path) -> None:
    small, large = tiny.write_bundle(tmp_path / "small", golden=False), tiny.write_bundle(tmp_path / "large", size=12, golden=False)
    (small / "config.json").write_bytes((large / "config.json").read_bytes())
    with pytest.raises(IntegrityError, match=r"config\.json says 12x12x1"):
        Classifier(small)
