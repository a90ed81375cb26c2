"""evaluation.json is strict: each number finite or null, in its range, and agreeing with the others."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.bundle.evaluation import Evaluation
from components.bundle.reference import Reference
from components.classifier.errors import EvaluationError
from components.evaluate.evaluation import evaluate
from tests.evaluate import made


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    labels = np.arange(30) % 3
    made.write_dataset(root / "data", labels, ["a", "b", "c"])
    made.write_model(root / "model", made.guesses((labels + (labels == 2)) % 3, 3), ["a", "b", "c"])
    evaluate(root / "data", root / "model", root / "out")
    return root / "out"


def test_what_is_written_is_read_again(directory: Path) -> None:
    evaluation = Evaluation.load(directory)
    assert evaluation.n == 30
    assert Evaluation.model_validate_json(evaluation.model_dump_json()) == evaluation
    assert Reference.load(directory).predicted == [20, 10, 0]


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict | list):
        return [n for part in (value.values() if isinstance(value, dict) else value) for n in numbers(part)]
    return [value] if isinstance(value, int | float) else []


@pytest.mark.parametrize("name", ["evaluation.json", "reference.json"])
def test_files_are_strict_json(directory: Path, name: str) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    read = json.loads((directory / name).read_text("utf-8"), parse_constant=refuse)
    assert all(math.isfinite(number) for number in numbers(read))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "null", '"0.99"', "99.2", "-0.1", "true"])
@pytest.mark.parametrize("figure", ["macro_f1", "balanced_accuracy"])
def test_an_odd_value_is_refused_by_the_figures_name(directory: Path, tmp_path: Path, figure: str, value: str) -> None:
    raw = json.loads((directory / "evaluation.json").read_text("utf-8"))
    raw[figure] = "odd"
    (tmp_path / "evaluation.json").write_text(json.dumps(raw).replace('"odd"', value))
    with pytest.raises(EvaluationError, match=figure):
        Evaluation.load(tmp_path)


def test_a_missing_and_an_unknown_figure_are_refused(directory: Path, tmp_path: Path) -> None:
    raw = json.loads((directory / "evaluation.json").read_text("utf-8"))
    for changed, name in (({**raw, "acuracy": 1}, "acuracy"), ({k: v for k, v in raw.items() if k != "accuracy"}, "accuracy")):
        (tmp_path / "evaluation.json").write_text(json.dumps(changed))
        with pytest.raises(EvaluationError, match=name):
            Evaluation.load(tmp_path)


def test_figures_that_contradict_each_other_are_refused(directory: Path, tmp_path: Path) -> None:
    raw = json.loads((directory / "evaluation.json").read_text("utf-8"))
    raw["accuracy"]["value"] = 0.99
    (tmp_path / "evaluation.json").write_text(json.dumps(raw))
    with pytest.raises(EvaluationError, match=r"0\.99 is not"):
        Evaluation.load(tmp_path)


def test_a_folder_without_an_evaluation_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"evaluation\.json cannot be read"):
        Evaluation.load(tmp_path)
