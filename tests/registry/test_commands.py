"""`penstock models …` as people run it."""

import json
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from components.bundle import files
from components.classifier.errors import IntegrityError, StoreError
from components.registry import Record, Registry, verify_directory
from components.registry.publication import publish_directory
from components.storage import open_store
from pipelines.cli import models
from pipelines.cli import models_view as view
from pipelines.cli.output import console
from tests.registry import bundles


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Registry:
    """Three versions, deployed one after the other, and one that was held."""
    monkeypatch.setenv("PENSTOCK_STORE", str(tmp_path / "store"))
    registry = Registry(open_store(str(tmp_path / "store")), "digits")
    for number in (1, 2, 3):
        bundle = bundles.evaluated(tmp_path / str(number), samples=300 * number, trained_at=f"2026-0{number}-01T00:00:00+00:00")
        version = publish_directory(registry, bundle, run=f"run-{number}").version
        registry.ledger.append(Record(action="deployed", version=version, strategy="quality", actor="ci", reason="better [by 0.01]"))
    registry.ledger.append(Record(action="held", version=min(registry.newest()), strategy="quality", reason="worse"))
    return registry


def call(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(models.app, list(arguments), input=answer)


def printed(*arguments: str) -> object:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_list_is_newest_first_and_marks_who_serves(registry: Registry) -> None:
    rows = printed("list")
    assert [row["version"] for row in rows] == list(registry.newest())
    assert [row["serves"] for row in rows] == ["champion", "previous", ""]
    assert rows[0]["accuracy"] == bundles.EVALUATION["accuracy"]["value"]
    assert len(printed("list", "--limit", "1")) == 1
    shown = call("list").stdout
    assert all(row["version"] in shown for row in rows)
    assert "0.9572" in shown
    assert "yet" in call("list", "--name", "nothing").stdout
    assert printed("list", "--name", "nothing") == []


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 40 columns."""
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(console, "_width", 40)


@pytest.mark.usefixtures("narrow")
def test_on_a_narrow_terminal_what_one_copies_is_in_one_line(registry: Registry) -> None:
    champion = registry.resolve("champion")
    manifest = registry.get(champion).manifest
    assert {registry.uri(champion), manifest.dataset_digest} <= set(call("show", champion).stdout.split())
    assert f"sha256:{manifest.content_digest}" in call("lineage", champion).stdout
    assert all(version in call("list").stdout for version in registry.newest())
    table = view.table("file", "label")
    table.add_row("pictures of May/one that has a long name.png", "a label of several words that may go on below")
    with console.capture() as shown:
        view.show(table)
    assert "pictures of May/one that has a long name.png" in shown.get()
    assert max(map(len, shown.get().splitlines())) < len("pictures of May/one that has a long name.png") + 15


def test_a_pipe_gets_each_row_of_a_table_in_one_line() -> None:
    table = view.table("label", "predicted")
    table.add_row("a label of many words " * 10, "b" * 300)
    with console.capture() as shown:
        view.show(table)
    assert len(shown.get().splitlines()) == 2


def test_a_model_that_was_trained_elsewhere_is_published_by_its_folder(registry: Registry, tmp_path: Path) -> None:
    bundle = bundles.evaluated(tmp_path / "elsewhere", samples=1200, trained_at="2026-05-01T00:00:00+00:00")
    published = printed("publish", str(bundle))
    assert printed("publish", str(bundle)) == published
    assert registry.verify(published["version"]) == []
    (bundle / files.GOLDEN).unlink()
    assert files.GOLDEN in str(call("publish", str(bundle)).exception)


def test_a_damaged_version_does_not_spoil_the_list(registry: Registry) -> None:
    version = registry.resolve("previous")
    registry.store.replace(f"models/digits/{version}/{files.MANIFEST}", b"{}")
    rows = printed("list")
    assert [("problem" in row) for row in rows] == [False, True, False]
    assert "is not what this release writes" in " ".join(call("list").stdout.split())


def test_strays_among_the_versions_are_passed_over(registry: Registry, tmp_path: Path) -> None:
    versions = list(registry.newest())
    models = Path(registry.uri(versions[0])).parent
    shutil.copytree(models / versions[0], models / f"{versions[0]}.bak")
    (models / "notes.txt").write_text("keep")
    assert [row["version"] for row in printed("list")] == versions
    assert sorted(registry.newest()) == versions[::-1]
    assert f"{versions[0]}.bak" not in call("verify", "unknown").output


def test_a_version_deleted_while_they_are_listed_is_left_out(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = list(registry.newest())

    def deleting(self: Registry) -> Iterator[str]:
        for version in versions:
            if version == versions[2]:
                registry.delete(version)
            yield version

    monkeypatch.setattr(Registry, "newest", deleting)
    assert [row["version"] for row in printed("list")] == versions[:2]


def test_a_manifest_of_a_gigabyte_is_refused_before_memory_is_taken(registry: Registry) -> None:
    version = registry.resolve("previous")
    with (Path(registry.uri(version)) / files.MANIFEST).open("r+b") as manifest:
        manifest.truncate(1 << 30)  # a sparse file
    for refused in (lambda: registry.get(version), lambda: verify_directory(Path(registry.uri(version)))):
        tracemalloc.start()
        try:
            with pytest.raises((StoreError, IntegrityError), match="is larger than 16,777,216 bytes"):
                refused()
            assert tracemalloc.get_traced_memory()[1] < 64 << 20
        finally:
            tracemalloc.stop()
    assert [("problem" in row) for row in printed("list")] == [False, True, False]


def test_show_verify_and_history(registry: Registry) -> None:
    champion = registry.resolve("champion")
    shown = printed("show", "champion")
    assert (shown["version"], shown["uri"]) == (champion, registry.uri(champion))
    text = call("show", champion).stdout
    assert all(entry["sha256"] in text for entry in shown["files"].values())
    assert printed("verify", "champion") == {"version": champion, "intact": True, "problems": []}
    assert "is intact" in call("verify", champion).stdout
    history = printed("history")
    assert [record["action"] for record in history] == ["deployed"] * 3 + ["held"]
    assert printed("history", "--limit", "1") == history[-1:]
    text = call("history").stdout
    assert "better [by 0.01]" in text
    assert f"{champion} goes on serving" in text


def test_verify_names_each_bad_file_and_fails(registry: Registry) -> None:
    version = registry.resolve("champion")
    registry.store.replace(f"models/digits/{version}/{files.ONNX}", b"other")
    result = call("verify", version, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["problems"][0].startswith(f"{files.ONNX} was changed")
    result = call("verify", version)
    assert result.exit_code == 1
    assert files.ONNX in str(result.exception)


def test_rollback_to_a_damaged_version_says_how_to_name_another(registry: Registry) -> None:
    one, two, three = sorted(registry.newest())
    registry.store.replace(f"models/digits/{two}/{files.ONNX}", b"other")
    result = call("rollback")
    assert result.exit_code == 1
    assert str(result.exception).endswith("publish it again, or use another version, by `penstock models rollback --to VERSION`")
    assert registry.ledger.champion() == three
    assert f"{one} serves now" in call("rollback", "--to", one).stdout


def test_rollback_one_command_then_by_name(registry: Registry) -> None:
    one, two, three = sorted(registry.newest())
    assert f"{two} serves now, in place of {three}" in call("rollback", "--reason", "night").stdout
    assert printed("rollback", "--actor", "me")["champion"] == one
    result = call("rollback")
    assert result.exit_code == 1
    assert "nothing was deployed before" in str(result.exception)
    assert f"{three} serves now" in call("rollback", "--to", three).stdout
    assert "serves already; nothing was changed" in call("rollback", "--to", three.rpartition("-")[2][:6]).stdout
    records = Registry(registry.store, "digits").ledger.records()
    assert [(record.action, record.champion) for record in records[4:]] == [
        ("rolled_back", two),
        ("rolled_back", one),
        ("rolled_back", three),
    ]
    assert records[4].reason == "night"
    assert records[5].actor == "me"
    assert records[4].actor


def test_delete_asks_and_never_takes_the_champion(registry: Registry) -> None:
    one, two, three = sorted(registry.newest())
    assert "is the champion" in str(call("delete", three, "--yes").exception)
    assert "has nothing to bring back" in call("delete", two, answer="n\n").stdout
    left = call("delete", one, answer="n\n")
    assert left.exit_code == 1
    assert "bring back" not in left.stdout
    assert one in registry.newest()
    assert call("delete", one, answer="y\n").exit_code == 0
    assert one not in registry.newest()
    assert "no version" in str(call("delete", one).exception)


def test_diff_shows_what_changed(registry: Registry) -> None:
    found = printed("diff", "previous", "champion")
    assert {"section": "parameters", "field": "samples", "first": 600, "second": 900} in found["differences"]
    assert "+300" in call("diff", "previous").stdout
    assert "do not differ" in call("diff", "champion", "champion").stdout


def test_copy_to_another_store(registry: Registry, tmp_path: Path) -> None:
    result = call("copy", "champion", "--to", str(tmp_path / "other"))
    assert "all digests checked" in result.stdout
    assert Registry(open_store(str(tmp_path / "other")), "digits").verify(registry.resolve("champion")) == []


def test_every_command_has_an_example() -> None:
    for command in models.app.registered_commands:
        assert "Example: `penstock models " in (command.callback.__doc__ or "")
