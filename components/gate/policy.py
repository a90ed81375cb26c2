"""A policy of typed rules, and the decision that follows from it and an evaluation: pure, nothing is read or written."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from components.classifier.errors import PolicyError, UsageError
from components.evaluate.results import Evaluation
from components.gate import rules
from components.gate.decision import Decision, Outcome, RuleResult, Verdict
from components.gate.evidence import check_evaluation
from components.gate.numbers import parse_number, plain

STRATEGIES = ("quality", "force")


def _share(value: object) -> float:
    number = parse_number(value)
    if not 0 <= number <= 1:
        hint = f" (write {plain(number / 100)} for {plain(number)}%)" if 1 < number <= 100 else ""
        raise ValueError(f"{plain(number)} must be between 0 and 1{hint}")
    return number


def _positive(value: object) -> float:
    number = parse_number(value)
    if number <= 0:
        raise ValueError(f"{plain(number)} must be greater than 0")
    return number


def _count(value: object) -> int:
    number = parse_number(value)
    if number < 0 or number != int(number):
        raise ValueError(f"{plain(number)} must be a whole number, 0 or more")
    return int(number)


def _switch(value: object) -> bool:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} must be true or false")  # noqa: TRY004 - pydantic collects ValueError only
    return value


def _off(validate: Any) -> BeforeValidator:
    """Let null through, which turns a rule off."""
    return BeforeValidator(lambda value: None if value is None else validate(value))


Share = Annotated[float | None, _off(_share)]
Positive = Annotated[float | None, _off(_positive)]
ClassFloors = dict[str, Annotated[float, BeforeValidator(_share)]]


class Policy(BaseModel):
    """What a model must show to serve. A rule that is not set is not judged; a policy without rules promotes nothing.

    Bounds are inclusive: a value that meets its bound exactly passes. Shares lie between 0 and 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    minimum_accuracy: Share = None
    """Share of test pictures that are classified correctly."""
    minimum_accuracy_lower_bound: Share = None
    """The lower end of the accuracy's 95% interval: a small test split must clear more than its own chance."""
    minimum_macro_f1: Share = None
    minimum_class_recall: Share = None
    """The recall floor of every class; a class fails when it is significantly below, over all classes at 5%."""
    class_recall_floors: ClassFloors = Field(default_factory=dict)
    """Floors of single classes by name, in place of minimum_class_recall."""
    minimum_class_support: Annotated[int, BeforeValidator(_count)] = 1
    """Test pictures that every class must have; always judged. 0 allows classes that the test split lacks."""
    maximum_ece: Share = None
    """Expected calibration error of the shipped probabilities."""
    maximum_latency_ms: Positive = None
    """95th percentile for one picture, on the machine that evaluated."""
    maximum_size_mb: Positive = None
    """model.onnx, in millions of bytes."""
    maximum_accuracy_drop: Share = None
    """Lenient: how far the accuracy seen may lie below the champion's on the same pictures."""
    forbid_significant_drop: Annotated[bool, BeforeValidator(_switch)] = False
    """Lenient: hold a challenger that is significantly worse than the champion (exact McNemar test)."""
    non_inferiority_margin: Share = None
    """Strict: the challenger must be shown to be less than this below the champion."""
    require_superiority: Annotated[bool, BeforeValidator(_switch)] = False
    """The challenger must be significantly better than the champion (exact McNemar test)."""

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            unknown = [str(name) for name in values if name not in cls.model_fields]
            if unknown:
                raise ValueError(_unknown(unknown, list(cls.model_fields)))
        return values

    @classmethod
    def read(cls, values: object, source: str = "policy") -> Self:
        """Make a policy of what a file or a run parameter holds.

        Raises PolicyError in one line that names `source`, the rule and what its bound must be.
        """
        if not isinstance(values, Mapping):
            raise PolicyError(f"{source}: a policy is a table of rules and bounds such as minimum_accuracy: 0.95, not {values!r}")
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise PolicyError(f"{source}: {describe(error)}") from error

    def override(self, values: object, source: str = "run parameter policy") -> Self:
        """This policy with single rules replaced; null turns a rule off. Raises PolicyError."""
        changes = dict(values) if isinstance(values, Mapping) else values
        if not isinstance(changes, dict):
            return self.read(changes, source)
        self.read(changes, source)
        return self.read({**self.model_dump(), **changes}, source)

    def rules_set(self) -> dict[str, Any]:
        """The rules that this policy sets, by name, besides minimum_class_support, which always holds."""
        return {name: value for name, value in self.model_dump().items() if value not in (None, False, {})}


def describe(error: ValidationError) -> str:
    """Pydantic's findings in one line: where, and what is wrong."""
    lines = []
    for found in error.errors():
        where = ".".join(str(part) for part in found["loc"])
        message = found["msg"].removeprefix("Value error, ")
        lines.append(f"{where}: {message}" if where else message)
    return "; ".join(lines)


def _unknown(unknown: Sequence[str], known: list[str]) -> str:
    parts = []
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
        parts.append(f"unknown rule {name!r}" + (f", did you mean {' or '.join(near)}?" if near else ""))
    return f"{'; '.join(parts)}; the rules are {', '.join(known)}"


def decide(
    policy: Policy,
    evaluation: Evaluation | Mapping[str, object],
    strategy: str = "quality",
    actor: str = "",
    reason: str = "",
    *,
    environment: str = "",
    version: str = "",
    evaluation_digest: str = "",
    serving: str | None = None,
) -> Decision:
    """Judge an evaluation by every rule of a policy.

    Promote when every rule passes or is skipped and at least one passes; hold when one fails; insufficient_data when none fails but
    the test split is too small for one. `force` skips all rules and promotes. An evaluation that is not valid (a figure missing, NaN
    or out of range) is held. `serving` is the version that serves now, where the caller knows: a comparison with another is held.

    Raises UsageError for an unknown strategy, and for force without an actor and a reason.
    """
    check_strategy(strategy, actor, reason)
    results = _judge(policy, evaluation, version, serving)
    if strategy == "force":
        results = [_forced(result, actor) for result in results]
        verdict, summary = "promote", f"forced by {actor}: {reason}"
    else:
        verdict, summary = _verdict(policy, results)
    return Decision(
        verdict=verdict,
        deploy=verdict == "promote",
        summary=summary,
        strategy=strategy,
        environment=environment,
        version=version,
        champion=_champion(evaluation),
        evaluation_digest=evaluation_digest,
        policy=policy.rules_set(),
        rules=results,
        actor=actor,
        reason=reason,
    )


def check_strategy(strategy: str, actor: str, reason: str) -> None:
    """Raise UsageError for a strategy that the gate does not know, and for force without an actor and a reason."""
    if strategy == "manual":
        raise UsageError("strategy 'manual' deploys a version that you name: use the deployment pipeline; the gate takes quality or force")
    if strategy not in STRATEGIES:
        near = difflib.get_close_matches(strategy, STRATEGIES, n=1)
        raise UsageError(f"unknown strategy {strategy!r}; use {' or '.join(STRATEGIES)}" + (f" (did you mean {near[0]}?)" if near else ""))
    missing = [name for name, value in (("actor", actor), ("reason", reason)) if not value.strip()]
    if strategy == "force" and missing:
        raise UsageError(f"strategy 'force' needs {' and '.join(missing)}: who deploys despite the policy, and why; both are recorded")


def _judge(policy: Policy, raw: Evaluation | Mapping[str, object], version: str, serving: str | None) -> list[RuleResult]:
    evaluation, problems = check_evaluation(raw)
    if evaluation is None:
        return [RuleResult(rule="evaluation", outcome="fail", reason=problem) for problem in problems]
    results = [rules.class_support(policy.minimum_class_support, evaluation), rules.comparable(evaluation, version, serving)]
    if policy.minimum_class_recall is not None or policy.class_recall_floors:
        results.append(rules.class_recall(policy.minimum_class_recall, policy.class_recall_floors, evaluation))
    for name, rule in rules.RULES.items():
        bound = getattr(policy, name)
        if bound not in (None, False):
            results.append(rule(bound, evaluation))
    order = list(Policy.model_fields)
    return sorted(results, key=lambda result: order.index(result.rule) if result.rule in order else -1)


def _verdict(policy: Policy, results: list[RuleResult]) -> tuple[Verdict, str]:
    failed, unclear = _named(results, "fail"), _named(results, "insufficient")
    if failed:
        return "hold", f"failed: {failed}" + (f"; too few test pictures for: {unclear}" if unclear else "")
    if unclear:
        return "insufficient_data", f"too few test pictures to judge: {unclear}"
    own = {name for name in policy.rules_set() if name != "minimum_class_support"}
    if not own:
        return "hold", "the policy sets no rule, so nothing was judged and nothing is promoted: set one, such as minimum_accuracy"
    passed = sum(result.outcome == "pass" for result in results if result.rule in own or result.rule == "minimum_class_recall")
    if not passed:
        return (
            "hold",
            "no rule of the policy could be judged, so nothing is promoted: set one that needs no champion, such as minimum_accuracy",
        )
    return "promote", f"all {passed} rules that could be judged passed"


def _named(results: list[RuleResult], outcome: Outcome) -> str:
    return ", ".join(dict.fromkeys(result.rule for result in results if result.outcome == outcome))


def _forced(result: RuleResult, actor: str) -> RuleResult:
    return result.model_copy(
        update={"outcome": "skipped", "reason": f"skipped by force of {actor}; by itself {result.outcome}: {result.reason}"}
    )


def _champion(raw: Evaluation | Mapping[str, object]) -> str:
    evaluation, _ = check_evaluation(raw)
    return evaluation.champion.version if evaluation is not None and evaluation.champion is not None else ""
