"""The step as a whole: named sets, options, columns, what is written and what is said, and the component that KFP sees."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from kfp import dsl

from components.bundle.dataset import SPLITS, Dataset, digest
from components.classifier import progress
from components.classifier.errors import DataError, UsageError
from components.ingest import ingest as ingest_module
from components.ingest import pixels as ingest_pixels
from components.ingest import published
from components.ingest.component import ingest_dataset
from components.ingest.ingest import ingest
from components.settings.ingest import IngestSettings, parse_channels, parse_image_size
from tests.ingest.cases import encode, files, folder, idx_set, pixels, put, tar_of
from tests.ingest.conftest import Run


def test_digits_need_nothing(run: Run) -> None:
    found = run("digits")
    assert found.info.classes == [str(k) for k in range(10)]
    assert found.info.shape == (8, 8, 1)
    assert (found.total("train"), found.total("validation"), found.total("test")) == (1259, 179, 359)
    assert found.dataset.split("train").images.max() == 255
    assert all(check["passed"] for check in found.info.checks)
    assert run("digits").info.digest == found.info.digest
    assert run("digits", split_seed=1).info.digest != found.info.digest
    assert run("digits", image_size=(16, 12), channels=3).info.shape == (16, 12, 3)


def test_the_written_digest_is_the_digest_of_what_was_written(run: Run) -> None:
    found = run("digits")
    parts = {name: (found.dataset.split(name).images, found.dataset.split(name).labels) for name in SPLITS}
    assert digest(found.info.classes, found.info.shape, parts) == found.info.digest


def test_the_summary_names_classes_counts_and_digest(tmp_path: Path, run: Run) -> None:
    found = run(folder(tmp_path / "data", {"cat": 20, "dog": 10}))
    assert "30 pictures of 16x16x3 in 2 classes: cat 20, dog 10" in found.said
    assert "test: 6 pictures, 2 to 4 per class" in found.lines
    assert f"0 files set aside; dataset digest {found.info.digest[:12]}" in found.lines


def test_columns_give_slices(tmp_path: Path, run: Run) -> None:
    data = folder(tmp_path / "data", ["cat", "dog"])
    rows = [f"cat/cat_{k:03d}.png,{'front' if k % 2 else 'back'},{k}" for k in range(6)] + ["dog/gone.png,front,1"]
    put(data / "columns.csv", "\ufefffile,camera,lens\r\n" + "\r\n".join(rows) + "\r\n\r\n")
    found = run(data)
    tables = {name: pq.read_table(found.dataset.split(name).columns_path).to_pylist() for name in SPLITS}
    everything = {row["file"]: row for table in tables.values() for row in table}
    assert everything["cat/cat_001.png"] == {"file": "cat/cat_001.png", "camera": "front", "lens": "1"}
    assert everything["dog/dog_000.png"]["camera"] is None
    assert "note: columns.csv names 1 files that are not usable pictures here: dog/gone.png" in found.lines
    assert "note: columns.csv has no line for 6 of 12 pictures" in found.lines


@pytest.mark.parametrize("text", ["", "a,b\n", "file\n", "file,x,x\n", "file,x\ncat/cat_000.png,1,2\n"])
def test_columns_of_another_form_are_refused(tmp_path: Path, run: Run, text: str) -> None:
    data = folder(tmp_path / "data", ["cat", "dog"])
    put(data / "columns.csv", text)
    with pytest.raises(DataError, match=r"columns\.csv"):
        run(data)


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": (0, 5)},
        {"image_size": (5000, 5)},
        {"channels": 2},
        {"validation_fraction": 0.0},
        {"test_fraction": 1.0},
        {"test_fraction": float("nan")},
        {"validation_fraction": 0.5, "test_fraction": 0.5},
        {"on_unreadable": "ignore"},
        {"max_duplicates": -1},
    ],
)
def test_options_out_of_range_are_wrong_usage(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        IngestSettings(**options)  # type: ignore[arg-type]


def test_sizes_and_channels_are_read_from_text() -> None:
    assert [parse_image_size(text) for text in ("", "28", "28x32", " 28 X 32 ")] == [None, (28, 28), (28, 32), (28, 32)]
    assert [parse_channels(text) for text in ("", "1", "3")] == [None, 1, 3]
    for wrong in ("big", "28x", "-3", "2.5", "1x2x3"):
        with pytest.raises(UsageError, match="is not a size"):
            parse_image_size(wrong)
    with pytest.raises(UsageError, match="channels='2'"):
        parse_channels("2")


@pytest.mark.parametrize(
    ("source", "message"),
    [("", "source '' does not exist; give digits"), ("/no/where", "source '/no/where'"), ("fashion-mnist", "did you mean 'fashion_mnist'")],
)
def test_a_wrong_source_is_wrong_usage(run: Run, source: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(source)


def test_a_broken_run_leaves_no_dataset_and_no_scratch(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", ["cat", "dog"])
    out = tmp_path / "out"
    ingest(str(data), out)
    put(data / "cat" / "odd.png", encode(pixels(0, size=(9, 9))))
    with pytest.raises(DataError, match="2 sizes"):
        ingest(str(data), out)
    assert not (out / "dataset.json").exists()
    assert not (out / ingest_module.SCRATCH).exists()
    with pytest.raises(DataError, match="no complete dataset"):
        Dataset.load(out)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    put(tmp_path / "file")
    with pytest.raises(DataError, match="cannot be written to"):
        ingest("digits", tmp_path / "file" / "below")


def test_what_does_not_fit_on_the_disk_is_refused_at_once(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.ingest.pixels.MAX_DATASET_BYTES", 1000)
    with pytest.raises(DataError, match=r"12 pictures of 16x16x3 need .* give a smaller image_size"):
        run(folder(tmp_path / "data", ["cat", "dog"]))


def test_long_reads_tell_how_far_they_are(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(progress.SECONDS_VARIABLE, "1e-9")
    monkeypatch.setattr(ingest_pixels, "BATCH_FILES", 5)
    said = run(folder(tmp_path / "data", ["cat", "dog"])).said
    assert "progress: 6 of 12 files" in said  # the first batch is one picture, which tells how large they are


def test_a_progress_line_says_the_rate_and_the_time_left() -> None:
    assert progress.pace_of(1200, 3800, 4.0) == ", 300/s, 13 s left"
    assert progress.pace_of(1_000, 1_000_000, 10.0) == ", 100/s, 2.8 h left"
    assert progress.pace_of(3, 600, 6.0) == ", 0.5/s, 20 min left"
    assert progress.pace_of(0, 10, 6.0) == ""


def test_the_rate_counts_only_what_this_run_has_done(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 40.0])
    monkeypatch.setattr("components.classifier.progress.time.monotonic", lambda: next(clock))
    lines: list[str] = []
    progress.Progress(1000, "steps", lines.append, done=500).step(100)
    assert lines == ["progress: 600 of 1,000 steps, 2.5/s, 3 min left"]


def test_published_sets_name_the_remedy_without_a_network(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path))
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/mnist/"])  # nothing listens there
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar.tar.gz")
    for name in ("mnist", "cifar10"):
        with pytest.raises(DataError, match=rf"{name} cannot be downloaded, no server answers \(127\.0\.0\.1:9.*source=/path/to/{name}"):
            run(name)


def test_published_sets_are_read_from_the_cache(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path))
    idx_set(tmp_path / "FashionMNIST" / "raw")
    found = run("fashion_mnist")
    assert found.info.classes[0] == "T-shirt/top"
    assert (found.total("test"), found.info.shape) == (20, (12, 12, 1))
    assert "fashion_mnist/test#0" in found.files("test")


def test_a_broken_download_in_the_cache_is_named(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path))
    root = idx_set(tmp_path / "KMNIST" / "raw")
    put(root / "train-images-idx3-ubyte", (root / "train-images-idx3-ubyte").read_bytes()[:-9])
    with pytest.raises(DataError, match=rf"the files of kmnist in {tmp_path} are damaged .*delete them"):
        run("kmnist")


def test_the_cache_is_where_it_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc/1/nowhere")
    assert published.cache_folder().is_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert published.cache_folder() == tmp_path / "penstock" / "datasets"


def test_the_component_returns_the_digest_and_fills_the_metadata(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", ["cat", "dog"])
    artifact = dsl.Dataset(uri=str(tmp_path / "artifact"))
    report = dsl.HTML(uri=str(tmp_path / "report"))
    returned = ingest_dataset.python_func(dataset=artifact, report=report, source=str(data), ingest={"image_size": "8x10", "channels": 1.0})
    info = Dataset.load(artifact.path).info
    assert returned == info.digest
    assert info.shape == (8, 10, 1)
    assert artifact.metadata["shape"] == "8x10x1"
    assert artifact.metadata["train"] == 8
    assert artifact.metadata["digest"] == returned
    assert info.digest[:12] in Path(report.path).read_text("utf-8")


def test_labels_follow_their_pictures(tmp_path: Path, run: Run) -> None:
    found = run(folder(tmp_path / "data", {"cat": 40, "dog": 40}))
    for file, (name, image) in found.files().items():
        kind, seed = ("cat", "dog").index(name), int(file[-7:-4])
        np.testing.assert_array_equal(image, pixels(kind, seed))


def test_a_class_that_a_given_validation_split_lacks_is_named(tmp_path: Path, run: Run) -> None:
    folder(tmp_path / "data" / "train", ["cat", "cow", "dog"])
    folder(tmp_path / "data" / "val", ["cat", "dog"], seed=300)
    assert "warning: the validation split has no picture of cow" in run(tmp_path / "data").lines


def test_the_digest_of_known_pictures_is_what_it_always_was(tmp_path: Path, run: Run) -> None:
    """A release that gives another one would make every dataset a new one, and no champion comparable."""
    source = folder(tmp_path / "data", {"cat": 20, "dog": 20, "owl": 7}, channels=1)
    assert (
        run(source).info.digest
        == run(tar_of(tmp_path / "x.tar", files(source))).info.digest
        == "9b60f3e8ff26cf1e1f4c3ee1c222df76729195981047f011f884e31a543034b8"
    )
