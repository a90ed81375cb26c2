"""Tar and zip: read like the folder they were made of; what could do harm is refused, and nothing is left on the disk."""

import os
import re
import stat
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from components.classifier.errors import DataError, UnsafeArchiveError
from components.readers import members as archive_members
from components.readers import zip_directory
from components.readers.archives import ArchiveSource
from components.readers.listing import INNER_ARCHIVE
from components.readers.zip_directory import ZipDirectory
from tests.ingest.cases import encode, files, folder, pixels, put, tar_entry, tar_of, zip_of
from tests.ingest.conftest import Run

MAKERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "zip": zip_of,
    "tar": tar_of,
    "tar.gz": lambda path, members: tar_of(path, members, "w:gz"),
    "tar.bz2": lambda path, members: tar_of(path, members, "w:bz2"),
    "tar.xz": lambda path, members: tar_of(path, members, "w:xz"),
}


@pytest.fixture
def members(tmp_path: Path) -> dict[str, bytes]:
    return files(folder(tmp_path / "members", ["cat", "dog"]))


@pytest.mark.parametrize("kind", MAKERS)
def test_an_archive_is_read_like_its_folder(tmp_path: Path, run: Run, members: dict[str, bytes], kind: str) -> None:
    plain = run(tmp_path / "members")
    backwards = dict(reversed(members.items()))
    found = run(MAKERS[kind](tmp_path / "archive.bin", backwards))  # the content decides, not the name
    assert found.info.digest == plain.info.digest
    assert found.files().keys() == plain.files().keys()
    assert sorted(p.name for p in found.dataset.path.iterdir()) == ["dataset.json", "report.html", "test", "train", "validation"]


def test_wrapped_with_leavings_and_splits(tmp_path: Path, run: Run) -> None:
    for name, seed in (("train", 0), ("test", 400)):
        folder(tmp_path / "data" / "mydata" / name, ["cat", "dog"], seed)
    content = files(tmp_path / "data") | {
        "mydata/README.txt": b"hello",
        "mydata/labels.csv": b"a,b",
        "__MACOSX/mydata/._x.png": b"\0\5\x16\7",
    }
    found = run(zip_of(tmp_path / "data.zip", content))
    assert found.info.counts["test"] == {"cat": 6, "dog": 6}
    assert "passed over 1 hidden or system names" in found.said


def test_an_empty_folder_is_an_empty_class(tmp_path: Path, run: Run, members: dict[str, bytes]) -> None:
    with pytest.raises(DataError, match=r"owl \(0 pictures\)"):
        run(tar_of(tmp_path / "a.tar", [*members.items(), tar_entry("owl", tarfile.DIRTYPE)]))
    with pytest.raises(DataError, match=r"owl \(0 pictures\)"):
        run(zip_of(tmp_path / "a.zip", members | {"owl/": b""}))


OUTSIDE = [
    "../evil.png",
    "cat/../../evil.png",
    "/etc/evil.png",
    "..\\evil.png",
    "C:\\evil.png",
    "C:/evil.png",
    "\\\\host\\evil.png",
    "a/..",
    "..",
]


def test_names_of_a_tar_that_are_not_in_utf_8_are_told_with_the_setting_that_reads_them(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", ["café", "thé"])
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="cp1252") as archive:
        for name in ("café", "thé"):
            archive.add(data / name, name)
    found = run(tmp_path / "a.tar")
    assert found.info.classes == ["caf\\xe9", "th\\xe9"]
    assert "are not in UTF-8, and are shown as caf\\xe9" in found.said
    assert "names=cp1252 reads 'café" in found.said
    named = run(tmp_path / "a.tar", names="cp1252")
    assert named.info.classes == ["café", "thé"]
    assert "are not in" not in named.said


def test_a_name_that_is_said_to_be_utf_8_and_is_not_is_refused_as_such(tmp_path: Path, run: Run) -> None:
    class Lying(zipfile.ZipInfo):
        def _encodeFilenameFlags(self) -> tuple[bytes, int]:
            return self.filename.encode("cp1252"), self.flag_bits | 0x800

    with pytest.raises(DataError, match=r"a\.zip holds a name that is said to be UTF-8 and is not, b'caf\\xe9/1\.png'; make it again"):
        run(zip_of(tmp_path / "a.zip", [(Lying("café/1.png"), b"")]))


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_outside_are_refused(tmp_path: Path, run: Run, members: dict[str, bytes], name: str, kind: str) -> None:
    with pytest.raises(UnsafeArchiveError, match="leads outside") as caught:
        run(MAKERS[kind](tmp_path / f"a.{kind}", members | {name: b"x"}))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        (tar_entry("cat/link.png", tarfile.SYMTYPE, "/etc/passwd"), "a link"),
        (tar_entry("cat/inner.png", tarfile.SYMTYPE, "cat_000.png"), "a link"),
        (tar_entry("cat/hard.png", tarfile.LNKTYPE, "cat/cat_000.png"), "a link"),
        (tar_entry("cat/null.png", tarfile.CHRTYPE), "a device"),
        (tar_entry("cat/disk.png", tarfile.BLKTYPE), "a device"),
        (tar_entry("cat/pipe.png", tarfile.FIFOTYPE), "a device"),
        (tar_entry("cat/sparse.png", tarfile.GNUTYPE_SPARSE), "a device, pipe or sparse file"),
    ],
)
def test_links_and_devices_are_refused(tmp_path: Path, run: Run, members: dict[str, bytes], entry: tarfile.TarInfo, what: str) -> None:
    with pytest.raises(UnsafeArchiveError, match=f"holds {what}.*{entry.name}"):
        run(tar_of(tmp_path / "a.tar", [*members.items(), entry]))


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_sparse_members_are_refused(tmp_path: Path, run: Run, form: str) -> None:
    picture = put(folder(tmp_path / "data", ["cat", "dog"]) / "cat" / "holes.png", encode(pixels(0)))
    os.truncate(picture, 1 << 20)
    pack = ["tar", f"--format={form}", "--sparse", "-cf", str(tmp_path / "a.tar"), "-C", str(tmp_path / "data"), "."]
    subprocess.run(pack, check=True)
    with pytest.raises(UnsafeArchiveError, match=rf"sparse file: '\./cat/{picture.name}'"):
        run(tmp_path / "a.tar")


def test_a_link_in_a_zip_is_refused(tmp_path: Path, run: Run, members: dict[str, bytes]) -> None:
    link = zipfile.ZipInfo("cat/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(UnsafeArchiveError, match=r"a link or device: 'cat/link\.png'"):
        run(zip_of(tmp_path / "a.zip", [*members.items(), (link, b"/etc/passwd")]))


@pytest.mark.parametrize("kind", MAKERS)
def test_bombs_are_refused(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes], kind: str) -> None:
    monkeypatch.setattr(archive_members, "RATIO_FROM_BYTES", 2**20)
    bomb = MAKERS[kind](tmp_path / "bomb", members | {"cat/zeros.png": bytes(6 * 2**20)})
    if kind != "tar":
        with pytest.raises(UnsafeArchiveError, match="more than 200 times its size"):
            run(bomb)
    monkeypatch.setattr(archive_members, "MAX_UNPACKED_BYTES", 2**20)
    with pytest.raises(UnsafeArchiveError, match="unpacks to more than"):
        run(bomb)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_too_many_members_are_refused(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes], kind: str
) -> None:
    monkeypatch.setattr(archive_members, "MAX_MEMBERS", 11)
    with pytest.raises(UnsafeArchiveError, match="more than 11 members"):
        run(MAKERS[kind](tmp_path / "many", members))


def test_a_cut_zip_is_refused(tmp_path: Path, run: Run, members: dict[str, bytes]) -> None:
    whole = zip_of(tmp_path / "whole.zip", members).read_bytes()
    for length in (len(whole) // 3, len(whole) // 2, len(whole) - 30):
        with pytest.raises(DataError, match="cut or damaged zip archive"):
            run(put(tmp_path / "cut.zip", whole[:length]))


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.xz"])
def test_of_a_cut_tar_what_lies_before_the_cut_is_used_and_the_cut_is_told(tmp_path: Path, run: Run, kind: str) -> None:
    rounds = [files(folder(tmp_path / f"round{k}", ["cat", "dog"], seed=100 * k, size=(40, 40))) for k in range(3)]
    members = {f"{name[:-4]}_{k}.png": data for k, part in enumerate(rounds) for name, data in part.items()}
    whole = MAKERS[kind](tmp_path / "whole", members).read_bytes()
    cut = put(tmp_path / "cut.tar", whole[: len(whole) * 3 // 4])
    found = run(cut, image_size=(8, 8))
    assert set(found.files()) < set(members)
    assert 12 < len(found.files()) < 36
    (entry,) = found.info.set_aside
    assert re.search(r"^archive .*cut\.tar is cut (within|after) .*; what lies before is used, what followed is lost: ", entry["reason"])
    assert f"warning: set aside {entry['file']}: {entry['reason']}" in found.lines
    with pytest.raises(DataError, match=r"1 file cannot be used and on_unreadable is 'fail'.* is cut"):
        run(cut, image_size=(8, 8), on_unreadable="fail")


def test_a_tar_is_cut_wherever_it_ends_before_its_end_mark(tmp_path: Path, run: Run, members: dict[str, bytes]) -> None:
    path = tar_of(tmp_path / "a.tar", members)
    with tarfile.open(path) as archive:
        ninth, tenth = archive.getmembers()[8:10]
    places = {
        tenth.offset: ("after 9 members: it has no end mark", str(tmp_path / "b.tar"), 9),
        tenth.offset + 100: ("after 9 members", str(tmp_path / "b.tar"), 9),
        tenth.offset_data + 5: (f"within {tenth.name}", tenth.name, 9),
        ninth.offset_data + ninth.size: (f"within {ninth.name}", str(tmp_path / "b.tar"), 9),
    }
    for length, (where, name, used) in places.items():
        found = run(put(tmp_path / "b.tar", path.read_bytes()[:length]))
        assert [(e["file"], where in e["reason"]) for e in found.info.set_aside] == [(name, True)]
        assert len(found.files()) == used
    packed = MAKERS["tar.bz2"](tmp_path / "a.tar.bz2", members).read_bytes()
    with pytest.raises(DataError, match="cut or damaged tar"):  # bzip2 gives nothing of a block that is not whole
        run(put(tmp_path / "b.tar", packed[: len(packed) // 2]))


def test_a_tar_with_a_damaged_header_is_refused_and_not_read_in_part(tmp_path: Path, run: Run, members: dict[str, bytes]) -> None:
    path = tar_of(tmp_path / "a.tar", members)
    with tarfile.open(path) as archive:
        place = archive.getmembers()[9].offset
    data = bytearray(path.read_bytes())
    data[place : place + 20] = b"\xff" * 20
    with pytest.raises(DataError, match="goes on after 9 members"):
        run(put(tmp_path / "b.tar", bytes(data)))


def test_a_damaged_member_of_a_zip_is_set_aside_by_name(tmp_path: Path, run: Run, members: dict[str, bytes]) -> None:
    path = zip_of(tmp_path / "a.zip", members)
    data = bytearray(path.read_bytes())
    place = data.index(members["cat/cat_003.png"][60:90])
    data[place : place + 3] = b"\0\0\0"
    assert "set aside cat/cat_003.png: the archive is damaged at this member" in run(put(tmp_path / "b.zip", bytes(data))).said


def test_an_encrypted_zip_is_refused(tmp_path: Path, run: Run, members: dict[str, bytes]) -> None:
    data = bytearray(zip_of(tmp_path / "a.zip", members).read_bytes())
    for mark, flag in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.index(mark) + flag] |= 1
    with pytest.raises(DataError, match=r"holds an encrypted member: 'cat/cat_000\.png'"):
        run(put(tmp_path / "b.zip", bytes(data)))


def test_a_name_that_occurs_twice_is_refused(tmp_path: Path, run: Run, members: dict[str, bytes]) -> None:
    for twice in ("cat/cat_000.png", "./cat//cat_000.png"):
        with pytest.raises(UnsafeArchiveError, match=r"holds a name twice: '.*cat_000\.png'; remove or rename one of the two"):
            run(tar_of(tmp_path / "a.tar", [*members.items(), (twice, encode(pixels(7)))]))


def test_backslashes_of_a_zip_are_separators(tmp_path: Path, run: Run, members: dict[str, bytes]) -> None:
    path = tmp_path / "windows.zip"
    zip_of(path, members)
    path.write_bytes(path.read_bytes().replace(b"cat/cat_", b"cat\\cat_").replace(b"dog/dog_", b"dog\\dog_"))
    assert run(path).counts() == {"cat": 6, "dog": 6}


def test_archives_within_are_named_and_not_opened(tmp_path: Path, run: Run, members: dict[str, bytes]) -> None:
    inner = zip_of(tmp_path / "inner.zip", members).read_bytes()
    found = run(zip_of(tmp_path / "a.zip", members | {"cat/more.zip": inner, "old.tar.gz": inner}))
    assert {entry["file"]: entry["reason"] for entry in found.info.set_aside} == dict.fromkeys(
        ("cat/more.zip", "old.tar.gz"), INNER_ARCHIVE
    )
    with pytest.raises(DataError, match=f"holds nothing that can be read, such as inner.zip: {INNER_ARCHIVE}"):
        run(zip_of(tmp_path / "b.zip", {"inner.zip": inner}))


def test_a_folder_of_archives_and_an_archive_of_another_kind_are_told_what_to_do(
    tmp_path: Path, run: Run, members: dict[str, bytes]
) -> None:
    for name in ("cat", "dog"):
        zip_of(tmp_path / "zips" / f"{name}.zip", {"1.png": members["cat/cat_000.png"]})
    with pytest.raises(DataError, match=r"holds only archives \(cat\.zip, dog\.zip\); unpack them, or give one"):
        run(tmp_path / "zips")
    for kind in ("7z", "rar", "tar.zst"):
        with pytest.raises(
            DataError, match="an archive of a kind that is not read; unpack it and give the folder, or pack it as tar or zip"
        ):
            run(put(tmp_path / f"x.{kind}", b"7z\xbc\xaf" + bytes(100)))


def test_an_empty_archive_is_refused(tmp_path: Path, run: Run) -> None:
    for kind in MAKERS:
        with pytest.raises(DataError, match="holds no files"):
            run(MAKERS[kind](tmp_path / f"empty.{kind}", {}))


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, run: Run) -> None:
    with pytest.raises(DataError, match="one file and not an archive"):
        run(put(tmp_path / "a.png", encode(pixels(0))))


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)


@given(st.lists(NAMES, min_size=1, max_size=4), st.sampled_from(["zip", "tar"]))
@settings(max_examples=60, deadline=None)
@example(["./././x"], "tar")
@example(["a//b"], "zip")
@example(["."], "tar")
def test_any_names_are_listed_or_refused(tmp_path_factory: pytest.TempPathFactory, names: list[str], kind: str) -> None:
    root = tmp_path_factory.mktemp("names")
    path = MAKERS[kind](root / "a", dict.fromkeys(names, b"x"))
    source = ArchiveSource(path, "a", root)
    try:
        listing = source.listing()
    except UnsafeArchiveError:
        return
    for member in listing.files:
        assert source.loader(member)() == b"x"
        assert not member.name.startswith("/")
        assert ".." not in member.name.split("/")
        member.name.encode("utf-8")


@pytest.mark.parametrize("limit", [zipfile.ZIP64_LIMIT, 50])
def test_a_zip_is_read_by_the_places_of_its_directory_as_zipfile_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Behind a program, with a comment and a long extra field, in the form of large archives, and members larger than is read at once."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    monkeypatch.setattr(zip_directory, "_SMALL", 100)
    packed = {"a.png": b"x" * 40, "b/ä.png": bytes(range(256)) * 9, "c.png": b""}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, data in packed.items():
            info = zipfile.ZipInfo(name)
            info.extra = struct.pack("<HH", 0x9999, 3000) + bytes(3000)
            archive.writestr(info, data, zipfile.ZIP_DEFLATED if data else zipfile.ZIP_STORED)
        archive.comment = b"PK" * 50
    path = put(tmp_path / "b.zip", b"a program" * 100 + (tmp_path / "a.zip").read_bytes())
    directory = ZipDirectory.find(path, "b.zip")
    assert {info.filename: directory.read(info.header_offset) for info in directory} == packed
    assert zipfile.ZipFile(path).testzip() is None
