"""An evaluation is believed only where every figure is what it must be."""

from collections.abc import Mapping

from pydantic import ValidationError

from components.evaluate.results import Evaluation

MOST_PROBLEMS = 10


def check_evaluation(raw: Evaluation | Mapping[str, object]) -> tuple[Evaluation | None, list[str]]:
    """Return the evaluation, or None and what is wrong with it, one line a figure.

    Even an Evaluation is validated again: a copy with changed fields skips pydantic's checks, and NaN must not reach a rule.
    """
    values = raw.model_dump() if isinstance(raw, Evaluation) else dict(raw)
    try:
        return Evaluation.model_validate(values), []
    except ValidationError as error:
        found = [_problem(".".join(map(str, e["loc"])), e["type"], e.get("input"), e["msg"]) for e in error.errors()]
    more = len(found) - MOST_PROBLEMS
    return None, found[:MOST_PROBLEMS] + ([f"{more} more figures are not what they must be"] if more > 0 else [])


def _problem(where: str, kind: str, value: object, message: str) -> str:
    where = where or "evaluation"
    if kind == "missing":
        return f"{where} is missing, so it is not a finite number; evaluate the model again"
    if value is None or isinstance(value, str) or value != value or value in (float("inf"), float("-inf")):
        return f"{where} is {value!r}, not a finite number; evaluate the model again"
    if isinstance(value, int | float):
        return f"{where} is {value!r}: {message}; evaluate the model again"
    return f"{where}: {message.removeprefix('Value error, ')}; evaluate the model again"
