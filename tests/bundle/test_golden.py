"""The one comparison of served with evaluated probabilities."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from components.bundle import files, golden
from components.bundle.golden import difference, load_golden, save_golden
from components.classifier.errors import IntegrityError

EXPECTED = np.array([[0.1, 0.9], [0.6, 0.4]], np.float32)


def test_the_difference_is_the_largest_distance_of_one_probability() -> None:
    assert difference(EXPECTED, EXPECTED) == 0
    assert difference(EXPECTED + np.array([[0, 0], [0.25, 0]]), EXPECTED) == pytest.approx(0.25)


@pytest.mark.parametrize("found", [EXPECTED[:1], EXPECTED[:, :1], EXPECTED.ravel(), EXPECTED[:0], EXPECTED * np.nan])
def test_what_cannot_be_compared_is_infinitely_far_away(found: np.ndarray) -> None:
    assert difference(found, EXPECTED) == float("inf")
    assert difference(found, found if found.size == 0 else EXPECTED) == float("inf")


def test_golden_pictures_come_back_as_they_were_saved_and_damage_is_named(tmp_path: Path) -> None:
    images = np.arange(12, dtype=np.uint8).reshape(2, 3, 2, 1)
    save_golden(tmp_path, images, EXPECTED)
    for found, saved in zip(load_golden(tmp_path), (images, EXPECTED), strict=True):
        np.testing.assert_array_equal(found, saved)
    (tmp_path / "golden.npz").write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match=r"golden\.npz"):
        load_golden(tmp_path)


def test_a_file_that_unpacks_to_gigabytes_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1900, 1000, 1000, 1)})
    with zipfile.ZipFile(tmp_path / files.GOLDEN, "w", zipfile.ZIP_DEFLATED) as zipped, zipped.open("images.npy", "w") as member:
        member.write(header.getvalue())
        for _ in range(1900):
            member.write(bytes(1_000_000))
    assert (tmp_path / files.GOLDEN).stat().st_size < 3_000_000
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError, match=r"unpacks to 1,900,000,\d+ bytes, 1,073,741,824 are allowed"):
            load_golden(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_as_many_golden_pictures_are_written_as_can_be_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "MAX_GOLDEN_BYTES", 1 << 18)
    images = np.arange(1000, dtype=np.uint8).repeat(1000).reshape(1000, 10, 100, 1)
    probabilities = np.linspace(0, 1, 2000, dtype=np.float32).reshape(1000, 2)
    save_golden(tmp_path, images, probabilities)
    kept, expected = load_golden(tmp_path)
    assert 150 < len(kept) == len(expected) < 300
    for picture, row in zip(kept, expected, strict=True):
        assert picture[0, 0, 0] == np.flatnonzero((probabilities == row).all(axis=1))[0] % 256
