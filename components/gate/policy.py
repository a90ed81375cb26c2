"""A policy of typed rules, and the decision that follows from it and an evaluation: pure, nothing is read or written."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Self, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from components.classifier.errors import PolicyError, UsageError
from components.evaluate.results import Evaluation
from components.gate import champion_rules, class_rules, rules
from components.gate.decision import Decision, Outcome, RuleResult, Verdict
from components.gate.evidence import check_evaluation
from components.gate.numbers import parse_number, parse_share, plain

STRATEGIES = ("quality", "force")
Rule = Callable[[Any, Evaluation], RuleResult]
RULES: dict[str, Rule] = {
    "minimum_accuracy": rules.accuracy,
    "minimum_accuracy_lower_bound": rules.accuracy_lower_bound,
    "minimum_macro_f1": rules.macro_f1,
    "minimum_class_support": class_rules.class_support,
    "maximum_ece": rules.ece,
    "maximum_latency_ms": rules.latency,
    "maximum_size_mb": rules.size,
    "maximum_accuracy_drop": champion_rules.accuracy_drop,
    "forbid_significant_drop": champion_rules.significant_drop,
    "non_inferiority_margin": champion_rules.non_inferiority,
    "require_superiority": champion_rules.superiority,
}
"""The rules that need nothing but their bound, by the name they have in a policy."""


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


Share = Annotated[float | None, BeforeValidator(parse_share)]
Positive = Annotated[float | None, BeforeValidator(_positive)]
ClassFloors = dict[str, Annotated[float, BeforeValidator(parse_share)]]


class Policy(BaseModel):
    """What a model must show to serve. A rule that is not set, or null, is not judged; a policy without rules promotes nothing.

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
        if not isinstance(values, Mapping):
            return values
        unknown = [str(name) for name in values if name not in cls.model_fields]
        if unknown:
            raise ValueError(_unknown(unknown, list(cls.model_fields)))
        return {name: value for name, value in values.items() if value is not None}

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
        self.read(values, source)  # so that an error is about what was given, not about the sum of both
        return self.read({**self.model_dump(), **cast("Mapping[str, object]", values)}, source)

    def rules_set(self) -> dict[str, Any]:
        """The rules that this policy sets, by name, and minimum_class_support, which is always judged."""
        return {name: value for name, value in self.model_dump().items() if value is not None and value is not False and value != {}}


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
    checked = check_evaluation(evaluation)
    results = _judge(policy, checked, version, serving)
    verdict, summary = _verdict(results)
    if strategy == "force":
        results = [_forced(result) for result in results]
        verdict, summary = "promote", f"forced by {actor}: {reason} (by itself {verdict}: {summary})"
    return Decision(
        verdict=verdict,
        deploy=verdict == "promote",
        summary=summary,
        strategy=strategy,
        environment=environment,
        version=version,
        champion="" if isinstance(checked, list) or checked.champion is None else checked.champion.version,
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


def _judge(policy: Policy, evaluation: Evaluation | list[str], version: str, serving: str | None) -> list[RuleResult]:
    if isinstance(evaluation, list):
        return [RuleResult(rule="evaluation", outcome="fail", reason=problem) for problem in evaluation]
    results = [champion_rules.comparable(evaluation, version, serving)]
    if policy.minimum_class_recall is not None or policy.class_recall_floors:
        results.append(class_rules.class_recall(policy.minimum_class_recall, policy.class_recall_floors, evaluation))
    for name, rule in RULES.items():
        bound = getattr(policy, name)
        if bound is not None and bound is not False:
            results.append(rule(bound, evaluation))
    return sorted(results, key=lambda result: _ORDER.index(result.rule))


_ORDER = [name for field in Policy.model_fields for name in (["champion", field] if field == "maximum_accuracy_drop" else [field])]
"""Rules as the policy lists them, and that there is a comparison with the champion before what follows from it."""
ALWAYS = ("champion", "minimum_class_support")
"""Judged whatever the policy says; they can hold a model, but passing them alone promotes nothing."""


def _verdict(results: list[RuleResult]) -> tuple[Verdict, str]:
    failed, unclear = _named(results, "fail"), _named(results, "insufficient")
    if failed:
        return "hold", f"failed: {failed}" + (f"; too few test pictures for {unclear}" if unclear else "")
    if unclear:
        return "insufficient_data", f"too few test pictures for {unclear}"
    own = [result for result in results if result.rule not in ALWAYS]
    if not own:
        return "hold", "the policy sets no rule, so nothing was judged and nothing is promoted; set one, such as minimum_accuracy"
    passed = sum(result.outcome == "pass" for result in results)
    if not any(result.outcome == "pass" for result in own):
        return (
            "hold",
            "no rule of the policy could be judged, so nothing is promoted; set one without a champion, such as minimum_accuracy",
        )
    skipped = len(results) - passed
    return "promote", f"{passed} rules passed" + (f", {skipped} had no champion to compare with" if skipped else "")


def _named(results: list[RuleResult], outcome: Outcome) -> str:
    return ", ".join(dict.fromkeys(result.rule for result in results if result.outcome == outcome))


def _forced(result: RuleResult) -> RuleResult:
    return result.model_copy(update={"outcome": "skipped", "reason": f"by itself {result.outcome}: {result.reason}"})
