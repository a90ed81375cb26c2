"""How a plan cuts the work, and the output."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.readers import spool
from components.score.plan import Piece, Plan
from components.settings.scoring import ScoringSettings
from tests.score import cases
from tests.score.conftest import Model, plan_of

WEIGHTS = st.lists(st.tuples(st.integers(1, 30), st.booleans()), max_size=12)


def plan_with(pieces: list[tuple[int, bool]]) -> Plan:
    """A plan of pieces with so many rows, which are known beforehand or not."""
    made = [Piece(number, f"id-{number}", 0, rows, counted) for number, (rows, counted) in enumerate(pieces)]
    return Plan(Path(), "", "", "", "", "", [], ScoringSettings(), made, [], "")


@given(WEIGHTS, st.one_of(st.none(), st.integers(1, 40)))
def test_every_row_is_in_one_part_and_the_parts_keep_the_order(pieces: list[tuple[int, bool]], most: int | None) -> None:
    plan = plan_with(pieces)
    parts = plan.parts(most)
    rows = [
        (piece.number, row)
        for part in parts
        for piece, start, stop in part.spans
        for row in range(start, piece.weight if stop is None else stop)
    ]
    assert rows == [(piece.number, row) for piece in plan.pieces for row in range(piece.weight)]
    assert [part.number for part in parts] == list(range(max(1, len(parts))))
    assert len({part.id for part in parts}) == len(parts)
    last_spans = {(piece.number, stop) for part in parts for piece, _, stop in part.spans}
    assert all((piece.number, None) in last_spans for piece in plan.pieces), "rows that nobody expected go with the last ones"


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 40), st.integers(1, 30))
def test_where_parts_end_does_not_depend_on_the_pieces(rows: list[int], most: int, size: int) -> None:
    def lengths(pieces: list[int]) -> list[int]:
        parts = plan_with([(count, True) for count in pieces]).parts(most)
        return [sum((piece.weight if stop is None else stop) - start for piece, start, stop in part.spans) for part in parts]

    whole, rest = divmod(sum(rows), size)
    assert lengths(rows) == lengths([size] * whole + [rest] * (rest > 0))


def test_a_plan_that_goes_to_disk_is_that_of_memory(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cases.folder(tmp_path / "in", 30)
    for name in ("b/é.png", "b/.hidden", "Thumbs.db", "notes.txt", "a.csv", "b-/1.png", "b/1.png", "odd"):
        cases.put(folder / name, cases.png(1))
    (folder / "z.png").symlink_to("nowhere")
    monkeypatch.setattr("components.score.plan.PIECE_ROWS", 7)
    plans = []
    for run in (1, 2, 50_000):
        monkeypatch.setattr(spool, "RUN", run)
        plans.append(plan_of(model, tmp_path / f"plan-{run}", folder, tmp_path / "output", shards=2))
    for name in ("plan.json", "slices.parquet", "passed_over.parquet"):
        assert len({(plan.folder / name).read_bytes() for plan in plans}) == 1
    names = [part.name for piece in plans[0].pieces for part in plans[0].slices(piece)]
    assert names == sorted(names)
    assert len(names) == 34 + names.count("notes.txt") + names.count("a.csv")


def test_the_plan_says_which_integration_is_asked_for_and_not_installed(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_MODEL_REGISTRY", "http://registry")
    monkeypatch.setattr("components.integrations.observe.find_spec", lambda name: None)
    plan_of(model, tmp_path / "plan", cases.folder(tmp_path / "in", 2), tmp_path / "output")
    assert (
        capsys.readouterr().out.count("warning: Model Registry is configured but not installed; pip install 'penstock[model-registry]'")
        == 1
    )
