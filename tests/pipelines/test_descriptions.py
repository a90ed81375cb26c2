"""A parameter is said once: forms, help, docs, defaults and checks come from the models of the settings."""

import re
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl
from pydantic import Field

from components.classifier.errors import UsageError
from components.preflight.checks import check_training
from components.preflight.component import check_parameters
from components.settings import training
from components.train.component import train_model
from pipelines.catalogue import PIPELINES, load_pipeline
from pipelines.cli.params import document
from pipelines.descriptions import GROUPS, TEXTS, described, field_of, rows
from pipelines.parameters import parameter_defaults, parse_settings

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(params=list(PIPELINES))
def defaults(request: pytest.FixtureRequest) -> dict[str, Any]:
    return parameter_defaults(load_pipeline(request.param))


def test_the_page_of_parameters_is_what_the_models_say() -> None:
    assert (ROOT / "docs" / "parameters.md").read_text("utf-8") == document(PIPELINES), "run `make docs`"


def test_every_setting_is_described(defaults: dict[str, Any]) -> None:
    assert [row for row in rows(defaults) if len(row.meaning) < 8 or row.meaning.startswith("None")] == []


def test_a_form_begins_with_the_defaults_of_the_models(defaults: dict[str, Any]) -> None:
    of_models = {name: field_of(name, defaults).get_default(call_default_factory=True) for name in defaults if name not in GROUPS | TEXTS}
    expected = {name: defaults[name] if name == "name" else default for name, default in of_models.items()}
    assert {name: defaults[name] for name in of_models} == expected
    assert all(defaults[group] == {} for group in GROUPS if group in defaults)


def test_preflight_takes_every_parameter_of_training() -> None:
    taken = {name: spec.type for name, spec in check_parameters.component_spec.inputs.items()}
    assert taken == {name: spec.type for name, spec in load_pipeline("training").component_spec.inputs.items()} | {"compare": "Boolean"}


def test_a_parameter_that_nothing_describes_is_an_error() -> None:
    def pipeline(colour: str = "") -> None:
        """A pipeline."""

    with pytest.raises(KeyError, match="nothing describes the parameter 'colour'"):
        described(pipeline)


def test_a_new_setting_is_one_field_of_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What CONTRIBUTING says: command line, page, check and step know the field, and nothing else was changed."""

    class More(training.TrainingSettings):
        warm_up: float = Field(0.2, ge=0, le=1)
        """The fraction of all steps in which the learning rate rises."""

    monkeypatch.setitem(GROUPS, "training", More)
    for module in ("components.settings.training", "components.preflight.checks"):
        monkeypatch.setattr(f"{module}.TrainingSettings", More)
    pipeline = load_pipeline("training")
    given = parse_settings(pipeline, ["warm_up=0.5"])
    assert given == {"training": {"warm_up": 0.5}}
    assert "| `warm_up` | `0.2` | The fraction of all steps in which the learning rate rises. From 0 to 1. |" in document(["training"])

    arguments = {**parameter_defaults(pipeline), "store": str(tmp_path / "store")}
    list(check_training(arguments | given))
    with pytest.raises(UsageError, match="warm_up must be from 0 to 1, not 2"):
        list(check_training(arguments | {"training": {"warm_up": 2}}))

    reached: list[More] = []

    class Reached(Exception):
        """The work of the step would begin."""

    def train(dataset: str, model: str, settings: More, store: str) -> None:
        reached.append(settings)
        raise Reached

    monkeypatch.setattr("components.train.training.train", train)
    artifacts = {"dataset": dsl.Dataset(uri="d"), "model": dsl.Model(uri="m"), "metrics": dsl.Metrics(uri="x"), "curves": dsl.HTML(uri="c")}
    with pytest.raises(Reached):
        train_model.python_func(**artifacts, dataset_digest="", name="digits", training=given["training"])
    assert reached[0].warm_up == 0.5


def test_steps_do_not_describe_parameters_in_words_of_their_own() -> None:
    """What a step's docstring lists are its artifacts and what other steps give it."""
    described_once = {*TEXTS, *(name for model in GROUPS.values() for name in model.model_fields)} - {"version", "input"}
    again = [
        f"{path.parent.name}: {found[0]}"
        for path in sorted((ROOT / "components").glob("*/component.py"))
        for found in re.finditer(r"(?<=^        )(\w+)(?=: )", path.read_text("utf-8"), re.MULTILINE)
        if found[0] in described_once
    ]
    assert again == []
