"""How many test pictures a policy needs: to let a good model through, and to catch a bad one."""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from components.bundle.policy import Policy
from components.classifier.intervals import design_effect
from components.gate.scenarios import Setting, Truth, outcome_shares, sampled_rules

WANTED = 0.8
"""The share of evaluations in which a good model passes, or a bad one is held."""
SIZES = [step * 10**power for power in range(1, 6) for step in (1, 2, 3, 4, 5, 6, 8) if step * 10**power <= 100_000]
RUNS = 300


@dataclass(frozen=True)
class Need:
    """What one rule needs: test pictures with which a good model passes, and with which a bad one is held, in 80% of the cases.

    None where even 100,000 are too few, or no number helps.
    """

    rule: str
    bound: Any
    passes: int | None
    catches: int | None


def plan(policy: Policy, setting: Setting) -> list[Need]:
    """Say for each rule how many test pictures it needs; simulated with the rules themselves, to about a fifth.

    Of grouped pictures it needs more, by the design effect, for the same effective sample size.
    """
    effect = design_effect(setting.group_size, setting.group_correlation)
    needs = [
        Need(
            rule,
            bound,
            _times(effect, _smallest_set(rule, bound, "good", setting, lambda passed: passed >= WANTED)),
            _times(effect, _smallest_set(rule, bound, "bad", setting, lambda passed: 1 - passed >= WANTED)),
        )
        for rule, bound in sampled_rules(policy).items()
    ]
    support = policy.minimum_class_support * setting.classes
    return [*needs, Need("minimum_class_support", policy.minimum_class_support, support, None)]


def _times(effect: float, pictures: int | None) -> int | None:
    return None if pictures is None else math.ceil(pictures * effect)


def _smallest_set(rule: str, bound: Any, truth: Truth, setting: Setting, enough: Callable[[float], bool]) -> int | None:
    """The smallest of SIZES, at least one picture per class and slice, for which the share of passes is enough."""
    sizes = [n for n in SIZES if n >= max(setting.classes, setting.slices)]
    found = bisect_left(sizes, True, key=lambda n: enough(outcome_shares(rule, bound, truth, n, setting, RUNS)["pass"]))
    return sizes[found] if found < len(sizes) else None
