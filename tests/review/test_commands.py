"""`penstock review`, by its own command line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from components.registry import Registry
from components.registry.publication import publish_directory
from components.storage import open_store
from pipelines.cli import main
from tests import tiny
from tests.review import queue_of
from tests.review.test_export import fill_in


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store whose queue holds four digits, two of them audited."""
    queue = queue_of.at(tmp_path / "store")
    for number, (confidence, reason) in enumerate([(0.3, "low_confidence"), (0.4, "low_confidence"), (0.9, "audit"), (0.95, "audit")]):
        queue.put(queue_of.entry(number, "3", confidence, reason=reason))  # type: ignore[arg-type]
    return tmp_path / "store"


@pytest.fixture
def penstock(store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command; returns (exit code, standard output, standard error), each text on one line."""
    monkeypatch.setenv("PENSTOCK_STORE", str(store))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["penstock", "review", *arguments])
        code = 0
        try:
            main()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        written = capsys.readouterr()
        return code, written.out, " ".join(written.err.split())

    return run


def test_list_shows_the_least_confident_first(penstock: Any, store: Path) -> None:
    code, out, _ = penstock("list", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["confidence"] for row in rows] == [0.3, 0.4, 0.9, 0.95]
    assert [row["picture"] for row in json.loads(penstock("list", "--reason", "audit", "--json")[1])] == [r["picture"] for r in rows[2:]]
    text = penstock("list", "--limit", "2")[1]
    assert "2 of 4 entries shown" in text
    assert rows[0]["picture"][:12] in text


def test_export_label_import_and_export_for_training(penstock: Any, store: Path, tmp_path: Path) -> None:
    folder, training = tmp_path / "to-label", tmp_path / "reviewed"
    assert penstock("export", str(folder), "--limit", "3")[0] == 0
    names = [path.stem for path in (folder / "pictures").iterdir()]
    fill_in(folder, dict.fromkeys(names, "7"))
    first, second = penstock("import", str(folder), "--reviewer", "ann")[1], penstock("import", str(folder), "--reviewer", "ann")[1]
    assert first.startswith("3 labels recorded, 0 known before")
    assert second.startswith("0 labels recorded, 3 known before")
    assert "conflicting" in penstock("label", names[0], "1", "--reviewer", "bob")[1]
    assert json.loads(penstock("export", str(training), "--labelled", "--json")[1])["classes"] == {"7": 2}
    assert "1 with conflicting labels" in penstock("list")[1]
    assert penstock("list", "--state", "contrary", "--json")[1] == penstock("list", "--state", "conflicting", "--json")[1] != "[]\n"
    assert penstock("label", names[0], "1", "--reviewer", "chief", "--resolve")[0] == 0
    assert len(json.loads(penstock("list", "--state", "labelled", "--json")[1])) == 3


def test_a_class_that_does_not_exist_is_refused_with_those_that_do(penstock: Any, store: Path) -> None:
    picture = json.loads(penstock("list", "--json")[1])[0]["picture"]
    code, _, error = penstock("label", picture, "cat")
    assert code == 2
    assert re.search(r"'cat' is not a class .* use one of 0, 1, 2", error)


def test_the_last_label_is_withdrawn(penstock: Any, tmp_path: Path) -> None:
    picture = json.loads(penstock("list", "--json")[1])[0]["picture"]
    for label in ("3", "4"):
        penstock("label", picture, label, "--reviewer", "ann")
    assert "4 is withdrawn; now 3" in penstock("withdraw", picture[:8], "--reviewer", "ann")[1]
    assert json.loads(penstock("withdraw", picture, "--reviewer", "ann", "--json")[1])["state"] == "unlabelled"
    assert penstock("withdraw", picture, "--reviewer", "ann")[0] == 2
    (tmp_path / "labels.csv").write_text(f"picture,label\n{picture},4\n")
    assert "1 not applied, since you corrected or withdrew it" in penstock("import", str(tmp_path / "labels.csv"), "--reviewer", "ann")[1]


def test_nothing_to_export_is_said(penstock: Any, tmp_path: Path) -> None:
    code, _, error = penstock("export", str(tmp_path / "out"), "--labelled")
    assert code == 2
    assert "nothing to export" in error
    assert not (tmp_path / "out").exists()


def test_accuracy_is_that_of_the_versions_audit_sample(penstock: Any, tmp_path: Path) -> None:
    version = publish_directory(Registry(open_store(str(tmp_path / "store")), "digits"), tiny.write_bundle(tmp_path / "bundle")).version
    assert "0 pictures: none drawn yet" in penstock("accuracy", "--version", version)[1]
    queue = queue_of.at(tmp_path / "store")
    for number in range(6):
        queue.put(queue_of.entry(number, "3", 0.9, version=version, reason="audit"))
    for number, entry in enumerate(queue.entries(version)):
        queue.label(entry.id, "3" if number else "8", "ann")
    result = json.loads(penstock("accuracy", "--version", version, "--json")[1])
    assert (result["audit"]["correct"], result["audit"]["labelled"], result["audited"]) == (5, 6, 6)
    assert result["audit"]["low"] < 5 / 6 < result["audit"]["high"]
    assert "95% interval 0.4365 to 0.9699 (5 of 6 right)" in penstock("accuracy", "--version", version)[1]


def test_a_champion_is_needed_where_no_version_is_named(penstock: Any) -> None:
    code, _, error = penstock("accuracy")
    assert code == 1
    assert "champion" in error or "deployed" in error
