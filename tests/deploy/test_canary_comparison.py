"""The canary's judge: what it says to counts, and how often it errs, as docs/rollout.md states."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import canary
from components.deploy.kserve.live import Bounds, Counts, Pairs, compare_counts, sizes_of_looks

BOUNDS = Bounds(least=400, looks=10, agreement=0.9)
GOOD = Counts(400, 2, (100, 200, 80, 20), (4, 16, 80, 300))
ALIKE = Pairs(400, 396)


def bad(
    requests: int = 400, errors: int = 2, seconds: tuple[int, ...] = GOOD.seconds, confidence: tuple[int, ...] = GOOD.confidence
) -> Counts:
    return Counts(requests, errors, seconds, confidence)


@pytest.mark.parametrize(
    ("challenger", "pairs", "verdict", "words"),
    [
        (GOOD, ALIKE, "passed", "400 live requests, 2 failed (champion: 400, 2)"),
        (bad(399), ALIKE, "waiting", "399 live requests"),
        (bad(25, 25), ALIKE, "worse", "25 of 25 live requests failed, 2 of 400 of the champion's"),
        (bad(errors=30), ALIKE, "worse", "30 of 400 live requests failed"),
        (bad(errors=6), ALIKE, "passed", "6 failed"),
        (bad(seconds=(50, 100, 80, 170)), ALIKE, "worse", "42.5% of 400 answers are slow, 5.0% of the champion's 400"),
        (bad(confidence=(100, 100, 100, 100)), ALIKE, "worse", "of 400 answers are unsure"),
        (bad(seconds=(400, 0, 0, 0), confidence=(0, 0, 0, 400)), ALIKE, "passed", "0"),
        (bad(seconds=(0, 0, 395, 5)), ALIKE, "worse", "100.0% of 400 answers are slow, 25.0% of the champion's 400"),
        (GOOD, Pairs(400, 398), "passed", "99.5% of 400 pictures alike"),
        (GOOD, Pairs(400, 300), "worse", "agree on 75.0% of 400 pictures, 90.0% are asked for"),
        (GOOD, Pairs(10, 8), "waiting", "80.0% of 10 pictures alike"),
        (GOOD, Pairs(), "waiting", "400 live requests"),
        (bad(seconds=(), confidence=()), ALIKE, "passed", ""),
    ],
)
def test_a_challenger_is_judged_beside_its_champion(challenger: Counts, pairs: Pairs, verdict: str, words: str) -> None:
    found, told = compare_counts(GOOD, challenger, pairs, BOUNDS)
    assert (found, words in told) == (verdict, True), told


def test_agreement_is_asked_only_where_it_is_wanted() -> None:
    assert compare_counts(GOOD, GOOD, Pairs(), Bounds(400, 10)) == ("passed", "400 live requests, 2 failed (champion: 400, 2)")
    assert compare_counts(GOOD, GOOD, Pairs(400, 100), Bounds(400, 10))[0] == "passed"


def test_both_must_have_answered_enough() -> None:
    few = Counts(30, 0, (8, 15, 6, 1), (0, 1, 6, 23))
    assert compare_counts(few, GOOD, ALIKE, BOUNDS)[0] == "waiting"
    assert compare_counts(Counts(), Counts(), ALIKE, BOUNDS)[0] == "waiting"


@pytest.mark.parametrize(
    ("least", "looks"), [(1, [1]), (25, [25]), (50, [25, 50]), (400, [25, 50, 100, 200, 400]), (2000, [31, 62, 125, 250, 500, 1000, 2000])]
)
def test_looks_are_fixed_beforehand(least: int, looks: list[int]) -> None:
    assert sizes_of_looks(least) == looks


@given(
    st.integers(1, 500).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
    st.lists(st.integers(0, 300), min_size=4, max_size=4),
    st.lists(st.integers(0, 300), min_size=4, max_size=4),
)
def test_a_version_is_never_worse_than_itself(counted: tuple[int, int], seconds: list[int], confidence: list[int]) -> None:
    same = Counts(*counted, tuple(seconds), tuple(confidence))
    assert compare_counts(same, same, ALIKE, BOUNDS)[0] != "worse"


def documented() -> str:
    return canary.DOCS.read_text("utf-8").split(canary.BEGIN)[1].split(canary.END)[0]


@pytest.mark.parametrize(
    "truth",
    [pytest.param(it, marks=pytest.mark.integration if "equal," in it.name else (), id=it.name) for it in canary.TRUTHS],
)
def test_the_table_in_the_docs_is_what_the_judge_does(truth: canary.Truth) -> None:
    assert canary.row(truth) in documented()


def test_the_stated_error_holds_and_what_is_clearly_worse_is_undone_early() -> None:
    undone = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1] for line in documented().splitlines() if line.startswith("| ")}
    assert {it.name for it in canary.TRUTHS} <= undone.keys()
    assert all(float(undone[it.name].rstrip("%")) <= 5 for it in canary.TRUTHS if it.name.startswith("equal"))
    assert canary.simulate(canary.Truth("", errors=(0.005, 1.0)), 50, seed=3) == (1.0, 25.0)
