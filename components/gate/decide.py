"""The decision that follows from a policy and an evaluation: pure, nothing is read or written."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from components.bundle.decision import Decision, Outcome, RuleResult, Verdict, check_strategy
from components.bundle.evaluation import Evaluation
from components.bundle.policy import Policy
from components.classifier.errors import listed
from components.classifier.intervals import ONE_SIDED
from components.gate import champion_rules, class_rules, rules
from components.gate.remedies import remedy

Rule = Callable[[Any, Evaluation], RuleResult]
MAX_PROBLEMS = 10
READ = ("accuracy", "macro_f1", "per_class", "calibration", "latency", "size_bytes", "champion")
"""What rules read; named first when much is missing."""
REUSE = "test_split"
MANY_VERSIONS = 10
"""From here on the decision warns that the test split wears out."""
RULES: dict[str, Rule] = {
    "minimum_accuracy": rules.accuracy,
    "minimum_accuracy_lower_bound": rules.accuracy_lower_bound,
    "minimum_macro_f1": rules.macro_f1,
    "slice_floors": class_rules.slice_floors,
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
    judged_before: int | None = None,
) -> Decision:
    """Judge an evaluation by every rule of a policy.

    Promote when every rule passes or is skipped and at least one passes; hold when one fails; insufficient_data when none fails but
    the test split is too small for one. `force` skips all rules and promotes. An evaluation that is not valid (a figure missing, NaN
    or out of range) is held. `serving` is the version that serves now, where the caller knows: a comparison with another is held.
    `judged_before` is how many other versions the same test split has judged, where the caller knows.

    Raises UsageError for an unknown strategy, and for force without an actor and a reason.
    """
    check_strategy(strategy, actor, reason)
    checked = check_evaluation(evaluation)
    results = _judge(policy, checked, version, serving, judged_before)
    verdict, summary = _verdict(results)
    if strategy == "force":
        results = [
            result.model_copy(update={"outcome": "skipped", "reason": f"by itself {result.outcome}: {result.reason}"}) for result in results
        ]
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
        test_digest="" if isinstance(checked, list) else checked.test_digest,
        policy=policy.rules_set(),
        rules=results,
        actor=actor,
        reason=reason,
    )


def _judge(
    policy: Policy, evaluation: Evaluation | list[str], version: str, serving: str | None, judged_before: int | None
) -> list[RuleResult]:
    if isinstance(evaluation, list):
        return [RuleResult(rule="evaluation", outcome="fail", reason=problem) for problem in evaluation]
    results = [champion_rules.comparable(evaluation, version, serving)]
    if policy.minimum_class_recall is not None or policy.class_recall_floors:
        results.append(class_rules.class_recall(policy.minimum_class_recall, policy.class_recall_floors, evaluation))
    for name, rule in RULES.items():
        bound = getattr(policy, name)
        if bound is not None and bound is not False and bound != {}:
            results.append(rule(bound, evaluation))
    if policy.require_superiority and policy.correct_for_reuse and judged_before:
        corrected = champion_rules.superiority(True, evaluation, ONE_SIDED / (judged_before + 1))
        results = [corrected if result.rule == corrected.rule else result for result in results]
    if judged_before is not None:
        results.append(reuse(judged_before))
    results = [result.model_copy(update={"remedy": remedy(result, evaluation, policy)}) for result in results]
    return sorted(results, key=lambda result: _ORDER.index(result.rule))


_ORDER = [
    *(name for field in Policy.model_fields for name in (["champion", field] if field == "maximum_accuracy_drop" else [field])),
    REUSE,
]
"""Rules as the policy lists them, and that there is a comparison with the champion before what follows from it."""
ALWAYS = ("champion", "minimum_class_support", REUSE)
"""Judged whatever the policy says; they can hold a model, but passing them alone promotes nothing."""


def reuse(judged_before: int) -> RuleResult:
    """How many versions the test split has judged: the more, the likelier one of them looked good by chance. It holds no model."""
    judged = judged_before + 1
    reason = f"the test split has judged {judged} version{'s' if judged > 1 else ''}"
    if judged >= MANY_VERSIONS:
        chance = 1 - (1 - ONE_SIDED) ** judged
        reason += (
            f": with this many that equal the champion, the chance that one is called significantly better is up to {chance:.0%}; "
            "take new test pictures, or set correct_for_reuse"
        )
    return RuleResult(rule=REUSE, outcome="pass", reason=reason, value=judged, shown=str(judged))


def _verdict(results: list[RuleResult]) -> tuple[Verdict, str]:
    failed, unclear = _named([_with_versions(result) for result in results], "fail"), _named(results, "insufficient")
    if failed:
        return "hold", f"failed: {failed}" + (f"; too few test pictures for {unclear}" if unclear else "")
    if unclear:
        return "insufficient_data", f"too few test pictures for {unclear}"
    own = [result for result in results if result.rule not in ALWAYS]
    if not own:
        return "hold", "the policy sets no rule, so nothing was judged and nothing is promoted; set one, such as minimum_accuracy"
    results = [result for result in results if result.rule != REUSE]
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


def _with_versions(result: RuleResult) -> RuleResult:
    """The comparison with the champion says nothing by its name alone: which versions it is about belongs into the summary."""
    return result.model_copy(update={"rule": f"champion ({result.reason})"}) if result.rule == "champion" else result


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
