"""A file or folder appears whole or not at all."""

from pathlib import Path

import pytest

from components.classifier.errors import StoreError
from components.storage.files import atomic_directory, write_file


@pytest.mark.parametrize("old", [True, False])
def test_what_was_there_before_stays_until_the_new_folder_is_complete(tmp_path: Path, old: bool) -> None:
    if old:
        write_file(tmp_path / "model" / "old", [b"old"])
    (tmp_path / ".model.unfinished-killed").mkdir()

    def interrupted() -> None:
        with atomic_directory(tmp_path / "model", replace=True) as folder:
            (folder / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.rglob("*")] == (["model", "old"] if old else [])
    with atomic_directory(tmp_path / "model", replace=True) as folder:
        (folder / "new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "new"]


def test_a_folder_that_another_one_filled_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    def late() -> None:
        with atomic_directory(tmp_path / "export") as folder:
            (folder / "mine").touch()
            write_file(tmp_path / "export" / "theirs", [b"theirs"])

    with pytest.raises(StoreError, match=f"cannot write {tmp_path}/export: another process wrote there meanwhile"):
        late()
    assert [path.name for path in tmp_path.rglob("*")] == ["export", "theirs"]


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "model") as folder:
        (folder / "weights").touch(0o600)
    assert ((tmp_path / "model").stat().st_mode & 0o777, (tmp_path / "model" / "weights").stat().st_mode & 0o777) == (0o755, 0o644)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_file(tmp_path / "a", [b"old"])

    def pieces() -> object:
        yield b"ne"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "a", pieces())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "a" / "b"):
        with pytest.raises(StoreError, match="cannot write"):
            write_file(path, [b"new"])
