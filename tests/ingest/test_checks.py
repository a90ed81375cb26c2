"""What stops an ingest and what is reported: duplicates, contradictions, constant pictures; and the split that follows."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.classifier.errors import DataError
from components.ingest import split
from components.ingest.collection import NOT_GIVEN, SPLIT_CODE, Collection, fingerprint, from_arrays
from components.settings.ingest import IngestSettings
from tests.ingest.cases import encode, folder, pixels, put
from tests.ingest.conftest import Ingested, Run


def prints(found: Ingested) -> dict[str, set[bytes]]:
    """Per split the fingerprints of its pictures."""
    return {name: {fingerprint(image) for image in found.dataset.split(name).images} for name in ("train", "validation", "test")}


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """train/ and test/ that share three pictures: as a file, re-encoded, and under another label."""
    folder(tmp_path / "leaky" / "train", {"cat": 12, "dog": 12})
    folder(tmp_path / "leaky" / "test", {"cat": 6, "dog": 6}, 500)
    put(tmp_path / "leaky" / "test" / "cat" / "same_a.png", encode(pixels(0, 0)))
    put(tmp_path / "leaky" / "test" / "cat" / "recoded_b.bmp", encode(pixels(0, 1), "BMP"))
    put(tmp_path / "leaky" / "test" / "dog" / "other_label_c.png", encode(pixels(0, 2)))
    return tmp_path / "leaky"


def test_pictures_in_two_splits_are_refused_by_name(leaky: Path, run: Run) -> None:
    with pytest.raises(DataError) as caught:
        run(leaky)
    message = str(caught.value)
    assert "3 pictures are in two splits, more than max_duplicates=0" in message
    assert all(name in message for name in ("same_a.png", "recoded_b.bmp", "other_label_c.png with two labels, cat and dog"))
    with pytest.raises(DataError, match="more than max_duplicates=2"):
        run(leaky, max_duplicates=2)


def test_up_to_the_limit_they_are_dropped_from_training(leaky: Path, run: Run) -> None:
    found = run(leaky, max_duplicates=3)
    assert found.total("test") == 15
    assert {entry["file"] for entry in found.info.set_aside} == {f"train/cat/cat_00{k}.png" for k in range(3)}
    assert found.check("pictures across splits")["passed"] is False
    assert "other_label_c.png with two labels" in str(found.check("pictures across splits")["detail"])
    seen = prints(found)
    assert not seen["test"] & (seen["train"] | seen["validation"])


def test_a_given_validation_split_wins_over_training(tmp_path: Path, run: Run) -> None:
    for name, seed in (("train", 0), ("val", 100), ("test", 500)):
        folder(tmp_path / "data" / name, {"cat": 6, "dog": 6}, seed)
    put(tmp_path / "data" / "val" / "cat" / "copy.png", encode(pixels(0, 0)))
    found = run(tmp_path / "data", max_duplicates=1)
    assert "val/cat/copy.png" in found.files("validation")
    assert "train/cat/cat_000.png" not in found.files("train")


def test_what_has_no_split_is_trained_on_where_others_have_one_and_a_copy_there_is_no_leak(tmp_path: Path, run: Run) -> None:
    folder(tmp_path / "data", {"cat": 12, "dog": 12})
    put(tmp_path / "data" / "cat" / "copy.png", encode(pixels(0, 5)))
    names = [f"{label}/{label}_{k:03d}.png" for label in ("cat", "dog") for k in range(12)]
    split = {0: "test", 1: "test", 5: "train"}
    put(tmp_path / "data" / "columns.csv", "file,split\n" + "".join(f"{name},{split.get(k % 12, '')}\n" for k, name in enumerate(names)))
    found = run(tmp_path / "data")
    assert found.check("pictures across splits")["passed"] is True
    assert {"cat/copy.png", "cat/cat_005.png"} <= set(found.files("train")) | set(found.files("validation"))


def test_a_dropped_leak_is_set_aside_once_though_its_label_contradicts_another(tmp_path: Path, run: Run) -> None:
    folder(tmp_path / "data" / "train", {"cat": 22, "dog": 22})
    folder(tmp_path / "data" / "val", {"cat": 4, "dog": 4}, 100)
    folder(tmp_path / "data" / "test", {"cat": 4, "dog": 4}, 500)
    for place in ("val/cat/a.png", "val/dog/b.png"):  # the pixels of train/cat/cat_000.png under two labels
        put(tmp_path / "data" / place, encode(pixels(0, 0)))
    aside = [entry["file"] for entry in run(tmp_path / "data", max_duplicates=1).info.set_aside]
    assert sorted(aside) == ["train/cat/cat_000.png", "val/cat/a.png", "val/dog/b.png"]


def test_copies_in_a_flat_folder_stay_in_one_split(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", {"cat": 30, "dog": 30})
    for k in range(30):
        put(data / "cat" / f"copy_{k}.bmp", encode(pixels(0, k), "BMP"))
        put(data / "dog" / f"grey_{k}.png", encode(pixels(1, k + 100, channels=1)))
        put(data / "dog" / f"grey_as_rgb_{k}.png", encode(np.repeat(pixels(1, k + 100, channels=1)[..., None], 3, axis=2)))
    found = run(data)
    assert sum(found.counts().values()) == 150
    assert "60 pictures occur more than once (60 copies" in found.said
    seen = prints(found)
    assert not seen["test"] & seen["train"]
    assert not seen["test"] & seen["validation"]
    assert not seen["train"] & seen["validation"]
    assert 10 <= found.info.counts["test"]["cat"] <= 12


def test_contradicting_labels_are_set_aside_by_name(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", {"cat": 30, "dog": 30})
    put(data / "dog" / "really_cat.png", encode(pixels(0, 7)))
    found = run(data)
    assert found.counts() == {"cat": 29, "dog": 30}
    assert {entry["file"] for entry in found.info.set_aside} == {"cat/cat_007.png", "dog/really_cat.png"}
    assert "1 pictures have two labels: cat/cat_007.png and dog/really_cat.png" in found.said
    for k in range(12):
        put(data / "dog" / f"wrong_{k}.png", encode(pixels(0, k)))
    with pytest.raises(DataError, match="have the pixels of a picture with another label, more than 10%"):
        run(data)


def test_pictures_of_one_colour_are_refused_when_many_and_reported_when_few(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", {"cat": 20, "dog": 20})
    put(data / "cat" / "black.png", encode(np.zeros((16, 16, 3), np.uint8)))
    found = run(data)
    assert found.counts() == {"cat": 21, "dog": 20}
    assert "warning: constant pictures: 1 of 41 pictures have one colour only: cat/black.png" in found.said
    for k in range(12):
        put(data / "dog" / f"white_{k}.png", encode(np.full((16, 16, 3), 255 - k, np.uint8)))
    with pytest.raises(
        DataError, match=r"13 of 53 pictures have one colour only \(class 'dog': 38%; such as cat/black\.png, value \[0, 0, 0\]"
    ):
        run(data)


def test_a_source_of_black_pictures_is_refused(tmp_path: Path, run: Run) -> None:
    for name in ("a", "b"):
        for k in range(12):
            put(tmp_path / "data" / name / f"{k}.png", encode(np.zeros((8, 8, 3), np.uint8)))
    with pytest.raises(DataError, match="24 of 24 pictures have one colour only"):
        run(tmp_path / "data")


def test_a_class_of_copies_of_one_picture_is_too_small(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", {"cat": 20, "dog": 2})
    for k in range(9):
        put(data / "dog" / f"copy_{k}.png", encode(pixels(1, 0)))
    with pytest.raises(DataError, match=r"dog \(11 pictures, only 2 different\)"):
        run(data)


def test_leaks_that_leave_a_class_too_small_are_named_as_such(tmp_path: Path, run: Run) -> None:
    folder(tmp_path / "data" / "train", {"cat": 12, "dog": 3})
    folder(tmp_path / "data" / "test", {"cat": 6, "dog": 2})
    with pytest.raises(DataError, match=r"dog \(1 picture, 2 in test, 2 set aside\)"):
        run(tmp_path / "data", max_duplicates=8)


def collection(per_class: list[int], copies: int = 1, given: list[int] | None = None) -> Collection:
    labels = np.repeat(np.arange(len(per_class)), per_class)
    images = np.arange(len(labels) // copies + 1).repeat(copies)[: len(labels)].astype(">u4").view(np.uint8).reshape(-1, 2, 2, 1)
    split_of = np.array(given if given is not None else [NOT_GIVEN] * len(labels), np.int8)
    return from_arrays(images, labels, [str(k) for k in range(len(per_class))], split_of, [str(k) for k in range(len(labels))])


@given(
    st.lists(st.integers(3, 60), min_size=2, max_size=5),
    st.floats(0.01, 0.6),
    st.floats(0.01, 0.39),
    st.integers(0, 5),
)
@settings(max_examples=80, deadline=None)
def test_every_class_is_in_every_split_in_its_share(per_class: list[int], test: float, validation: float, seed: int) -> None:
    found = collection(per_class)
    options = IngestSettings(test_fraction=test, validation_fraction=validation, split_seed=seed)
    result = split.assign(found, np.ones(len(found), bool), options)
    for label, total in enumerate(per_class):
        counts = {name: int((result[found.labels == label] == code).sum()) for name, code in SPLIT_CODE.items() if name}
        assert sum(counts.values()) == total
        assert min(counts.values()) >= 1
        assert abs(counts["test"] - test * total) <= 1 or counts["train"] == 1
        assert abs(counts["validation"] - validation * total) <= 1 or counts["train"] == 1


def test_the_split_depends_on_content_and_seed_only() -> None:
    found = collection([40, 40])
    options = IngestSettings(split_seed=3)
    keep = np.ones(len(found), bool)
    result = split.assign(found, keep, options)
    order = np.random.default_rng(0).permutation(len(found))
    shuffled = from_arrays(found.images[order], found.labels[order], found.classes, found.given[order], found.names)
    np.testing.assert_array_equal(split.assign(shuffled, keep, options), result[order])
    assert (split.assign(found, keep, IngestSettings(split_seed=4)) != result).any()


def test_adding_pictures_moves_few_others() -> None:
    large = collection([110, 110])
    before = np.array([k for k in range(220) if k % 110 < 100])
    small = from_arrays(large.images[before], large.labels[before], large.classes, large.given[before], [large.names[k] for k in before])
    options = IngestSettings()
    old = split.assign(small, np.ones(len(small), bool), options)
    new = split.assign(large, np.ones(len(large), bool), options)[before]
    assert (old != new).mean() < 0.1


def test_a_large_group_of_copies_does_not_become_the_test_split(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", {"cat": 20, "dog": 20})
    for k in range(40):
        put(data / "cat" / f"copy_{k}.png", encode(pixels(0, 3)))
    for seed in range(4):
        assert run(data, split_seed=seed).info.counts["test"]["cat"] <= 12


@pytest.mark.parametrize(
    ("bits", "levels", "told"),
    [
        (12, 16, "all 16 files of 16 bits per sample hold no value above 4,0.. of 65,535: if they are of 12 bits, set levels=12, else "),
        (10, 16, "no value above 1,0.. of 65,535: if they are of 10 bits, set levels=10, else they are 64 times too dark"),
        (10, 12, "no value above 1,0.. of 4,095: if they are of 10 bits, set levels=10, else they are 4 times too dark"),
        (12, 12, ""),
        (13, 16, ""),
        (16, 16, ""),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_10_and_12_bit_data_in_16_bit_files_are_told_with_the_setting_that_helps(
    tmp_path: Path, run: Run, kind: str, bits: int, levels: int, told: str
) -> None:
    rng = np.random.default_rng(0)
    stored = {}
    for name in ("a", "b"):
        for k in range(8):
            stored[f"{name}/{k}.{kind.lower()}"] = values = rng.integers(0, 2**bits, (8, 8), dtype=np.uint16)
            put(tmp_path / "data" / name / f"{k}.{kind.lower()}", encode(Image.fromarray(values), kind))
    ran = run(tmp_path / "data", levels=levels)
    warned = [line for line in ran.lines if line.startswith("warning")]
    assert [bool(re.search(told, line)) for line in warned] == [True] * bool(told)
    assert ran.info.levels == levels
    for name, (_, found) in ran.files().items():
        assert np.array_equal(found[..., 0], np.round(stored[name] * (255 / (2**levels - 1))))


def test_dark_pictures_of_8_bits_are_told_without_a_word_of_levels(tmp_path: Path, run: Run) -> None:
    for name in ("a", "b"):
        for k in range(8):
            put(tmp_path / "data" / name / f"{k}.png", encode(pixels(ord(name), k, (8, 8), 1) // 16))
    (warned,) = [line for line in run(tmp_path / "data").lines if line.startswith("warning")]
    assert warned.endswith("the brightest pixel of all has the value 15 of 255; look how the pictures were saved")


def test_10_bit_data_that_become_one_colour_are_called_what_they_may_be(tmp_path: Path, run: Run) -> None:
    for kind in ("a", "b"):
        for k in range(8):
            flat = np.full((8, 8), 500, np.uint16)
            flat[0, 0] = 510 + k
            put(tmp_path / "data" / kind / f"{k}.png", encode(Image.fromarray(flat)))
    with pytest.raises(DataError, match=r"one colour only .* no value above 517 of 65,535: if they are of 10 bits, set levels=10"):
        run(tmp_path / "data")


def test_pictures_that_are_named_like_masks_of_others_are_told(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", ["benign", "malignant"])
    assert "companions" not in {check["name"] for check in run(data).info.checks}
    for k in range(4):
        put(data / "benign" / f"benign_{k:03d}_mask.png", encode(pixels(5, k)))
    put(data / "malignant" / "gas_mask.png", encode(pixels(6, 1)))
    detail = str(run(data).check("companions")["detail"])
    assert detail.startswith("4 pictures named like a mask or copy of the one beside it: benign/benign_000_mask.png, ")


def test_versions_of_a_picture_in_several_splits_are_told_with_the_setting_that_keeps_them_together(tmp_path: Path, run: Run) -> None:
    for kind, name in enumerate(("cat", "dog")):
        for k in range(24):
            put(tmp_path / "data" / name / f"{name}{k // 3}_jpg.rf.{k:032x}.jpg", encode(pixels(kind, k), "JPEG"))
    detail = str(run(tmp_path / "data").check("versions")["detail"])
    found = re.fullmatch(r"(\d+) of 16 pictures have versions \(NAME\.rf\.….*together by group_pattern='(.+)'", detail)
    assert found
    assert int(found[1]) >= 4
    together = run(tmp_path / "data", group_pattern=found[2])
    assert "versions" not in {check["name"] for check in together.info.checks}
    assert together.check("groups")["passed"]


@pytest.mark.parametrize("names", [("images", "masks"), ("Images", "annotations"), ("img", "gt")])
@pytest.mark.parametrize("split", ["", "train"])
def test_pictures_and_their_masks_are_not_two_classes(tmp_path: Path, run: Run, names: tuple[str, str], split: str) -> None:
    folder(tmp_path / "data" / split, dict.fromkeys(names, 6))
    with pytest.raises(DataError, match=r"the classes would be .*: these folders hold pictures and their masks"):
        run(tmp_path / "data")


def test_a_class_of_pictures_without_a_label_is_told(tmp_path: Path, run: Run) -> None:
    check = run(folder(tmp_path / "data", {"cat": 6, "dog": 6, "un-labeled": 6})).check("class names")
    assert check["detail"] == "un-labeled is a class like the others; if its pictures have no label, move them out of the source"
    assert not check["passed"]
    assert run(folder(tmp_path / "more", {"images": 6, "dog": 6, "masks": 6})).check("class names")["passed"]


def test_numbers_with_a_point_as_classes_and_numbers_that_lost_their_digits_are_told(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", ["0.0", "1.0"])
    found = run(put(data / "columns.csv", "file,patient\n0.0/0.0_000.png,1.23E+14\n1.0/1.0_000.png,1.23457E+14\n").parent)
    assert "warning: class names: 0.0, 1.0 are whole numbers with a point, as of a column with empty cells; write 0 for 0.0" in found.lines
    told = "column patient has numbers without their last digits, such as 1.23E+14: save it as text where they are names"
    assert f"warning: columns: {told}" in found.lines
    (data / "1.0").rename(data / "1.5")
    assert "with a point" not in run(put(data / "columns.csv", "file,patient\n0.0/0.0_000.png,1e5\n").parent).said
