"""Pictures of two splits that look alike are found without comparing all, shown, and refused above a limit."""

import io
import re
from pathlib import Path

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from components.bundle.dataset import REPORT
from components.classifier.errors import DataError, UsageError
from components.ingest import likeness
from components.ingest.likeness import MAX_BITS, MAX_CANDIDATES, Pictures, find, perceptual_hashes, thumbnails
from components.settings.ingest import IngestSettings
from tests.ingest.cases import encode, pixels, put
from tests.ingest.conftest import Run

PHOTOS = load_sample_images().images


def crops(count: int, seed: int = 0, side: int = 64) -> list[Image.Image]:
    """Parts of two photographs, none of them nearly flat."""
    random, found = np.random.default_rng(seed), list[Image.Image]()
    while len(found) < count:
        x, y, size = int(random.integers(0, 340)), int(random.integers(0, 127)), int(random.integers(60, 300))
        picture = Image.fromarray(PHOTOS[len(found) % 2]).crop((x, y, x + size, y + size)).resize((side, side))
        if np.asarray(picture.convert("L")).std() > 20:
            found.append(picture)
    return found


def again(picture: Image.Image, size: int = 48, quality: int = 60) -> bytes:
    return encode(picture.resize((size, size)), "JPEG", quality=quality)


def scenes(root: Path, count: int = 24) -> Path:
    """Every picture a second time as a smaller JPEG."""
    for k, picture in enumerate(crops(count)):
        name = root / ("flower" if k % 2 else "temple") / f"{k}"
        put(name.with_suffix(".png"), encode(picture))
        put(name.with_suffix(".jpg"), again(picture))
    return root


def test_pictures_that_look_alike_are_told_and_shown(tmp_path: Path, run: Run) -> None:
    found = run(scenes(tmp_path / "data"), image_size=(48, 48))
    check = found.check("near-duplicates")
    assert not check["passed"]
    ends = {name: {file.rpartition(".")[0] for file in found.files(name)} for name in ("train", "validation", "test")}
    crossing = len(ends["validation"] & ends["train"]) + len(ends["test"] & (ends["train"] | ends["validation"]))
    number, asked = found.total("validation") + found.total("test"), str(check["detail"])
    assert crossing >= 5
    assert asked.startswith(f"{crossing} of {number} validation and test pictures look like one of another split")
    page = (found.dataset.path / REPORT).read_text("utf-8")
    assert page.count('<div class="pair">') == crossing
    assert page.count('<img src="data:image/png;base64,') == 2 * crossing
    assert found.info.digest[:12] in page


def test_they_are_refused_above_a_limit_when_wanted(tmp_path: Path, run: Run) -> None:
    data = scenes(tmp_path / "data")
    with pytest.raises(DataError, match=r"validation and test pictures look like one of another split, more than max_near_duplicates=0: "):
        run(data, image_size=(48, 48), max_near_duplicates=0)
    assert run(data, image_size=(48, 48), max_near_duplicates=48).info.counts
    together = run(data, image_size=(48, 48), max_near_duplicates=0, group_pattern=r"/(\d+)\.")
    assert together.check("near-duplicates")["passed"]


def test_a_look_alike_under_another_label_and_one_of_the_extra_source_are_told(tmp_path: Path, run: Run) -> None:
    data = tmp_path / "data"
    for k, picture in enumerate(crops(24)):
        put(data / ("train" if k < 18 else "test") / ("dog" if k % 2 else "cat") / f"{k}.png", encode(picture))
    put(data / "test" / "dog" / "x.jpg", again(crops(1)[0], 64))
    detail = str(run(data).check("near-duplicates")["detail"])
    assert detail.startswith("1 of 9 validation and test pictures")
    assert "test test/dog/x.jpg like train train/cat/0.png, under the labels dog and cat" in detail
    (data / "train" / "cat" / "0.png").unlink()
    assert run(data).check("near-duplicates")["passed"]
    put(tmp_path / "extra" / "cat" / "again.png", encode(crops(1)[0]))
    put(tmp_path / "extra" / "dog" / "other.png", encode(pixels(3, 77, size=(64, 64))))
    detail = str(run(data, extra_training_source=str(tmp_path / "extra")).check("near-duplicates")["detail"])
    assert "like train cat/again.png" in detail


def one_thumbnail(picture: np.ndarray) -> np.ndarray:
    """As Pillow makes it of a picture alone."""
    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).convert("L")
    return np.asarray(image.resize((32, 32), Image.Resampling.LANCZOS))


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (32, 20), (9, 32), (1, 1), (33, 33), (64, 64), (70, 33), (5, 200)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_thumbnails_of_many_pictures_at_once_are_those_of_each(size: tuple[int, int], channels: int) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (7, *size, channels), dtype=np.uint8)
    assert thumbnails(pictures).tolist() == [one_thumbnail(picture).tolist() for picture in pictures]


def test_the_hash_is_that_of_imagehash() -> None:
    pictures = [np.asarray(picture) for picture in crops(40)] + [pixels(k, k, (9, 13), channels=1)[..., None] for k in range(20)]
    ours = perceptual_hashes(np.stack([one_thumbnail(picture) for picture in pictures]))
    theirs = [imagehash.phash(Image.fromarray(p[..., 0] if p.shape[2] == 1 else p)) for p in pictures]
    assert ours.tolist() == [int(str(value), 16) for value in theirs]


def test_what_is_alike_is_found_and_what_is_not_is_left_alone(tmp_path: Path) -> None:
    """Compressed, smaller, darker: nine of ten are found; of other parts of the same photographs none is."""
    plain = crops(60)
    changed = [Image.open(io.BytesIO(again(p, 48, 40))).resize((64, 64)) for p in plain]
    changed += [p.point(lambda value: int(value * 0.85 + 8)) for p in plain]
    others = crops(60, seed=9)
    images = np.stack([np.asarray(p) for p in [*plain, *changed, *others]])
    splits = np.repeat([0, 2, 2, 1], 60).astype(np.int8)
    with_names = Pictures(images, splits, [str(k) for k in range(240)], np.zeros(240, np.int64), ["a"])
    matches = find(with_names, tmp_path / "thumbnails")
    right = [match for match in matches if match.k % 60 == match.other and 60 <= match.k < 180]
    assert len(right) == len(matches) >= 108


TURNS = list(Image.Transpose)


def test_mirrored_and_turned_pictures_are_found_and_told_as_such(tmp_path: Path, run: Run) -> None:
    """As sets have them that were augmented before they were split."""
    data, plain = tmp_path / "data", crops(35)
    for k, picture in enumerate(plain):
        put(data / "train" / ("dog" if k % 2 else "cat") / f"{k}.png", encode(picture))
    for k, turn in enumerate(TURNS):
        put(data / "test" / ("dog" if k % 2 else "cat") / f"{k}.jpg", again(plain[k].transpose(turn), 64))
        put(data / "test" / ("dog" if k % 2 else "cat") / f"new{k}.png", encode(crops(7, seed=9)[k]))
    found = run(data, validation_fraction=0.1)
    detail = str(found.check("near-duplicates")["detail"])
    assert re.match(r"7 of \d+ validation and test pictures look like one of another split \(7 of them mirrored or turned", detail)
    assert re.search(r"test test/cat/\d\.jpg, mirrored or turned, like (train|validation) train/cat/\d\.png", detail)
    with pytest.raises(DataError, match=r"mirrored or turned by 90, 180 or 270 degrees\), more than max_near_duplicates=6"):
        run(data, validation_fraction=0.1, max_near_duplicates=6)


def test_the_hashes_of_all_forms_are_those_of_the_turned_pictures() -> None:
    small = np.stack([one_thumbnail(np.asarray(picture)) for picture in crops(20)])

    found = likeness._hash_forms(small)
    turned = [np.stack([np.asarray(Image.fromarray(rows).transpose(turn)) for rows in small]) for turn in TURNS]
    assert {tuple(hashes.tolist()) for hashes in found} == {tuple(perceptual_hashes(rows).tolist()) for rows in turned}


HASHES = st.lists(st.integers(0, 2**64 - 1), max_size=60)


@given(st.integers(0, 2**64 - 1), st.lists(st.sets(st.integers(0, 63), max_size=9), min_size=1, max_size=80), HASHES)
@settings(max_examples=100, deadline=None)
def test_bands_find_the_same_as_comparing_all(base: int, flips: list[set[int]], others: list[int]) -> None:
    near = [base ^ sum(1 << bit for bit in bits) for bits in flips]
    asked, known = np.array([base, *others], np.uint64), np.array([*near, *others], np.uint64)
    at, to = likeness._Known(known).nearest(asked)
    pairs = list(zip(at.tolist(), to.tolist(), strict=True))
    bits = np.bitwise_count(asked[:, None] ^ known[None, :])
    assert len(set(pairs)) == len(pairs)
    for k, row in enumerate(bits):
        wanted = sorted(row[row <= MAX_BITS].tolist())[:MAX_CANDIDATES]
        assert sorted(int(row[b]) for a, b in pairs if a == k) == wanted


@pytest.mark.parametrize("alike", [False, True])
def test_100_000_hashes_are_not_all_compared(alike: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 against 80,000: of hashes without order few thousandths, of hashes that are all alike their distinct ones."""
    compared = 0
    count = np.bitwise_count

    def counting(hashes: np.ndarray) -> np.ndarray:
        nonlocal compared
        compared += hashes.size
        return count(hashes)

    random = np.random.default_rng(0)
    hashes = random.integers(0, 64 if alike else 2**64 - 1, 100_000, dtype=np.uint64)
    monkeypatch.setattr(np, "bitwise_count", counting)
    found = len(likeness._Known(hashes[20_000:]).nearest(hashes[:20_000])[0])
    assert compared < 20_000 * 80_000 / 50
    assert (found == 20_000 * MAX_CANDIDATES) is alike


def test_a_limit_that_kubeflow_made_a_fraction_is_read_and_a_negative_one_is_refused() -> None:
    assert IngestSettings.read({"max_near_duplicates": 3.0}).max_near_duplicates == 3
    assert IngestSettings.read({}).max_near_duplicates is None
    with pytest.raises(UsageError, match="max_near_duplicates must be"):
        IngestSettings.read({"max_near_duplicates": -1})
