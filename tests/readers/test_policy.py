"""One way in: the same input gives the same names and the same refusals in training and in scoring."""

import io
import re
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.classifier.errors import DataError, UnsafeArchiveError, UsageError
from components.readers import members
from components.readers.listing import INNER_ARCHIVE, is_hidden, readable
from components.readers.zip_names import names_of
from components.storage.memory import MemoryStore
from tests.ingest.cases import encode, pixels, put, tar_entry, tar_of, zip_in, zip_of
from tests.ingest.conftest import Run, run
from tests.score.conftest import Score, model, score

__all__ = ["model", "run", "score"]

GOOD = {f"{name}/{k}.png": encode(pixels(kind, k)) for kind, name in enumerate(("cat", "dog")) for k in range(4)}
NFD, NFC = (unicodedata.normalize(form, "é.png") for form in ("NFD", "NFC"))
HIDDEN = (
    ".DS_Store",
    "cat/Thumbs.db",
    "__MACOSX/cat/._1.png",
    "cat/_SUCCESS",
    "cat/.hidden/1.png",
    "@eaDir/1.png",
    "cat/x@SynoEAStream.png",
)


def both(run: Run, score: Score, source: str | Path) -> tuple[set[str], set[str]]:
    """The names that training and scoring give the pictures of one input, archive names left out."""
    trained = run(source).files()
    scored = [row["input"] for row in score(source).rows if row["error"] is None]
    prefix = f"{Path(source).name}/" if Path(source).is_file() else ""
    return set(trained), {name.removeprefix(prefix) for name in scored}


def in_folder(root: Path, content: Mapping[str, bytes]) -> Path:
    for name, data in content.items():
        put(root / "folder" / name, data)
    return root / "folder"


def in_store(root: Path, content: Mapping[str, bytes]) -> str:
    store = MemoryStore.named(root.name)
    for name, data in content.items():
        store.replace(f"data/{name}", data)
    return f"memory://{root.name}/data"


PLACES: dict[str, Callable[[Path, Mapping[str, bytes]], Path | str]] = {
    "folder": in_folder,
    "store": in_store,
    "tar": lambda root, content: tar_of(root / "a.tar", content),
    "tar.gz": lambda root, content: tar_of(root / "a.tar.gz", content, "w:gz"),
    "zip": lambda root, content: zip_of(root / "a.zip", content),
}


@pytest.mark.parametrize("place", PLACES)
def test_hidden_and_system_names_are_passed_over_and_counted_by_both(run: Run, score: Score, tmp_path: Path, place: str) -> None:
    source = PLACES[place](tmp_path, GOOD | dict.fromkeys(HIDDEN, encode(pixels(9))))
    trained, scored = both(run, score, source)
    assert trained == scored == set(GOOD)
    assert f"passed over {len(HIDDEN)} hidden or system names" in run(source).said
    assert score(source).summary.passed_over_reasons == {"hidden or a system file": len(HIDDEN)}


@pytest.mark.parametrize("place", PLACES)
def test_names_are_composed_by_both(run: Run, score: Score, tmp_path: Path, place: str) -> None:
    source = PLACES[place](tmp_path, GOOD | {f"cat/{NFD}": encode(pixels(0, 50)), "dog/a\u202fb.png": encode(pixels(1, 50))})
    trained, scored = both(run, score, source)
    assert trained == scored == {*GOOD, f"cat/{NFC}", "dog/a\u202fb.png"}


@pytest.mark.parametrize("place", ["tar", "zip"])
def test_one_name_in_two_unicode_forms_is_refused_by_both(run: Run, score: Score, tmp_path: Path, place: str) -> None:
    source = PLACES[place](tmp_path, GOOD | {f"cat/{NFC}": encode(pixels(0, 50)), f"cat/{NFD}": encode(pixels(0, 51))})
    refused_by_both(run, score, source, f"holds a name twice: 'cat/{NFC}'")


@pytest.mark.parametrize("place", ["tar", "zip"])
def test_plain_dots_and_double_slashes_leave_no_trace_in_names(run: Run, score: Score, tmp_path: Path, place: str) -> None:
    source = PLACES[place](tmp_path, {f"./{name.replace('/', '//')}": data for name, data in GOOD.items()})
    trained, scored = both(run, score, source)
    assert trained == scored == set(GOOD)


def test_backslashes_of_a_zip_separate_folders_for_both(run: Run, score: Score, tmp_path: Path) -> None:
    source = zip_of(tmp_path / "a.zip", GOOD)
    source.write_bytes(source.read_bytes().replace(b"cat/", b"cat\\").replace(b"dog/", b"dog\\"))
    trained, scored = both(run, score, source)
    assert trained == scored == set(GOOD)


JAPANESE, CHINESE = ("ソート", "ソニー", "新しい"), ("颜真卿", "王羲之")


def pictures_of(*classes: str) -> dict[str, bytes]:
    return {f"{name}/{k}.png": encode(pixels(kind, k)) for kind, name in enumerate(classes) for k in range(4)}


@pytest.mark.parametrize(("classes", "encoding"), [(JAPANESE, "cp932"), (CHINESE, "gbk"), (("größe", "café"), "cp437")])
def test_names_of_a_zip_in_a_code_page_are_read_by_its_name_or_refused_by_both(
    run: Run, score: Score, tmp_path: Path, classes: tuple[str, ...], encoding: str
) -> None:
    """The second byte of ソ is that of the backslash in cp932: three classes must never become two."""
    content = pictures_of(*classes)
    source = zip_in(tmp_path / "a.zip", content, encoding)
    assert run(source, names=encoding).counts() == dict.fromkeys(sorted(classes), 4)
    assert [row["input"] for row in score(source, names=encoding).rows] == [f"a.zip/{name}" for name in content]
    first = next(iter(content))
    reason = r"a name that is not in UTF-8, and does not say its encoding: '.*0\.png'; say it \(.*"
    with pytest.raises(UnsafeArchiveError, match=f"{reason}names={encoding} reads '{first}'"):
        run(source)
    with pytest.raises(DataError, match=f"none of the {len(content)} inputs could be scored.*{reason}names={encoding} reads '{first}'"):
        score(source)


@pytest.mark.parametrize("unicode_path", [True, False])
def test_names_of_a_zip_that_say_they_are_utf_8_or_all_are_need_no_option(
    run: Run, score: Score, tmp_path: Path, unicode_path: bool
) -> None:
    content = pictures_of(*CHINESE)
    source = zip_in(tmp_path / "a.zip", content, "gbk" if unicode_path else "utf-8", unicode_path)
    trained, scored = both(run, score, source)
    assert trained == scored == set(content)


def test_a_unicode_path_of_another_name_does_not_count(run: Run, tmp_path: Path) -> None:
    """A tool that renames a member without knowing the field leaves it as it was; its checksum then belongs to another name."""
    source = zip_in(tmp_path / "a.zip", pictures_of("cat", "dog"), "ascii", unicode_path=True)
    renamed = re.sub(rb"cat(/\d\.png)(?=up|PK|\x89)", rb"cow\1", source.read_bytes())  # in the headers, not in the field
    source.write_bytes(renamed)
    assert set(run(source).counts()) == {"cow", "dog"}


def test_one_name_that_is_not_utf_8_makes_all_unmarked_names_of_an_archive_doubtful(run: Run, tmp_path: Path) -> None:
    """猫 in GBK is valid UTF-8 (è), 狗 is not: the archive is in one encoding, so neither is taken."""
    source = zip_in(tmp_path / "a.zip", pictures_of("猫", "狗"), "gbk")
    with pytest.raises(UnsafeArchiveError, match="names=gbk reads '猫/0"):
        run(source)


def test_few_names_of_a_zip_of_windows_that_are_valid_utf_8_by_chance_are_refused(run: Run, score: Score, tmp_path: Path) -> None:
    """猫 in GBK is è; more letters, letters of three bytes, and zips of other systems are in UTF-8."""
    source = zip_in(tmp_path / "a.zip", pictures_of("猫", "hund"), "gbk", system=0)
    words = r"may not be in UTF-8, and does not say its encoding: 'è/0\.png'; say it \(names=utf-8 reads 'è/0\.png'; .*names=gbk reads '猫"
    with pytest.raises(UnsafeArchiveError, match=words):
        run(source)
    errors = [row["error"] for row in score(source).rows if row["error"]]
    assert len(errors) == 4
    assert re.search(words, errors[0])
    assert set(run(source, names="gbk").counts()) == {"猫", "hund"}
    for classes, system in ((("è", "hund"), 3), (("кошка", "собака"), 0), (CHINESE, 0)):
        assert set(run(zip_in(tmp_path / "b.zip", pictures_of(*classes), "utf-8", system=system)).counts()) == set(classes)


@given(st.lists(st.text("ソ表能本あ/ab.", min_size=1, max_size=6), min_size=1, max_size=5, unique=True))
@settings(max_examples=60, deadline=None)
def test_names_in_a_code_page_come_back_as_they_were_written_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    path = zip_in(tmp_path_factory.mktemp("names") / "a.zip", dict.fromkeys(names, b"x"), "cp932")
    with zipfile.ZipFile(path) as archive:
        assert [name for _, name, _ in names_of(archive.infolist(), "cp932")] == names
        found = [name for _, name, _ in names_of(archive.infolist())]
    assert all(name in {None, written} for name, written in zip(found, names, strict=True))


def test_names_of_a_tar_in_a_code_page_are_read_by_its_name(run: Run, score: Score, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="gbk") as archive:
        for name, data in pictures_of(*CHINESE).items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert set(run(tmp_path / "a.tar", names="gbk").counts()) == set(CHINESE)
    assert {row["input"].split("/")[1] for row in score(tmp_path / "a.tar", names="gbk").rows} == set(CHINESE)


@pytest.mark.parametrize("name", ["gbkk", "utf-16", "rot13"])
def test_an_encoding_in_which_no_name_could_be_is_refused(run: Run, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"names='{name}' is not an encoding of file names; use cp932"):
        run(tmp_path, names=name)


def refused_by_both(run: Run, score: Score, source: Path | str, words: str) -> None:
    """Training ends with the words; scoring gives one picture a row with the same words, and scores all others."""
    with pytest.raises(UnsafeArchiveError) as refusal:
        run(source)
    assert words in str(refusal.value)
    reasons = [row["error"] for row in score(source).rows if row["error"]]
    assert len(reasons) == 1
    assert str(refusal.value).endswith(reasons[0].removeprefix("the archive "))
    assert len([row for row in score(source).rows if row["error"] is None]) >= len(GOOD)


def zip_link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


PNG = encode(pixels(0, 77))
TARS = {
    "a symbolic link": (tar_entry("cat/l.png", tarfile.SYMTYPE, "/etc/passwd"), "holds a link: 'cat/l.png'"),
    "a hard link": (tar_entry("cat/l.png", tarfile.LNKTYPE, "cat/0.png"), "holds a link: 'cat/l.png'"),
    "a device": (tar_entry("cat/d.png", tarfile.CHRTYPE), "holds a device, pipe or sparse file: 'cat/d.png'"),
    "a pipe": (tar_entry("cat/p.png", tarfile.FIFOTYPE), "holds a device, pipe or sparse file: 'cat/p.png'"),
    "a name twice": (("cat/0.png", PNG), "holds a name twice: 'cat/0.png'"),
    "a name that leads up": (("cat/../../x.png", PNG), "holds a name that leads outside: 'cat/../../x.png'"),
    "an absolute name": (("/etc/x.png", PNG), "holds a name that leads outside: '/etc/x.png'"),
}
ZIPS = {
    "a link": ((zip_link("cat/l.png"), b"/etc/passwd"), "holds a link or device: 'cat/l.png'"),
    "a name twice": (("cat/0.png", PNG), "holds a name twice: 'cat/0.png'"),
    "a name that leads up": (("..\\x.png", PNG), "holds a name that leads outside: '..\\x.png'"),
    "a drive": (("C:\\x.png", PNG), "holds a name that leads outside: 'C:\\x.png'"),
}


@pytest.mark.parametrize("case", TARS)
def test_a_member_of_a_tar_is_refused_in_the_same_words(run: Run, score: Score, tmp_path: Path, case: str) -> None:
    member, words = TARS[case]
    refused_by_both(run, score, tar_of(tmp_path / "a.tar", [*GOOD.items(), member]), words)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", ZIPS)
def test_a_member_of_a_zip_is_refused_in_the_same_words(run: Run, score: Score, tmp_path: Path, case: str) -> None:
    member, words = ZIPS[case]
    refused_by_both(run, score, zip_of(tmp_path / "a.zip", [*GOOD.items(), member]), words)


def test_a_sparse_member_is_never_blown_up_into_zeros(run: Run, score: Score, tmp_path: Path) -> None:
    """A sparse file of the PAX format: 512 bytes in the archive, a million in memory."""
    holes = tarfile.TarInfo("cat/s.png")
    data = b"1\n0\n512\n".ljust(512, b"\0") + bytes(512)
    holes.size = len(data)
    holes.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "cat/s.png", "GNU.sparse.realsize": "1000000"}
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for name, picture in GOOD.items():
            info = tarfile.TarInfo(name)
            info.size = len(picture)
            archive.addfile(info, io.BytesIO(picture))
        archive.addfile(holes, io.BytesIO(data))
    refused_by_both(run, score, tmp_path / "a.tar", "holds a device, pipe or sparse file: 'cat/s.png'")


def test_an_encrypted_member_is_refused_in_the_same_words(run: Run, score: Score, tmp_path: Path) -> None:
    data = bytearray(zip_of(tmp_path / "a.zip", {"cat/locked.png": PNG, **GOOD}).read_bytes())
    for mark, flag in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.index(mark) + flag] |= 1
    refused_by_both(run, score, put(tmp_path / "b.zip", bytes(data)), "holds an encrypted member: 'cat/locked.png'")


@pytest.mark.parametrize(("name", "limit"), [("MAX_MEMBERS", 5), ("MAX_UNPACKED_BYTES", 1000)])
@pytest.mark.parametrize("place", ["tar", "tar.gz", "zip"])
def test_limits_of_archives_hold_for_both(
    run: Run, score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, name: str, limit: int
) -> None:
    source = PLACES[place](tmp_path, GOOD)
    monkeypatch.setattr(members, name, limit)
    with pytest.raises(UnsafeArchiveError, match=r"holds more than 5 members|unpacks to more than"):
        run(source)
    with pytest.raises(DataError, match=r"holds more than 5 members|unpacks to more than"):
        score(source)


FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")


@pytest.mark.parametrize("place", ["folder", "tar"])
def test_content_tells_a_picture_of_any_format_and_text_or_a_raw_file_is_none(run: Run, score: Score, tmp_path: Path, place: str) -> None:
    pictures = {f"cat/{kind}.dat": encode(pixels(0, 50 + k, size=(32, 32)), kind) for k, kind in enumerate(FORMATS)}
    texts = {"cat/car.txt": b"BMW or not, this is text and no picture", "cat/part.txt": b"P1a, P2b and P3c", "dog/table.csv": b"a,b\n1,2\n"}
    raw = Image.fromarray(pixels(0, 90, size=(32, 32)))
    texts |= {"cat/photo.dng": encode(raw, "TIFF", tiffinfo={50706: b"\1\4\0\0"})}
    good = {f"{name}/{k}.png": encode(pixels(kind, k, size=(32, 32))) for kind, name in enumerate(("cat", "dog")) for k in range(4)}
    source = PLACES[place](tmp_path, good | pictures | texts)
    trained, scored = both(run, score, source)
    assert trained == scored == {*good, *pictures}
    assert score(source).errors == {}


@pytest.mark.parametrize("place", ["tar", "zip"])
@pytest.mark.parametrize("name", ["cat/more.zip", "dog/old.tar.gz"])
def test_an_archive_within_an_archive_is_named_in_the_same_words(run: Run, score: Score, tmp_path: Path, place: str, name: str) -> None:
    source = PLACES[place](tmp_path, GOOD | {name: zip_of(tmp_path / "inner.zip", GOOD).read_bytes()})
    assert run(source).info.set_aside == [{"file": name, "reason": INNER_ARCHIVE}]
    assert {shown: reason for (shown, _), reason in score(source).errors.items()} == {f"{Path(source).name}/{name}": INNER_ARCHIVE}


NOT_PICTURES = {
    "cat/login.jpg": (b"<!-- v2 -->\r\n<HTML><body>Sign in</body></HTML>", "an HTML page"),
    "cat/pointer.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a git-lfs pointer"),
    "dog/9.png.lnk": (b"L\0\0\0\x01\x14\x02\0\0\0\0\0\xc0\0\0\0\0\0\0F", "a Windows shortcut"),
    "dog/shortcut.bmp": (b"L\0\0\0\x01\x14\x02\0\0\0\0\0\xc0\0\0\0\0\0\0F", "a Windows shortcut"),
    "dog/denied.png": (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "an error message of a store"),
    "dog/drawing.svg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
}


def tables(root: Path, content: Mapping[str, bytes]) -> Path:
    labels = [name.partition("/")[0] for name in content]
    pq.write_table(pa.table({"image": list(content.values()), "label": labels}), root / "t.parquet")
    return root / "t.parquet"


@pytest.mark.parametrize("place", [*PLACES, "parquet"])
def test_what_lies_under_a_pictures_name_is_called_what_it_is_by_both(run: Run, score: Score, tmp_path: Path, place: str) -> None:
    good = {f"{name}/{k}.png": encode(pixels(kind, k)) for kind, name in enumerate(("cat", "dog")) for k in range(12)}
    content = good | {name: data for name, (data, _) in NOT_PICTURES.items()}
    source = (PLACES | {"parquet": tables})[place](tmp_path, content)
    if place == "parquet":
        wanted = {f"t.parquet#{len(good) + k}": told for k, (_, told) in enumerate(NOT_PICTURES.values())}
    else:
        wanted = {name: told for name, (_, told) in NOT_PICTURES.items()}
    trained = {entry["file"]: entry["reason"] for entry in run(source).info.set_aside}
    done = score(source)
    names = {
        f"t.parquet#{index}" if place == "parquet" else name.removeprefix(f"{Path(source).name}/"): reason
        for (name, index), reason in done.errors.items()
    }
    assert trained == names
    assert trained.keys() == wanted.keys()
    assert all(trained[name].startswith(f"the content is {told}") for name, told in wanted.items())


def test_links_and_pipes_in_a_folder_are_told_in_the_same_words(run: Run, score: Score, tmp_path: Path) -> None:
    root = in_folder(tmp_path, GOOD)
    (root / "cat" / "loop").symlink_to(root)
    (root / "cat" / "gone.png").symlink_to("nowhere.png")
    trained, passed = run(root), score(root).passed_over
    assert passed == {"cat/loop": "a link back into the folders above it", "cat/gone.png": "a link that leads nowhere"}
    assert trained.info.set_aside == [{"file": "cat/gone.png", "reason": passed["cat/gone.png"]}]
    assert f"note: passed over cat/loop: {passed['cat/loop']}" in trained.lines


def test_two_files_whose_names_only_look_alike_are_refused_by_both(run: Run, score: Score, tmp_path: Path) -> None:
    root = in_folder(tmp_path, GOOD | {f"cat/{NFC}": PNG, f"cat/{NFD}": PNG})
    for way in (run, score):
        with pytest.raises(DataError, match=f"holds 'cat/{NFC}' twice, in two spellings that look alike"):
            way(root)


def test_a_picture_gives_the_same_pixels_to_training_by_every_way(run: Run, tmp_path: Path) -> None:
    digests = {run(PLACES[place](tmp_path / place.replace(".", "-"), GOOD)).info.digest for place in PLACES}
    assert len(digests) == 1


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_shown_names_are_one_line_composed_and_stay_as_they_are(name: str) -> None:
    shown = readable(name)
    assert readable(shown) == shown == unicodedata.normalize("NFC", shown)
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")


def test_a_current_folder_is_not_hidden() -> None:
    assert not is_hidden("./cat/1.png")
    assert is_hidden("cat/.git/1.png")
