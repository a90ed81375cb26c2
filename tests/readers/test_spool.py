"""Items that lie on disk come back in order."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.readers import spool
from components.readers.spool import Spool


@pytest.mark.parametrize("run", [1, 3, 1000])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(st.tuples(st.text("abé猫", max_size=2), st.integers(0, 9)), max_size=20))
def test_items_come_sorted_equal_ones_as_they_were_added(
    run: int, items: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "RUN", run)
        patch.setattr(spool, "BLOCK", 2)
        patch.setattr(spool, "MAX_RUNS", 3)
        by_name, as_added = Spool[tuple[str, int]](folder / "a", lambda item: item[0]), Spool[tuple[str, int]](folder / "b")
        for item in items:
            by_name.add(item)
            as_added.add(item)
        for _ in range(2):
            assert list(by_name) == sorted(items, key=lambda item: item[0])
            assert list(as_added) == items


def test_few_items_make_no_files_and_sorted_ones_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "RUN", 4)
    few, many = Spool[int](tmp_path / "few", lambda item: item), Spool[int](tmp_path / "many", lambda item: item)
    for number in range(30):
        many.add(number)
    few.add(1)
    assert (list(few), list(many)) == ([1], list(range(30)))
    assert [path.name for path in tmp_path.rglob("*")] == ["many", "0-0"]


def test_few_files_are_open_however_many_items_come_in_disorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "RUN", 2)
    monkeypatch.setattr(spool, "MAX_RUNS", 5)
    items = Spool[int](tmp_path / "items", lambda item: item)
    for number in range(100, 0, -1):
        items.add(number)
        assert len(list(tmp_path.rglob("*-*"))) <= 5
    assert list(items) == list(range(1, 101))
    assert len(list((tmp_path / "items").iterdir())) == 14  # of 50 runs 9 times 5 are merged
