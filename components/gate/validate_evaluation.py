"""Checks that every figure of an evaluation is finite and in its range."""

import math
from collections.abc import Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from components.bundle.evaluation import Evaluation
from components.classifier.errors import listed

MAX_PROBLEMS = 10
READ = ("accuracy", "macro_f1", "per_class", "calibration", "latency", "size_bytes", "champion")
"""What rules read; named first when much is missing."""


def check_evaluation(raw: Evaluation | Mapping[str, object]) -> Evaluation | list[str]:
    """Return the evaluation, or what is wrong with it, one line per figure.

    Even an Evaluation is validated again: a copy with changed fields skips pydantic's checks, and NaN must not reach a rule.
    """
    try:
        return Evaluation.model_validate(raw.model_dump() if isinstance(raw, Evaluation) else dict(raw))
    except ValidationError as error:
        found = error.errors()
    missing = sorted(
        (_where(problem) for problem in found if problem["type"] == "missing"), key=lambda name: name.split(".")[0] not in READ
    )
    problems = [_problem(problem) for problem in found if problem["type"] != "missing"]
    if missing:
        problems.append(f"missing, so not a finite number: {listed(missing, MAX_PROBLEMS)}; evaluate the model again")
    return problems[:MAX_PROBLEMS]


def _where(problem: ErrorDetails) -> str:
    return ".".join(str(part) for part in problem["loc"]) or "the evaluation"


def _problem(problem: ErrorDetails) -> str:
    value, where = problem["input"], _where(problem)
    if value is None or isinstance(value, str) or (isinstance(value, float) and not math.isfinite(value)):
        return f"{where} is {value!r}, not a finite number; evaluate the model again"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if isinstance(value, int | float):
        return f"{where} is {value!r}, which no evaluation can give ({message}); evaluate the model again"
    return f"{where}: {message}; evaluate the model again"
