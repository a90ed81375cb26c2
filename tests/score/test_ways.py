"""One picture is scored alike whatever it lies in; arrays of pixels are scored, and trained on, like the pictures that they came from."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.storage.memory import MemoryStore
from tests import tiny
from tests.ingest.cases import encode, idx, pixels, put
from tests.ingest.conftest import Run, run
from tests.readers.test_ways import REFUSED, WAYS, bundle, pictures_of_every_kind
from tests.score.conftest import SIZE, Done, Model, Score, publish

__all__ = ["bundle", "run"]

CONTENT = pictures_of_every_kind() | {f"a/{number:02d}.{ending}": data for number, (ending, data, _) in enumerate(REFUSED.values())}
NAMES = [*CONTENT]


@pytest.fixture(scope="module")
def twelve(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return publish(bundle, str(tmp_path_factory.mktemp("twelve") / "store"))


def in_folder(root: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        put(root / name, data)
    return root


def in_store(root: Path, content: dict[str, bytes]) -> str:
    store = MemoryStore.named("score-ways")
    for name, data in content.items():
        store.replace(f"data/{name}", data)
    return "memory://score-ways/data"


SCORED: dict[str, Callable[[Path, dict[str, bytes]], Path | str]] = {
    **{way: make for way, make in WAYS.items() if way not in {"csv", "jsonl", "saved dataset"}},  # which scoring does not read
    "store": in_store,
}


def outcomes(done: Done, name_of: Callable[[str, int], str]) -> dict[str, Any]:
    """Each picture's probabilities, or why it was not scored."""
    return {name_of(row["input"], row["index"]): row["error"] or pytest.approx(row["probabilities"], abs=1e-6) for row in done.rows}


@pytest.mark.parametrize("way", SCORED)
def test_every_container_is_scored_as_the_folder_is(way: str, twelve: Model, score: Score, tmp_path: Path) -> None:
    def name_of(shown: str, index: int) -> str:
        if ".parquet" in shown or ".arrow" in shown:
            return NAMES[index]
        member = shown.removeprefix("x.zip/").removeprefix("x.tar/").removeprefix("x.tar.xz/")
        return NAMES[int(member.removeprefix("w.tar/").partition(".")[0])] if way == "webdataset" else member

    wanted = outcomes(score(in_folder(tmp_path / "folder", CONTENT), using=twelve, probabilities=True), lambda name, _: name)
    assert wanted.keys() == CONTENT.keys()
    found = score(SCORED[way](tmp_path / "way", CONTENT), using=twelve, probabilities=True)
    plain = {name: value if isinstance(value, str) else value.expected for name, value in outcomes(found, name_of).items()}
    assert plain == wanted


@pytest.mark.parametrize("kind", ["12-bit grey png", "turned with a profile", "palette", "pages"])
def test_one_picture_by_itself_is_scored_as_in_its_folder(kind: str, twelve: Model, score: Score, tmp_path: Path) -> None:
    from tests.readers.test_ways import KINDS

    ending, make = KINDS[kind]
    file = put(tmp_path / "one" / f"x.{ending}", make(5))
    alone, beside = (score(source, using=twelve, probabilities=True).rows[0] for source in (file, file.parent))
    assert alone["input"] == beside["input"] == file.name
    assert alone["probabilities"] == pytest.approx(beside["probabilities"], abs=1e-6)


GREY = np.stack([pixels(k // 6, k, (SIZE, SIZE), channels=1) for k in range(12)])
MARKS = np.arange(12, dtype=np.uint8) // 6


def labels_beside(root: Path, images: Path) -> Path:
    np.save(root / "labels.npy", MARKS)
    return images


def saved(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


def archive_of_arrays(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, images=GREY, labels=MARKS)
    return path


def table_of_pixels(path: Path) -> Path:
    lines = [",".join(["label", *(f"pixel{k}" for k in range(SIZE * SIZE))])]
    lines += [",".join(map(str, [mark, *picture.ravel().tolist()])) for mark, picture in zip(MARKS, GREY, strict=True)]
    return put(path, "\n".join(lines) + "\n")


ARRAYS: dict[str, Callable[[Path], Path]] = {
    "npy": lambda root: labels_beside(root, saved(root / "images.npy", GREY)),
    "npy with channels": lambda root: labels_beside(root, saved(root / "images.npy", GREY[..., None])),
    "whole numbers": lambda root: labels_beside(root, saved(root / "images.npy", GREY.astype(">i4"))),
    "columns first": lambda root: labels_beside(root, saved(root / "images.npy", np.asfortranarray(GREY))),
    "npz": lambda root: archive_of_arrays(root / "all.npz"),
    "idx": lambda root: put(root / "labels-idx1-ubyte", idx(MARKS)) and put(root / "images-idx3-ubyte", idx(GREY)),
    "packed idx": lambda root: (
        put(root / "labels-idx1-ubyte.gz", gzip.compress(idx(MARKS))) and put(root / "images-idx3-ubyte.gz", gzip.compress(idx(GREY)))
    ),
    "table of pixels": lambda root: table_of_pixels(root / "rows.csv"),
}


@pytest.mark.parametrize("way", ARRAYS)
def test_arrays_of_pixels_are_trained_on_and_scored_like_their_pictures(way: str, run: Run, score: Score, tmp_path: Path) -> None:
    content = {f"{mark}/{k:02d}.png": encode(picture) for k, (mark, picture) in enumerate(zip(MARKS, GREY, strict=True))}
    pictures, array = in_folder(tmp_path / "pictures", content), ARRAYS[way](tmp_path / "arrays")
    trained = run(array.parent)
    assert trained.info.digest == run(pictures).info.digest
    assert trained.info.shape == (SIZE, SIZE, 1)
    scored = {row["index"]: row["probabilities"] for row in score(array, probabilities=True).rows}
    for row in score(pictures, probabilities=True).rows:
        assert scored[int(row["input"][2:4])] == pytest.approx(row["probabilities"], abs=1e-6)
    assert len(scored) == len(GREY)
    assert len(next(iter(scored.values()))) == len(tiny.CLASSES)
