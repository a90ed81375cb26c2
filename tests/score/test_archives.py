"""tar and zip, webdataset's form included."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.classifier.errors import DataError
from components.readers import archive_rows
from tests.score import cases
from tests.score.conftest import Model, Score, plan_of

PAIRS = [(f"{k:03d}.png", cases.png(k)) for k in range(4)]


def test_members_of_a_sample_need_not_lie_side_by_side(score: Score, tmp_path: Path) -> None:
    done = score(cases.tar(tmp_path / "apart.tar", [*PAIRS[:2], ("000.cls", b"0"), ("001.cls", b"1")]))
    assert done.names == ["apart.tar/000.png", "apart.tar/001.png"]
    assert None not in done.labels
    assert done.passed_over == {}


def test_odd_members_are_reported_and_every_picture_counts_once(score: Score, tmp_path: Path) -> None:
    members = [("002.cls", b"2"), PAIRS[3], ("004.png", cases.png(4)), ("004.cls", b"4"), ("004.png", cases.png(5))]
    done = score(cases.tar(tmp_path / "odd.tar", [*members, ("._004.png", b"\0\5\x16\7" + bytes(60)), ("notes/", b"")]))
    assert done.names == ["odd.tar/003.png", "odd.tar/004.png", "odd.tar/004.png"]
    assert done.errors == {("odd.tar/004.png", 2): "the archive holds a name twice: '004.png'; remove or rename one of the two"}
    assert done.passed_over == {
        "odd.tar/002.cls": "no picture of that name is in the archive",
        "odd.tar/._004.png": "hidden or a system file",
    }


def test_an_empty_tar_gives_no_rows(score: Score, tmp_path: Path) -> None:
    assert score(cases.tar(tmp_path / "empty.tar", [])).rows == []


def test_zeros_that_are_named_as_a_picture_are_no_empty_tar(score: Score, tmp_path: Path) -> None:
    cases.put(cases.folder(tmp_path / "in", 1) / "zeros.jpg", bytes(10240))
    assert ("zeros.jpg", 0) in score(tmp_path / "in").errors


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_compressed_tars_of_every_form(score: Score, tmp_path: Path, pack: Any, form: int) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=form) as archive:
        for name, picture in PAIRS:
            info = tarfile.TarInfo(f"{'deep/' * 25}{name}")
            info.size = len(picture)
            archive.addfile(info, io.BytesIO(picture))
    done = score(cases.put(tmp_path / "some.bin", pack(data.getvalue())))
    assert done.names == [f"some.bin/{'deep/' * 25}{name}" for name, _ in PAIRS]


def test_damaged_members_keep_their_place(score: Score, tmp_path: Path) -> None:
    done = score(
        cases.tar(tmp_path / "t.tar", [PAIRS[0], ("cut.png", cases.png(1)[:40]), ("empty.jpg", b""), ("text.jpg", b"text"), PAIRS[1]])
    )
    assert [(row["index"], row["label"] is None) for row in done.rows] == [(0, False), (1, True), (2, True), (3, True), (4, False)]


def test_links_in_a_tar_are_dead_letters_and_not_followed(score: Score, tmp_path: Path) -> None:
    path = cases.tar(tmp_path / "t.tar", [PAIRS[0]])
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("evil.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    done = score(path)
    assert done.errors == {("t.tar/evil.png", 1): "the archive holds a link: 'evil.png'; make it again with plain files and folders only"}
    assert (len(done.rows), done.passed_over) == (2, {})


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_rows_before_the_cut_of_a_tar_are_scored_and_the_cut_is_a_dead_letter(score: Score, tmp_path: Path, pack: Any) -> None:
    whole = cases.tar(tmp_path / "whole.tar", PAIRS).read_bytes()
    for kept, scored, name in ((1024, 1, "cut.tar"), (1560, 1, "cut.tar/001.png"), (3 * 1024, 3, "cut.tar")):
        done = score(cases.put(tmp_path / "cut.tar", pack(whole[:kept])))
        assert [row["input"] for row in done.rows if row["error"] is None] == [f"cut.tar/00{k}.png" for k in range(scored)]
        assert set(done.errors) == {(name, scored)}
        assert "archive cut.tar is cut " in done.errors[name, scored]
    with pytest.raises(DataError, match=r"none of the 1 inputs.*cut\.tar is cut within 000\.png"):
        score(cases.put(tmp_path / "cut.tar", pack(whole[:600])))


def test_a_packed_tar_that_is_cut_keeps_its_rows_too(score: Score, tmp_path: Path) -> None:
    packed = gzip.compress(cases.tar(tmp_path / "whole.tar", PAIRS).read_bytes())
    done = score(cases.put(tmp_path / "cut.tar.gz", packed[:-200]))
    assert done.names[0] == "cut.tar.gz/000.png"
    assert len(done.errors) == 1


def test_joined_tars_are_refused_by_name(score: Score, tmp_path: Path) -> None:
    whole = cases.tar(tmp_path / "whole.tar", PAIRS).read_bytes()
    with pytest.raises(DataError, match=r"two\.tar is damaged, or several archives"):
        score(cases.put(tmp_path / "two.tar", whole + whole))


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.zip", "x.npy", "x.parquet"])
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
            r"a git-lfs pointer, not the file itself; run `git lfs pull`",
        ),
        (b"something else " * 50, r"not a file of the kind that its name says \(\.\w+\); copy it again"),
    ],
    ids=["pointer", "other"],
)
def test_a_file_that_is_not_the_container_that_its_name_says_makes_the_run_red(
    score: Score, tmp_path: Path, name: str, data: bytes, says: str
) -> None:
    cases.put(tmp_path / "in" / "1.png", cases.png(1))
    cases.put(tmp_path / "in" / name, data)
    for source in (tmp_path / "in", tmp_path / "in" / name):
        with pytest.raises(DataError, match=rf"{name} is {says}"):
            score(source)
    (tmp_path / "in" / name).rename(tmp_path / "in" / "notes.txt")
    assert score(tmp_path / "in").names == ["1.png"]


def test_a_zip_is_read_with_its_odd_members(score: Score, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/", b"")
        archive.writestr("data/ümläut #1.png", cases.png(1))
        archive.writestr("__MACOSX/data/._x.png", b"x")
        archive.writestr("labels.csv", "file,label")
        archive.writestr("data/cut.png", cases.png(2)[:40])
    done = score(tmp_path / "z.zip")
    assert done.names == ["z.zip/data/ümläut #1.png", "z.zip/data/cut.png"]
    assert set(done.passed_over) == {"z.zip/__MACOSX/data/._x.png", "z.zip/labels.csv"}


def test_a_damaged_member_of_a_zip_is_a_dead_letter(score: Score, tmp_path: Path) -> None:
    noise = cases.encoded(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a.png", noise)
        archive.writestr("b.png", cases.png(1))
    data = bytearray((tmp_path / "z.zip").read_bytes())
    data[len(noise) // 2] ^= 255
    done = score(cases.put(tmp_path / "z.zip", bytes(data)))
    assert [row["error"] is None for row in done.rows] == [False, True]
    with pytest.raises(DataError, match=r"cut\.zip is a cut or damaged zip"):
        score(cases.put(tmp_path / "cut.zip", bytes(data[:-30])))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["tar", "zip", "tgz"])
def test_a_large_archive_is_divided_among_shards_and_its_rows_are_those_of_one(
    kind: str, score: Score, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [*((f"{k:03d}.png", cases.png(k)) for k in range(40)), ("007.png", cases.png(1)), ("041.cls", b"3"), ("cut.png", b"x")]
    path = tmp_path / "in" / f"many.{kind}"
    if kind == "zip":
        path.parent.mkdir()
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members:
                archive.writestr(name, data)
    else:
        cases.tar(path, members, "w:gz" if kind == "tgz" else "w")
    whole = score(path, probabilities=True)
    monkeypatch.setattr(archive_rows, "SPLIT_BYTES", 0)
    monkeypatch.setattr(archive_rows, "ANCHOR_ROWS", 4)
    plan = plan_of(model, tmp_path / "plan", path, tmp_path / "output", shards=3)
    assert len(plan.shards()) == (1 if kind == "tgz" else 3)
    divided = score(path, probabilities=True, shards=3)
    assert divided.data == whole.data
    assert divided.passed_over == whole.passed_over == {f"many.{kind}/041.cls": "no picture of that name is in the archive"}
    assert divided.errors.keys() == {(f"many.{kind}/007.png", 40), (f"many.{kind}/cut.png", 41)}
