"""The evaluation as one HTML file."""

from collections.abc import Mapping
from typing import Any

from components.evaluate.predictions import Predictions
from components.evaluate.results import Evaluation


def render(evaluation: Evaluation, predictions: Predictions, decision: Mapping[str, Any] | None = None) -> str:
    """Render the report; `decision` is the gate's, where there is one."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("components.evaluate"), autoescape=True)
    return environment.get_template("report.html").render(e=evaluation, decision=decision)
