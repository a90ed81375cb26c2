"""A zip or tar that is read in parts, from a folder and from a store, gives what it gives as a whole."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.classifier.images import ImageSpec
from components.readers import archive_rows
from components.readers.archive_rows import index_archive, read_range, read_tar, read_zip
from components.readers.places import open_source
from components.readers.records import Encoded, PassedOver, Reading, Record, Unreadable
from components.storage import open_store

READING = Reading(ImageSpec(8, 8, 1))
NAMES = [
    *(
        "a.png",
        "b.png",
        "deep/" * 30 + "c.png",
        "猫.png",
        "odd",
        "x.bin",
        "y.bin",
        "a.cls",
        "z.json",
        ".hidden",
        "../out.png",
        "in.zip",
        "d/",
    )
]
ORPHAN = "no picture of that name is in the archive"
PICTURE = b"\x89PNG and more"
Members = list[tuple[str, bytes]]
MEMBERS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([b"", b"7", PICTURE, bytes(2000)])), min_size=1, max_size=25)


def tar(members: Members, form: int) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=form) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if content == b"7" and name == "b.png":
                info.type, info.linkname, info.size = tarfile.SYMTYPE, "a.png", 0
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def zipped(members: Members, damaged: bool) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    packed = data.getvalue()
    return packed.replace(PICTURE, PICTURE[::-1], 1) if damaged else packed


def told(records: Iterable[Record]) -> Iterator[tuple[object, ...]]:
    for record in records:
        if isinstance(record, Encoded):
            yield record.input, record.index, record.load()
        elif isinstance(record, Unreadable):
            yield record.input, record.index, record.reason
        else:
            assert isinstance(record, PassedOver)
            yield record.input, record.reason


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_rows, "SPLIT_BYTES", 0)
    monkeypatch.setattr(archive_rows, "ANCHOR_ROWS", 3)


def check(folder: Path, address: str, data: bytes, kind: str, cuts: list[int], damaged: bool = False) -> int:
    """Read both ways, and compare; returns the number of rows, 0 where the archive is not divided."""
    (folder / "x").write_bytes(data)
    whole = list(told({"tar": read_tar, "zip": read_zip}[kind](folder / "x", "x", READING)))
    known = ("x", len(data), "x", kind, READING)
    with open_source(address) as source:
        index = index_archive(source, *known)
        if index is None:
            assert not [row for row in whole if len(row) == 3]
            return 0
        edges = sorted({0, index.rows, *(cut for cut in cuts if cut < index.rows)})
        found: list[tuple[object, ...]] = []
        for start, stop in pairwise(edges):
            part = list(told(read_range(source, *known, start, stop, index.place(start, stop))))
            assert [row[1] for row in part if len(row) == 3] == list(range(start, stop))
            found += part
    orphans = list(told(index.passed_over))
    assert found + [row for row in whole if row[1] == ORPHAN] == whole
    assert orphans == [row for row in whole if row[1] == ORPHAN] or damaged, "the label of a damaged picture counts as one with a picture"
    return index.rows


@pytest.mark.usefixtures("small")
@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["tar", "zip"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members=MEMBERS, cuts=st.lists(st.integers(1, 25), max_size=4), form=st.sampled_from([0, 1, 2]), damaged=st.booleans())
def test_parts_give_the_rows_of_the_whole(kind: str, members: Members, cuts: list[int], form: int, damaged: bool, tmp_path: Path) -> None:
    data = tar(members, form) if kind == "tar" else zipped(members, damaged)
    check(tmp_path, str(tmp_path), data, kind, cuts, damaged)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_object_is_read_by_ranges_and_never_copied(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [(f"{k:03d}.png", PICTURE + bytes([k])) for k in range(40)]
    data = tar(members, tarfile.GNU_FORMAT) if kind == "tar" else zipped(members, damaged=False)
    store = open_store(f"memory://parts-{kind}")
    store.replace("x", data)
    monkeypatch.setattr(type(store), "download", None)
    assert check(tmp_path, f"memory://parts-{kind}", data, kind, [5, 17, 18]) == 40


@pytest.mark.usefixtures("small")
def test_what_has_no_beginning_in_its_middle_is_not_divided(tmp_path: Path) -> None:
    members = [(f"{k}.png", PICTURE) for k in range(9)]
    plain = tar(members, tarfile.GNU_FORMAT)
    joined = io.BytesIO()
    with tarfile.open(fileobj=joined, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "of all members"}) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    for number, data in enumerate((gzip.compress(plain), plain[:-9000], joined.getvalue(), plain + plain)):
        (tmp_path / "x").write_bytes(data)
        with open_source(str(tmp_path / "x")) as source:
            assert index_archive(source, "x", len(data), "x", "tar", READING) is None, number
