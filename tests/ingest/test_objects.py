"""Sources in a store: a prefix or an archive under an address. The in-memory store answers as S3 does."""

from pathlib import Path

import pytest

from components.classifier.errors import DataError, UsageError
from components.storage import Store, open_store
from components.storage.memory import MemoryStore
from tests.ingest.cases import encode, files, folder, idx_set, pixels, tar_of
from tests.ingest.conftest import Run


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> Store:
    """A store that only this test sees, under memory://NAME."""
    return open_store(f"memory://{request.node.name}")


def fill(store: Store, root: Path, prefix: str = "") -> None:
    for name, data in files(root).items():
        store.replace(prefix + name, data)


def test_a_prefix_is_read_like_its_folder(tmp_path: Path, run: Run, bucket: MemoryStore) -> None:
    root = folder(tmp_path / "data", ["cat", "dog"])
    fill(bucket, root)
    found = run(bucket.url)
    assert found.info.digest == run(root).info.digest
    assert run(f"{bucket.url}/").info.digest == found.info.digest


def test_objects_that_stand_for_folders_are_passed_over(tmp_path: Path, run: Run, bucket: MemoryStore) -> None:
    fill(bucket, folder(tmp_path / "data", ["cat", "dog"]))
    before = run(bucket.url).info
    bucket._objects |= dict.fromkeys(["cat/", "cat", "dog/", "owl/", "/"], b"")  # what other tools leave; no store of ours writes such keys
    after = run(bucket.url).info
    assert (after.digest, after.set_aside) == (before.digest, [])


def test_names_with_odd_characters_come_through(tmp_path: Path, run: Run, bucket: MemoryStore) -> None:
    names = ["with space", "a+b", "50%", "%2B", "#1", "q?x", "a&b=c", "tilde~", "ümläut"]
    for kind, name in enumerate(("left side", "right+side")):
        for k, file in enumerate(names):
            bucket.replace(f"{name}/{file}.png", encode(pixels(kind, k)))
    found = run(bucket.url)
    assert found.counts() == {"left side": 9, "right+side": 9}
    assert set(found.files()) == {f"{name}/{file}.png" for name in ("left side", "right+side") for file in names}


def test_more_objects_than_one_page(run: Run, bucket: MemoryStore) -> None:
    for k in range(2100):
        bucket.replace(f"{'ab'[k % 2]}/{k:05d}.png", encode(pixels(k % 2, k, size=(4, 4), channels=1)))
    assert sum(run(bucket.url).counts().values()) == 2100


def test_keys_that_no_file_could_have_are_set_aside(tmp_path: Path, run: Run, bucket: MemoryStore) -> None:
    fill(bucket, folder(tmp_path / "data", ["cat", "dog"]))
    bucket._objects["cat/../up.png"] = encode(pixels(9))
    assert "set aside cat/../up.png: its key begins with an empty part, or has '.' or '..' in it" in run(bucket.url).said


def test_idx_files_in_a_store(tmp_path: Path, run: Run, bucket: MemoryStore) -> None:
    root = idx_set(tmp_path / "data")
    fill(bucket, root)
    assert run(bucket.url).info.digest == run(root).info.digest


def test_an_archive_in_a_store(tmp_path: Path, run: Run, bucket: MemoryStore) -> None:
    root = folder(tmp_path / "data", ["cat", "dog"])
    bucket.replace("cats.tar.gz", tar_of(tmp_path / "a.tgz", files(root), "w:gz").read_bytes())
    assert run(f"{bucket.url}/cats.tar.gz").info.digest == run(root).info.digest
    bucket.replace("notes.md", b"nothing")
    with pytest.raises(DataError, match=r"notes\.md is one file and not an archive"):
        run(f"{bucket.url}/notes.md")


def test_nothing_there_is_said(run: Run, bucket: MemoryStore) -> None:
    with pytest.raises(DataError, match="there is nothing under"):
        run(bucket.url)
    with pytest.raises(UsageError, match="unknown store address"):
        run("ftp://host/data")


def test_added_pictures_give_another_digest(tmp_path: Path, run: Run, bucket: MemoryStore) -> None:
    fill(bucket, folder(tmp_path / "data", ["cat", "dog"]))
    before = run(bucket.url).info
    bucket.replace("cat/new.png", encode(pixels(0, 99)))
    after = run(bucket.url).info
    assert after.digest != before.digest
    assert after.source == bucket.url
