"""Pictures of one group, such as a patient's, lie in one split; columns that look like groups are told."""

import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.bundle.dataset import SPLITS
from components.classifier.errors import DataError, UsageError
from components.ingest import split
from components.ingest.collection import SPLIT_CODE, from_arrays
from components.settings.ingest import IngestSettings
from tests.ingest.cases import encode, pixels, put
from tests.ingest.conftest import Ingested, Run


def people(root: Path, count: int = 40, pictures: int = 6, label: bool = True, top: str = "") -> Path:
    """Pictures that show who somebody is, and never the label, which belongs to the person."""
    random = np.random.default_rng(7)
    rows = ["file,patient"]
    for person in range(count):
        name = f"{top}{'well' if person % 2 else 'ill'}"
        face = np.kron(random.integers(0, 256, (4, 4)), np.ones((4, 4)))
        for k in range(pictures):
            noisy = (face + random.normal(0, 25, face.shape)).clip(0, 255).astype(np.uint8)
            put(root / name / f"p{person:03d}_{k}.png", encode(noisy))
            rows.append(f"{name}/p{person:03d}_{k}.png,p{person:03d}")
    if label:
        put(root / "columns.csv", "\n".join(rows))
    return root


def nearest_neighbour_accuracy(found: Ingested) -> float:
    train, test = found.dataset.split("train"), found.dataset.split("test")
    known, asked = (part.images.reshape(len(part), -1).astype(float) for part in (train, test))
    nearest = np.array([((known - picture) ** 2).sum(axis=1).argmin() for picture in asked])
    return float((np.asarray(train.labels)[nearest] == np.asarray(test.labels)).mean())


def groups_of(found: Ingested, column: str) -> dict[str, set[str]]:
    return {name: set(pq.read_table(found.dataset.split(name).columns_path)[column].to_pylist()) for name in SPLITS}


@pytest.mark.parametrize("option", [{"group_column": "patient"}, {"group_pattern": r"/(p\d+)_"}, {"group_pattern": r"p\d+"}])
def test_all_pictures_of_a_group_are_in_one_split(tmp_path: Path, run: Run, option: dict[str, str]) -> None:
    """The label cannot be learnt from these pictures; only knowing the people again looks as if it could."""
    data = people(tmp_path / "data")
    alone, grouped = run(data), run(data, **option)
    assert nearest_neighbour_accuracy(alone) > 0.95
    assert nearest_neighbour_accuracy(grouped) < 0.8
    parts = groups_of(grouped, grouped.info.group)
    assert {name: len(groups) for name, groups in parts.items()} == {"train": 28, "validation": 4, "test": 8}
    assert len(set.union(*parts.values())) == 40
    assert [grouped.total(name) for name in SPLITS] == [168, 24, 48]
    assert grouped.check("groups")["passed"]


def test_a_column_that_looks_like_an_identifier_is_told_with_numbers(tmp_path: Path, run: Run) -> None:
    data = people(tmp_path / "data")
    check = run(data).check("groups")
    assert not check["passed"]
    assert str(check["detail"]).startswith("32 of 40 values of column patient are in several splits: ")
    assert "group_column" in str(check["detail"])


def test_columns_of_few_values_or_of_one_value_each_are_no_identifiers(tmp_path: Path, run: Run) -> None:
    data = people(tmp_path / "data", label=False)
    names = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.png"))
    put(data / "columns.csv", "\n".join(["file,camera,serial", *(f"{name},{k % 3},{k}" for k, name in enumerate(names))]))
    assert run(data).check("groups")["passed"]


def test_groups_in_several_of_the_given_splits_are_refused(tmp_path: Path, run: Run) -> None:
    data = people(tmp_path / "data", 12, top="train/", label=False)
    people(data, 4, top="test/", label=False)
    with pytest.raises(DataError, match=r"4 of 12 groups \(group\) are in several of the source's own splits: p000 \(train, test\)"):
        run(data, group_pattern=r"/(p\d+)_", max_duplicates=100)


def test_too_few_groups_of_a_class_are_refused_with_their_number(tmp_path: Path, run: Run) -> None:
    with pytest.raises(DataError, match=r"leave the test split without the classes ill \(2 groups\), well \(2 groups\); .* 3 groups"):
        run(people(tmp_path / "data", 4), group_column="patient")


def test_options_that_cannot_be_meant_are_refused(tmp_path: Path, run: Run) -> None:
    data = people(tmp_path / "data", 12)
    with pytest.raises(DataError, match="there is no column 'person' of groups; the columns are: patient"):
        run(data, group_column="person")
    with pytest.raises(DataError, match=r"finds nothing in 72 of 72 names, such as ill/p000_0\.png"):
        run(data, group_pattern="scan-([0-9]+)")
    put(data / "columns.csv", (data / "columns.csv").read_text().replace("patient", "group"))
    with pytest.raises(DataError, match="the source has a column 'group' already; set group_column=group, or rename the column"):
        run(data, group_pattern="(p[0-9]+)")
    with pytest.raises(UsageError, match="not a regular expression"):
        run(data, group_pattern="(")
    with pytest.raises(UsageError, match="both say what a group is"):
        run(data, group_column="patient", group_pattern="p")


def test_groups_that_keep_nothing_together_are_told(tmp_path: Path, run: Run) -> None:
    data = people(tmp_path / "data", 12)
    alone = run(data, group_pattern=r"/(p\d+_\d)").check("groups")
    assert not alone["passed"]
    assert "each group has one picture only" in str(alone["detail"])
    table = (data / "columns.csv").read_text()
    put(data / "columns.csv", table.replace("_0.png,p", "_0.png,P").replace("_1.png,p", "_1.png, p"))
    written = run(data, group_column="patient")
    assert "groups that differ only in case are several" in str(written.check("groups")["detail"])
    assert len(set.union(*groups_of(written, "patient").values())) == 24  # p000 and P000, but not ' p000'


def test_a_picture_without_a_value_is_a_group_of_its_own(tmp_path: Path, run: Run) -> None:
    data = people(tmp_path / "data", 12)
    header, *lines = (data / "columns.csv").read_text().splitlines()
    put(data / "columns.csv", "\n".join([header, *(line if k % 4 else line.partition(",")[0] + "," for k, line in enumerate(lines))]))
    found = run(data, group_column="patient")
    assert "18 pictures have no value in column patient: each is a group of its own" in found.said
    assert "are one group" not in found.said
    put(data / "columns.csv", "\n".join([header, *(line if k % 8 else line.partition(",")[0] + ",NA" for k, line in enumerate(lines))]))
    told = "pictures with NA (9) in column patient are one group; leave it empty where it is unknown"
    assert told in run(data, group_column="patient").said


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(0, 10_000)), min_size=1, max_size=150),
    st.integers(0, 3),
)
@settings(max_examples=80, deadline=None)
def test_groups_never_cross_splits_and_neither_do_copies(rows: list[tuple[int, int, int]], seed: int) -> None:
    """Labels, groups and pictures in any mixture: split by whole groups with every class everywhere, or refused."""
    labels, groups, kinds = (np.array(column) for column in zip(*rows, strict=True))
    images = np.stack([np.random.default_rng(kind).integers(0, 256, (2, 2, 1), dtype=np.uint8) for kind in kinds])
    collection = from_arrays(images, labels, ["a", "b", "c"], np.full(len(rows), -1, np.int8), [str(k) for k in range(len(rows))])
    collection.columns, collection.group = {"who": [str(group) for group in groups]}, "who"
    try:
        result = split.assign(collection, np.ones(len(rows), bool), IngestSettings(split_seed=seed))
    except DataError as error:
        assert "each class must lie in at least 3 groups" in str(error)  # noqa: PT017 - both outcomes are right
        return
    places = defaultdict(set)
    for who, print_, code in zip(groups.tolist(), collection.prints, result.tolist(), strict=True):
        places[who].add(code)
        places[print_].add(code)
    assert all(len(codes) == 1 for codes in places.values())
    for label in np.unique(labels):
        assert set(result[labels == label].tolist()) == {SPLIT_CODE[name] for name in SPLITS}


def test_names_that_are_numbered_within_patients_are_told_with_the_setting_that_keeps_them_together(tmp_path: Path, run: Run) -> None:
    for k in range(60):
        put(tmp_path / "data" / "ab"[k % 2] / f"p{k // 4:02d}_{k}.png", encode(pixels(k % 2, k)))
    detail = str(run(tmp_path / "data").check("series")["detail"])
    found = re.match(r"(\d+) of 15 values of what names begin with are in several splits, such as p00 of a/p00_0\.png: ", detail)
    assert found
    assert int(found[1]) >= 5
    together = run(tmp_path / "data", group_pattern=detail.partition("group_pattern='")[2].rstrip("'"))
    assert together.check("groups")["passed"]
    assert "series" not in {check["name"] for check in together.info.checks}


@pytest.mark.parametrize("name", ["{c}_{k:04d}.png", "img{k}.png", "{c}1_{k}.png", "20240101_{k}.png"])
def test_numbers_within_a_class_or_one_day_are_no_series(tmp_path: Path, run: Run, name: str) -> None:
    for k in range(40):
        put(tmp_path / "data" / "ab"[k % 2] / name.format(c="ab"[k % 2], k=k), encode(pixels(k % 2, k)))
    assert "series" not in {check["name"] for check in run(tmp_path / "data").info.checks}
