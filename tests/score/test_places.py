"""Where inputs lie: folders with odd names, links and leftovers; objects of a store."""

import os
import unicodedata
from pathlib import Path

import pytest

from components.classifier.errors import DataError, UsageError
from components.readers.places import LocalSource
from components.readers.records import PassedOver
from components.storage.memory import MemoryStore
from tests.score import cases
from tests.score.conftest import Score

ODD_NAMES = [
    "with space.png",
    "a+b.png",
    "50%.png",
    "#1.png",
    "q?x.png",
    "a&b=c.png",
    "ümläut.png",
    "u\u0308.png",
    "%2B.png",
    "new\nline.png",
]


def test_names_come_back_composed_and_in_one_order(score: Score, tmp_path: Path) -> None:
    names = [f"{folder}/{name}" for folder in ("left side", "right+side") for name in ODD_NAMES]
    for number, name in enumerate(names):
        cases.put(tmp_path / "in" / name, cases.png(number))
    done = score(tmp_path / "in")
    assert done.names == sorted(unicodedata.normalize("NFC", name).replace("\n", "\\n") for name in names)
    assert done.errors == {}


def test_bytes_that_are_no_text_are_shown_as_such(score: Score, tmp_path: Path) -> None:
    folder = cases.folder(tmp_path / "in", 1)
    (Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"))).write_bytes(cases.png(1))
    done = score(folder)
    assert done.names == ["0.png", r"caf\xe9.png"]
    assert None not in done.labels


def test_content_decides_and_each_file_counts_once(score: Score, tmp_path: Path) -> None:
    picture = cases.digit(3)
    for name, kind in {
        "bmp.jpg": "BMP",
        "webp.png": "WEBP",
        "D.JPG": "JPEG",
        "F.PNG": "PNG",
        "noext": "PNG",
        "t.TIF": "TIFF",
        "x.dat": "GIF",
    }.items():
        cases.put(tmp_path / "in" / name, cases.encoded(picture, kind))
    cases.put(tmp_path / "in" / "text.jpg", b"not a picture")
    cases.put(tmp_path / "in" / "README.md", b"about the pictures")
    done = score(tmp_path / "in")
    assert len(done.rows) == len(set(done.names)) == 8
    assert list(done.errors) == [("text.jpg", 0)]
    assert set(done.passed_over) == {"README.md"}


def test_turned_and_deep_pictures_are_read_as_in_training(score: Score, tmp_path: Path) -> None:
    upright = cases.encoded(cases.digit(7))
    turned = cases.encoded(_turned(cases.digit(7)), exif=_orientation(6))
    deep = cases.encoded(_deep(cases.digit(7)))
    for name, data in {"deep.png": deep, "turned.png": turned, "upright.png": upright}.items():
        cases.put(tmp_path / "in" / name, data)
    assert len({row["confidence"] for row in score(tmp_path / "in").rows}) == 1


def test_leftovers_of_other_programs_are_passed_over_and_told(score: Score, tmp_path: Path) -> None:
    folder = cases.folder(tmp_path / "in", 3)
    for name in (".DS_Store", "Thumbs.db", ".hidden/0.png", "@eaDir/0.png", "sub/._0.png", "_SUCCESS"):
        cases.put(folder / name, cases.png(0))
    done = score(folder)
    assert done.names == ["0.png", "1.png", "2.png"]
    assert set(done.passed_over) == {".DS_Store", "Thumbs.db", ".hidden", "@eaDir", "sub/._0.png", "_SUCCESS"}
    assert done.summary.passed_over == 6


def test_links_are_followed_and_loops_end(score: Score, tmp_path: Path) -> None:
    folder = cases.folder(tmp_path / "in", 2)
    cases.folder(tmp_path / "elsewhere", 2)
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "alias.png").symlink_to(folder / "0.png")
    (folder / "loop").symlink_to(folder)
    (folder / "nowhere.png").symlink_to(folder / "gone.png")
    done = score(folder)
    assert done.names == ["0.png", "1.png", "alias.png", "more/0.png", "more/1.png"]
    assert done.passed_over == {"loop": "a link back into the folders above it", "nowhere.png": "a link that leads nowhere"}


def test_pipes_are_not_waited_for(score: Score, tmp_path: Path) -> None:
    os.mkfifo(cases.folder(tmp_path / "in", 1) / "pipe.png")
    assert score(tmp_path / "in").passed_over == {"pipe.png": "neither a file nor a folder, but a device, pipe or socket"}
    with pytest.raises(DataError, match="neither a file nor a folder"):
        score(tmp_path / "in" / "pipe.png")


def test_nothing_there_is_an_error_and_an_empty_folder_is_not(score: Score, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        score(tmp_path / "typo")
    with pytest.raises(DataError, match="nothing under memory://empty/typo"):
        score("memory://empty/typo")
    with pytest.raises(UsageError, match="no input"):
        score("")
    (tmp_path / "empty").mkdir()
    done = score(tmp_path / "empty", shards=3)
    assert (done.rows, done.summary.warnings) == ([], ["nothing was found to score"])


def test_an_output_inside_the_input_is_refused(score: Score, tmp_path: Path) -> None:
    folder = cases.folder(tmp_path / "in", 1)
    with pytest.raises(UsageError, match="lies in the input"):
        score(folder, output=folder / "scores")
    with pytest.raises(UsageError, match="lies in the input"):
        score(cases.folder(tmp_path / "my pics", 1).as_uri(), output=tmp_path / "my pics" / "scores")
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(UsageError, match="lies in the input"):
        score(folder, output=tmp_path / "link" / "scores")


def test_a_file_that_vanished_keeps_its_row(score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cases.folder(tmp_path / "in", 3)
    whole = LocalSource.read

    def read(self: LocalSource, name: str) -> bytes:
        (folder / "1.png").unlink(missing_ok=True)
        return whole(self, name)

    monkeypatch.setattr(LocalSource, "read", read)
    assert score(folder).errors == {("1.png", 0): "cannot be read (No such file or directory)"}


@pytest.fixture
def bucket() -> MemoryStore:
    store = MemoryStore.named("bucket")
    for entry in list(store.list()):
        store.delete(entry.key)
    return store


def test_objects_score_like_files(score: Score, tmp_path: Path, bucket: MemoryStore) -> None:
    folder = cases.folder(tmp_path / "in" / "left side", 12)
    cases.put(folder / "#1+%2B?.png", cases.png(20))
    cases.tar(folder / "t.tar", [("a.png", cases.png(1))])
    for path in folder.rglob("*"):
        bucket.create(f"data/{path.relative_to(tmp_path / 'in')}", path.read_bytes())
    bucket.create("data-2/other.png", cases.png(0))
    local, remote = score(tmp_path / "in"), score("memory://bucket/data", shards=3)
    assert remote.rows == local.rows
    assert score("memory://bucket/data/left side/#1+%2B?.png").names == ["#1+%2B?.png"]
    assert score("memory://bucket/data/left side/t.tar").names == ["t.tar/a.png"]


def test_the_golden_pictures_of_the_version_are_a_first_input(score: Score) -> None:
    done = score("golden")
    assert done.names == ["golden.npy"] * 16


def test_the_order_is_that_of_whole_names(tmp_path: Path) -> None:
    for name in ("a/1.png", "a-b/1.png", "a.png", "B.png", "10.png", "2.png"):
        cases.put(tmp_path / name, b"x")
    listing = LocalSource(tmp_path).listing()
    assert [file.name for file in listing.files] == ["10.png", "2.png", "B.png", "a-b/1.png", "a.png", "a/1.png"]
    assert listing.passed_over == list[PassedOver]()


def _orientation(value: int) -> bytes:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


def _turned(picture):  # type: ignore[no-untyped-def]
    import numpy as np

    return np.ascontiguousarray(np.rot90(picture, 1))  # tag 6: turn it clockwise to see it upright


def _deep(picture):  # type: ignore[no-untyped-def]
    import numpy as np

    return picture.astype(np.uint16) * 257
