"""How often a rule passes, fails or is insufficient when the truth is known: simulated test splits, judged by the rules themselves.

So too how many test pictures a policy needs: to let a good model through, and to catch a bad one (`plan`).
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from components.bundle.decision import RuleResult
from components.bundle.evaluation import Calibration, Champion, ClassResult, Evaluation, Paired, Proportion, ReliabilityBin, Slice
from components.bundle.policy import Policy
from components.classifier.intervals import design_effect
from components.gate import class_rules
from components.gate.decide import RULES

Truth = Literal["good", "at the bound", "bad"]
TRUTHS: tuple[Truth, ...] = ("good", "at the bound", "bad")
DROP = 0.02
"""The true drop of a bad challenger where the rule has no bound in points."""
BINS = 15
CONFIDENCE_SCALE = 0.05
"""Mean distance of a confidence from 1; exponential, as trained networks have it about."""

WANTED = 0.8
"""The share of evaluations in which a good model passes, or a bad one is held."""
SIZES = [step * 10**power for power in range(1, 6) for step in (1, 2, 3, 4, 5, 6, 8) if step * 10**power <= 100_000]
RUNS = 300
Weighted = Iterator[tuple[Evaluation, int]]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Setting:
    """What the data are like: classes of equal size, and the share of pictures on which exactly one of two models is right.

    `slices` of equal size has each column that slice_floors names; brightness and contrast have three, and class its classes. With
    groups: how many pictures each has on average, and how far they are right and wrong together (the correlation within groups).
    """

    classes: int = 10
    discordance: float = 0.05
    group_size: float = 1
    group_correlation: float = 0
    slices: int = 3


def outcome_shares(rule: str, bound: Any, truth: Truth, n: int, setting: Setting, runs: int, seed: int = 0) -> dict[str, float]:
    """Simulate `runs` test splits of `n` pictures and return the share of each outcome of the rule.

    good: half the mistakes that the bound permits, perfect calibration, or a challenger that equals the champion. at the bound: exactly
    what it permits. bad: twice that (of the classes and slices, one). Raises KeyError for a rule without a sampling error.
    """
    rng = np.random.default_rng(seed)
    judge: Callable[[Any, Evaluation], RuleResult] = {**RULES, **CLASS_RULES}[rule]
    found: Counter[str] = Counter()
    for evaluation, weight in SAMPLERS[rule](rng, bound, truth, n, setting, runs):
        found[judge(bound, evaluation).outcome] += weight
    return {outcome: found[outcome] / runs for outcome in ("pass", "insufficient", "fail")}


CLASS_RULES: dict[str, Callable[[Any, Evaluation], RuleResult]] = {
    "minimum_class_recall": lambda bound, evaluation: class_rules.class_recall(bound, {}, evaluation),
    "class_recall_floors": lambda floors, evaluation: class_rules.class_recall(None, floors, evaluation),
}


def floor_truth(bound: float, truth: Truth) -> float:
    """The true share behind a floor: half, all, or twice the mistakes that it permits."""
    return max(0.0, 1 - {"good": 0.5, "at the bound": 1.0, "bad": 2.0}[truth] * (1 - bound))


def _partial(model: type[Model], **fields: Any) -> Model:
    """A model with only the fields that a rule reads, unchecked: thousands are made."""
    construct: Callable[..., Model] = model.model_construct
    return construct(**fields)


def _accuracies(rng: np.random.Generator, bound: float, truth: Truth, n: int, setting: Setting, runs: int) -> Weighted:
    counts, weights = np.unique(rng.binomial(n, floor_truth(bound, truth), runs), return_counts=True)
    for correct, weight in zip(counts.tolist(), weights.tolist(), strict=True):
        proportion = _partial(Proportion, value=correct / n, correct=correct, n=n)
        yield _partial(Evaluation, n=n, accuracy=proportion), weight


def _matrices(rng: np.random.Generator, bound: float, truth: Truth, n: int, setting: Setting, runs: int) -> Weighted:
    k, share = setting.classes, floor_truth(bound, truth)
    p = np.full((k, k), (1 - share) / max(1, k - 1) / k)
    np.fill_diagonal(p, share / k)
    for matrix in rng.multinomial(n, p.ravel(), size=runs).reshape(runs, k, k):
        yield _partial(Evaluation, n=n, confusion_matrix=matrix.tolist(), macro_f1=macro_f1(matrix)), 1


def macro_f1(matrix: npt.NDArray[np.int64]) -> float:
    """The mean F1 of the classes that have pictures."""
    supports, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    present = supports > 0
    return float(np.mean(2 * np.diag(matrix)[present] / (supports + predicted)[present]))


def _recalls(rng: np.random.Generator, bound: float, truth: Truth, n: int, setting: Setting, runs: int) -> Weighted:
    return _classes(rng, {str(k): bound for k in range(setting.classes)}, truth, n, setting, runs)


def _classes(rng: np.random.Generator, floors: Mapping[str, float], truth: Truth, n: int, setting: Setting, runs: int) -> Weighted:
    """The classes that have a floor; one that has none has no part in the rule."""
    sizes = [len(range(k, n, setting.classes)) for k in range(len(floors))]
    for hits in _hits(rng, sizes, list(floors.values()), truth, runs):
        parts = zip(floors, sizes, hits, strict=True)
        per_class = [_partial(ClassResult, name=name, support=size, correct=hit) for name, size, hit in parts]
        yield _partial(Evaluation, n=n, per_class=per_class, classes=list(floors)), 1


def _slices(rng: np.random.Generator, floors: Mapping[str, float], truth: Truth, n: int, setting: Setting, runs: int) -> Weighted:
    found = list(_slices_of(floors, n, setting))
    sizes = [part.n for part in found]
    for hits in _hits(rng, sizes, [part.floor for part in found], truth, runs):
        slices = [
            _partial(Slice, column=part.column, value=part.value, accuracy=_partial(Proportion, value=hit / part.n, correct=hit, n=part.n))
            for part, hit in zip(found, hits, strict=True)
        ]
        yield _partial(Evaluation, n=n, slices=slices), 1


class _Part(NamedTuple):
    """A slice of `n` pictures that has a floor."""

    column: str
    value: str
    n: int
    floor: float


def _slices_of(floors: Mapping[str, float], n: int, setting: Setting) -> Iterator[_Part]:
    """The slices that have a floor; those of a column share its pictures equally."""
    for column in dict.fromkeys(key.partition("=")[0] for key in floors):
        count = {"class": setting.classes, "brightness": 3, "contrast": 3}.get(column, setting.slices)
        named = [value for key in floors for name, _, value in [key.partition("=")] if name == column and value]
        others = [str(k) for k in range(count - len(named))] if column in floors else []
        for value in [*named, *others]:
            yield _Part(column, value, n // count, floors.get(f"{column}={value}", floors.get(column, 0.0)))


def _hits(rng: np.random.Generator, sizes: list[int], floors: list[float], truth: Truth, runs: int) -> list[list[int]]:
    """Draw how many pictures of each part are right, independently; of bad parts there is one, that with the fewest mistakes permitted."""
    shares = [floor_truth(floor, "at the bound" if truth == "at the bound" else "good") for floor in floors]
    if truth == "bad":
        hardest = int(np.argmin([size * (1 - floor) for size, floor in zip(sizes, floors, strict=True)]))
        shares[hardest] = floor_truth(floors[hardest], "bad")
    drawn: list[list[int]] = rng.binomial(sizes, shares, size=(runs, len(sizes))).tolist()
    return drawn


def _calibrations(rng: np.random.Generator, bound: float, truth: Truth, n: int, setting: Setting, runs: int) -> Weighted:
    gap = {"good": 0.0, "at the bound": bound, "bad": 2 * bound}[truth]
    for _ in range(runs):
        confidence = np.clip(1 - rng.exponential(CONFIDENCE_SCALE, n), max(0.3, gap), 1)
        correct = rng.random(n) < confidence - gap
        place = np.minimum((confidence * BINS).astype(int), BINS - 1)
        counts, sure, right = (np.bincount(place, weights, BINS) for weights in (None, confidence, correct))
        bins = [
            _partial(ReliabilityBin, n=int(counts[k]), confidence=sure[k] / counts[k], accuracy=right[k] / counts[k])
            for k in np.flatnonzero(counts)
        ]
        plain = sum(b.n * abs((b.confidence or 0) - (b.accuracy or 0)) for b in bins) / n
        yield _partial(Evaluation, n=n, calibration=_partial(Calibration, ece_after=plain, bins=bins)), 1


def _pairs(rng: np.random.Generator, bound: float | bool, truth: Truth, n: int, setting: Setting, runs: int) -> Weighted:
    step = DROP if isinstance(bound, bool) else bound
    drop = {"good": 0.0, "at the bound": 0.0 if isinstance(bound, bool) else step, "bad": step if isinstance(bound, bool) else 2 * step}
    either = max(setting.discordance, drop[truth])
    alone = [(either - drop[truth]) / 2, (either + drop[truth]) / 2]
    draws = rng.multinomial(n, [*alone, 1 - either], size=runs)[:, :2]
    pairs, weights = np.unique(draws, axis=0, return_counts=True)
    for (challenger, champion), weight in zip(pairs.tolist(), weights.tolist(), strict=True):
        paired = _partial(Paired, n=n, only_challenger=challenger, only_champion=champion)
        yield _partial(Evaluation, n=n, champion=_partial(Champion, version="champion", paired=paired)), weight


Sampler = Callable[[np.random.Generator, Any, Truth, int, Setting, int], Weighted]
SAMPLERS: dict[str, Sampler] = {
    "minimum_accuracy": _accuracies,
    "minimum_accuracy_lower_bound": _accuracies,
    "minimum_macro_f1": _matrices,
    "minimum_class_recall": _recalls,
    "class_recall_floors": _classes,
    "slice_floors": _slices,
    "maximum_ece": _calibrations,
    "maximum_accuracy_drop": _pairs,
    "forbid_significant_drop": _pairs,
    "non_inferiority_margin": _pairs,
    "require_superiority": _pairs,
}
"""The rules that judge a sample of pictures; size, latency and support are compared as they are."""


def sampled_rules(policy: Policy) -> dict[str, Any]:
    """The rules of a policy that judge a sample, with their bounds."""
    return {name: bound for name, bound in policy.rules_set().items() if name in SAMPLERS}


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
