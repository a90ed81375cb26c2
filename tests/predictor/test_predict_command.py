"""`penstock predict`: asks the running predictor, and says what is wrong in one line."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from components.classifier.errors import PenstockError, UsageError
from pipelines.cli import app
from tests.pipelines import runs
from tests.predictor.versions import png

runner = CliRunner()


@pytest.fixture
def files(tmp_path: Path, pictures: np.ndarray) -> list[str]:
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(png(pictures[index]))
    return [str(tmp_path / f"{index}.png") for index in range(3)]


def test_it_prints_a_row_for_each_picture(url: str, files: list[str], expected: np.ndarray) -> None:
    done = runner.invoke(app, ["predict", *files, "--url", url, "--probabilities"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    for index, name in enumerate(files):
        line = next(line for line in done.output.splitlines() if Path(name).name in line)
        assert f"{expected[index].max():.4f}" in line


def test_json_for_other_programs(url: str, files: list[str], expected: np.ndarray) -> None:
    done = runner.invoke(app, ["predict", *files, "--url", url, "--json", "--probabilities", "--threshold", "1"])
    rows = json.loads(done.stdout)
    assert [row["file"] for row in rows] == files
    assert all(row["needs_review"] and row["model_version"] for row in rows)
    np.testing.assert_allclose([list(row["probabilities"].values()) for row in rows], expected[:3], atol=1e-6)


def test_a_file_that_is_no_picture_does_not_hide_the_others(url: str, files: list[str], tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    done = runner.invoke(app, ["predict", files[0], str(tmp_path / "text.png"), "--url", url, "--json"])
    assert isinstance(done.exception, PenstockError)
    assert "text.png" in str(done.exception)
    rows = json.loads(done.stdout)
    assert "label" in rows[0]
    assert "not a picture" in rows[1]["error"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--url", "http://127.0.0.1:9"], "penstock serve"),
        (["--url", "nonsense"], "--url"),
        (["--name", "other"], "--name"),
    ],
)
def test_what_is_wrong_is_said_with_the_remedy(url: str, files: list[str], options: list[str], words: str) -> None:
    options = options if "--url" in options else [*options, "--url", url]
    done = runner.invoke(app, ["predict", files[0], *options])
    assert isinstance(done.exception, PenstockError)
    assert words in str(done.exception)


def test_folders_globs_and_addresses_without_a_scheme_are_taken(url: str, files: list[str]) -> None:
    folder, address = Path(files[0]).parent, url.removeprefix("http://")
    (folder / "notes.txt").write_text("not a picture")
    for given in (str(folder), str(folder / "*.png")):
        done = runner.invoke(app, ["predict", given, "--url", address, "--json"])
        assert [row["file"] for row in json.loads(done.stdout)] == files
    (folder / "empty").mkdir()
    refused = runner.invoke(app, ["predict", str(folder / "empty"), "--url", address])
    assert "no picture in" in str(refused.exception)


def test_csv_has_a_line_per_picture_and_all_probabilities_when_asked(url: str, files: list[str], expected: np.ndarray) -> None:
    done = runner.invoke(app, ["predict", *files, "--url", url, "--csv", "--probabilities"])
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["file"] for row in rows] == files
    assert [row["label"] for row in rows] == [str(probabilities.argmax()) for probabilities in expected[:3]]
    assert {"confidence", "needs_review", "familiarity", "unfamiliar", "model_version", "error"} < rows[0].keys()
    each = [[float(value) for key, value in row.items() if key.startswith("probability_")] for row in rows]
    np.testing.assert_allclose(each, expected[:3], atol=1e-6)


def test_the_table_fits_80_columns_with_all_probabilities_a_long_path_and_a_refusal(
    url: str, files: list[str], expected: np.ndarray
) -> None:
    wrong = Path(files[0]).with_name("a-name-of-many-letters-that-does-not-fit-into-its-column.png")
    wrong.write_text("hello")
    output = runner.invoke(app, ["predict", files[0], str(wrong), "--url", url, "--probabilities"], env={"COLUMNS": "80"}).output
    assert max(map(len, output.splitlines())) == 80
    assert "into-its-column.png" in output
    for number, probability in enumerate(expected[0]):
        assert f"{probability:.4f} {number}" in output


def test_a_name_that_is_no_text_is_escaped(url: str, files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")
    folder = Path(files[0]).parent
    Path(files[0]).rename(folder / os.fsdecode(b"\xff.png"))
    for form in ("--probabilities", "--csv", "--json"):
        done = runs.penstock("predict", str(folder), "--url", url, form, cwd=folder)
        assert (done.code, done.err) == (0, "")
        assert "\\udcff.png" in done.out


def test_a_missing_file_is_wrong_usage(url: str) -> None:
    done = runner.invoke(app, ["predict", "nowhere.png", "--url", url])
    assert isinstance(done.exception, UsageError)
    assert "nowhere.png" in str(done.exception)
