"""Drift of live traffic: what the predictor's own metrics count, merged and compared with the version's reference."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from typer.testing import CliRunner

from components.bundle.model import Classifier
from components.bundle.reference import Reference
from components.classifier.images import Pixels, brightness_and_contrast
from components.predictor.loaded_model import LoadedModel
from components.predictor.metrics import WATCHED, Metrics
from components.predictor.protocol.request import Predictions
from components.registry import Registry
from components.registry.publication import publish_directory
from components.score.live_drift import live_drift, read_counts
from components.storage import open_store
from pipelines.cli import app
from tests import tiny

PICTURES, LABELS = tiny.digits()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version that says how familiar pictures are, with the reference of 300 pictures that it was not trained on."""
    folder = tiny.write_bundle(tmp_path_factory.mktemp("traffic") / "bundle", familiarity=True)
    order = _order()[:300]
    answers = Classifier(folder).answer(PICTURES[order])
    looks = brightness_and_contrast(PICTURES[order])
    Reference.of(tiny.CLASSES, answers.probabilities, *looks, answers.familiarity, LABELS[order]).save(folder)
    return folder


def _order() -> np.ndarray:
    return cast("np.ndarray", 1200 + np.random.default_rng(0).permutation(597))


def _metrics(bundle: Path, version: str, requests: Sequence[Pixels]) -> str:
    """What a predictor's /metrics says after these requests."""
    registry, classifier = CollectorRegistry(), Classifier(bundle)
    metrics, sureness = Metrics(registry), Reference.load(bundle).sureness
    loaded = LoadedModel("digits", version, classifier, classifier.spec, classifier.classes, 1, True, False, requests[0][0], sureness)
    metrics.serving(loaded)
    for pixels in requests:
        answers = classifier.answer(pixels)
        assert answers.familiarity is not None
        confidence = answers.probabilities.max(axis=1).tolist()
        strange = (answers.familiarity < 0.5).tolist()
        classes = answers.probabilities.argmax(axis=1).tolist()
        doubts = [False] * len(pixels)
        predictions = Predictions(loaded, answers.probabilities, classes, confidence, doubts, answers.familiarity.tolist(), strange)
        metrics.count_predictions(predictions)
        metrics.watch_pictures(pixels, predictions)
    return generate_latest(registry).decode()


def _requests(pixels: Pixels) -> list[Pixels]:
    """Single pictures again and again, so that some of each are watched."""
    return [pixels[row : row + 1] for row in range(len(pixels))] * 4


@pytest.fixture(scope="module")
def texts(bundle: Path) -> dict[str, str]:
    random.seed(7)
    own = PICTURES[_order()[300:]]
    noise = np.random.default_rng(1).normal(0, 90, own.shape)
    noisy = np.clip(own + noise, 0, 255).astype(np.uint8)
    return {"own": _metrics(bundle, "v", _requests(own)), "noisy": _metrics(bundle, "v", _requests(noisy))}


def test_traffic_of_the_same_kind_has_not_drifted_and_noise_has_and_is_harmful(bundle: Path, texts: dict[str, str]) -> None:
    reference = Reference.load(bundle)
    own, noisy = (live_drift("v", reference, read_counts(texts[kind], "v")) for kind in ("own", "noisy"))
    assert {d.feature for d in own.drift} == {"predicted class", "confidence", "familiarity", "brightness", "contrast"}
    assert [d.feature for d in own.drift if d.drifted] == []
    assert (own.pictures, noisy.pictures) == (4 * 297, 4 * 297)
    assert 0.5 * WATCHED < own.watched / own.pictures < 2 * WATCHED
    assert own.expected_accuracy is not None
    assert not own.expected_accuracy.harmful
    assert "confidence" in {d.feature for d in noisy.drift if d.drifted}
    assert noisy.expected_accuracy is not None
    assert noisy.expected_accuracy.harmful


def test_replicas_are_added_and_other_versions_left_out(bundle: Path, texts: dict[str, str]) -> None:
    once, reference = read_counts(texts["own"], "v"), Reference.load(bundle)
    assert live_drift("v", reference, once + once).pictures == 2 * live_drift("v", reference, once).pictures
    assert not read_counts(texts["own"], "another")


def test_a_reference_of_an_older_release_is_compared_over_the_edges_that_both_have(bundle: Path, texts: dict[str, str]) -> None:
    reference = Reference.load(bundle)
    raw = reference.model_dump()
    raw["sureness"], raw["confidence"]["edges"] = None, np.linspace(0, 1, 21).tolist()
    old = [*raw["confidence"]["counts"][:19], sum(raw["confidence"]["counts"][19:])]
    raw["confidence"]["counts"] = old
    found = live_drift("v", Reference.model_validate(raw), read_counts(texts["own"], "v"))
    assert "confidence" in {d.feature for d in found.drift}
    assert not any(d.drifted for d in found.drift)
    assert found.expected_accuracy is None


def test_the_command_says_what_drifted_and_whether_it_is_harmful(bundle: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    version = publish_directory(Registry(open_store(store), "digits"), bundle).version
    random.seed(7)
    own = PICTURES[_order()[300:]]
    noisy = np.clip(own + np.random.default_rng(1).normal(0, 90, own.shape), 0, 255).astype(np.uint8)
    for name, requests in {"own": _requests(own), "both": _requests(own) + _requests(noisy)}.items():
        random.seed(7)  # the second begins as the first
        (tmp_path / name).write_text(_metrics(bundle, version, requests))

    def penstock(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["drift", *arguments, "--store", store, "--name", "digits", "--version", version])

    saved = str(tmp_path / "saved.json")
    first = penstock(str(tmp_path / "own"), "--save", saved)
    assert first.exit_code == 0, first.output
    assert "no drift" in first.output
    both = penstock(str(tmp_path / "both"), "--since", saved, "--json")
    assert json.loads(both.output)["pictures"] == 4 * 297
    assert "HARMFUL" in penstock(str(tmp_path / "both"), "--since", saved).output
    bright = np.full_like(own, 250) - own // 50
    (tmp_path / "bright").write_text(_metrics(bundle, version, _requests(bright)))
    result = penstock(str(tmp_path / "bright"), "--json")
    assert result.exit_code == 0, result.exception
    found = json.loads(result.output)
    assert "brightness" in {row["feature"] for row in found["drift"] if row["drifted"]}  # though no picture is in a lower bucket
    assert penstock(str(tmp_path / "both"), "--save", str(tmp_path / "later.json")).exit_code == 0
    fewer = penstock(str(tmp_path / "own"), "--since", str(tmp_path / "later.json"))
    assert "counts more than these predictors do" in str(fewer.exception)
    (tmp_path / "other").write_text("<html>not metrics")
    refused = penstock(str(tmp_path / "other"))
    assert refused.exception is not None
    assert "gives no metrics of a predictor" in str(refused.exception)
    unsaved = penstock(str(tmp_path / "own"), "--save", str(tmp_path / "own" / "saved.json"))
    assert "a part of the path is a file" in str(unsaved.exception)
    assert penstock(str(tmp_path / "own"), "--save", str(tmp_path / "new" / "saved.json")).exit_code == 0
