"""The trials' report: nothing that a setting holds can break it."""

import pytest

from components.report.search import axis, render_search, table_rows, within_chance
from tests.search.results import record, result


def test_numbers_lie_by_size_and_by_their_logarithm_where_they_are_far_apart() -> None:
    assert axis("width", [1, 2, 4]).places == [0, pytest.approx(1 / 3), 1]
    assert axis("learning_rate", [0.001, 0.01, 0.1]).places == [0, pytest.approx(0.5), 1]
    assert axis("weight_decay", [0, 0.01, 1]).places == [0, pytest.approx(0.01), 1], "no logarithm of 0"


def test_others_lie_evenly_in_the_order_of_the_trials_and_one_value_in_the_middle() -> None:
    found = axis("optimizer", ["sgd", "adam", "adamw", "adam"])
    assert found.places == [0, 0.5, 1, 0.5]
    assert [text for _, text in found.ticks] == ["sgd", "adam", "adamw"]
    assert axis("pretrained", [True, True]).places == [0.5, 0.5]
    assert axis("dropout", ["default", 0.2]).places == [0, 1]


def test_many_values_get_ticks_at_the_ends_only_and_nothing_has_no_place() -> None:
    found = axis("accuracy", [None, *range(10)])
    assert found.places[0] is None
    assert found.ticks == [(0.0, "0"), (1.0, "9")]
    assert axis("accuracy", [None]).ticks == []


def test_the_winner_is_first_then_who_came_farther_and_a_failed_one_is_last() -> None:
    results = [result(1, 0.99), result(2, 0.9), result(3, None, error="diverged"), result(2, 0.92, rung=2, until=6), result(4, 0.8)]
    assert [it.trial for it in table_rows(record(*results, best=2))] == [2, 1, 4, 3]


def test_trials_whose_difference_is_chance_are_named() -> None:
    winner = result(1, 0.97)
    others = [winner, result(2, 0.96), result(3, 0.80), result(4, 0.97, until=2)]
    assert [it.trial for it in within_chance(winner, others)] == [2]


def test_the_page_has_every_trial_and_is_one_safe_file() -> None:
    evil = {"learning_rate": 0.1, "architecture": "<script>$x_1$ & 'y'"}
    plain = {"learning_rate": 0.001, "architecture": "small_cnn"}
    page = render_search(record(result(1, 0.9, settings=evil), result(2, None, settings=plain, error="the loss became <nan>"), best=1))
    assert "<script" not in page
    assert "&lt;nan&gt;" in page
    assert "Trial 1 won" in page
    assert page.count("<svg") == 1
    assert "http" not in page.replace("http://www.w3.org", "")
