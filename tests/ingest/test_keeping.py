"""keep_dataset: a dataset version lies in the store by its digest, whole or not at all, and is a source of later runs."""

import json
import shutil
import threading
from pathlib import Path

import pytest
from kfp import dsl

from components.bundle.dataset import Dataset
from components.classifier.errors import DataError, IntegrityError, StoreUnavailable, UsageError
from components.ingest.component import ingest_dataset
from components.ingest.ingest import ingest
from components.registry import kept_dataset
from components.registry.manifest import hash_file
from components.settings.ingest import IngestSettings
from components.storage import open_store
from components.storage.local import LocalStore
from tests.ingest.cases import encode, files, folder, pixels, put, tar_of
from tests.storage.fixtures import ministack_server, new_address, use
from tests.storage.servers import Server

__all__ = ["ministack_server"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = folder(tmp_path_factory.mktemp("source") / "data", ["cat", "dog"])
    rows = "".join(f"cat/cat_{k:03d}.png,{'front' if k % 2 else 'back'}\n" for k in range(6))
    put(data / "columns.csv", f"file,camera\n{rows}")
    return data


def keep(source: Path, path: Path, store: str) -> tuple[str, list[str]]:
    """Make a dataset and keep it; returns its address and what was said."""
    said: list[str] = []
    ingest(str(source), path, IngestSettings(image_size=(12, 12), keep_dataset=True), said.append, store)
    (address,) = [line.removeprefix("note: the dataset is kept as ") for line in said if "is kept as" in line]
    return address, said


def again(address: str, path: Path, **options: object) -> dict[str, bytes]:
    ingest(address, path, IngestSettings(**options), lambda _: None)  # type: ignore[arg-type]
    return files(path)


@pytest.fixture
def kept(source: Path, tmp_path: Path) -> Path:
    """A dataset that is kept in a directory, whose files are in tmp_path/first."""
    return Path(keep(source, tmp_path / "first", str(tmp_path / "store"))[0])


def test_a_later_run_is_given_the_same_bytes(kept: Path, tmp_path: Path) -> None:
    first = files(tmp_path / "first")
    assert kept == tmp_path / "store" / "datasets" / json.loads(first["dataset.json"])["digest"]
    assert again(str(kept), tmp_path / "second") == first
    assert again(f"file://{kept}/", tmp_path / "third") == first
    lines: list[str] = []
    ingest(str(kept), tmp_path / "fourth", log=lines.append)
    assert f"a kept dataset version, taken as it is; it was made of {Dataset.load(tmp_path / 'first').info.source}" in lines[0]
    assert any(line.startswith("train: 8 pictures") for line in lines)


def test_what_is_there_is_left_as_it_is(kept: Path, source: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in kept.rglob("*") if path.is_file()}
    same, _ = keep(tar_of(tmp_path / "data.tar", files(source)), tmp_path / "other", str(tmp_path / "store"))
    assert same == str(kept)
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*") if path.is_file()} == before


def test_a_keeping_that_broke_off_is_not_a_dataset_until_it_is_completed(kept: Path, source: Path, tmp_path: Path) -> None:
    for name in ("manifest.json", "test/images.npy"):
        (kept / name).unlink()
    with pytest.raises(DataError, match=r"no complete dataset version under .*it has no manifest\.json"):
        again(str(kept), tmp_path / "second")
    assert not (tmp_path / "second" / "dataset.json").exists()
    keep(tar_of(tmp_path / "data.tar", files(source)), tmp_path / "other", str(tmp_path / "store"))
    assert again(str(kept), tmp_path / "second") == files(tmp_path / "first")  # what was there first stayed


def test_the_manifest_comes_last(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(store: LocalStore, path: Path, key: str, progress: object = None) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(LocalStore, "upload", fails)
    with pytest.raises(StoreUnavailable):
        keep(source, tmp_path / "first", str(tmp_path / "store"))
    assert not list((tmp_path / "store").rglob("manifest.json"))
    assert Dataset.load(tmp_path / "first").info.classes == ["cat", "dog"]


@pytest.mark.parametrize("name", ["train/images.npy", "test/labels.npy", "validation/columns.parquet", "dataset.json", "report.html"])
def test_a_changed_file_is_named(name: str, kept: Path, tmp_path: Path) -> None:
    data = bytearray((kept / name).read_bytes())
    data[-3] ^= 1
    (kept / name).write_bytes(data)
    with pytest.raises(IntegrityError, match=f"{name} of dataset .* was changed or is missing; remove the folder"):
        again(str(kept), tmp_path / "second")
    with pytest.raises(DataError, match="no complete dataset"):
        Dataset.load(tmp_path / "second")


def test_files_that_make_another_dataset_are_refused_although_the_manifest_fits(kept: Path, tmp_path: Path) -> None:
    data = bytearray((kept / "train" / "images.npy").read_bytes())
    data[-3] ^= 1
    (kept / "train" / "images.npy").write_bytes(data)
    manifest = json.loads((kept / "manifest.json").read_text("utf-8"))
    manifest["files"]["train/images.npy"] = hash_file(kept / "train" / "images.npy").model_dump()
    (kept / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(IntegrityError, match="its files are those of another one"):
        again(str(kept), tmp_path / "second")
    assert not (tmp_path / "second" / "dataset.json").exists()


def test_a_manifest_that_names_a_file_elsewhere_is_refused(kept: Path, tmp_path: Path) -> None:
    manifest = json.loads((kept / "manifest.json").read_text("utf-8"))
    manifest["files"]["../outside"] = manifest["files"].pop("report.html")
    (kept / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    shutil.copy(tmp_path / "first" / "report.html", kept.parent / "outside")
    with pytest.raises(DataError, match="not of this release's form"):
        again(str(kept), tmp_path / "second")
    assert not (tmp_path / "outside").exists()


def test_settings_that_would_change_it_are_refused_by_name(kept: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a dataset version, which is taken as it is; remove image_size, split_seed"):
        again(str(kept), tmp_path / "second", image_size=(8, 8), split_seed=3)


def test_without_a_store_nothing_is_begun(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="keep_dataset needs a store"):
        keep(source, tmp_path / "first", "")
    assert not (tmp_path / "first").exists()


def test_two_runs_that_keep_the_same_dataset_at_once_agree(source: Path, tmp_path: Path) -> None:
    archive, store = tar_of(tmp_path / "data.tar", files(source)), f"memory://{tmp_path.name}"
    for k, address in enumerate([source, archive]):
        ingest(str(address), tmp_path / str(k), IngestSettings(image_size=(12, 12)), lambda _: None)
    info = Dataset.load(tmp_path / "0").info
    begin = threading.Barrier(2)

    def work(k: int) -> None:
        begin.wait()
        kept_dataset.keep(tmp_path / str(k), info, store)

    writers = [threading.Thread(target=work, args=(k,)) for k in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    address = f"{open_store(store).url}/datasets/{info.digest}"
    assert again(address, tmp_path / "again")["train/images.npy"] == files(tmp_path / "0")["train/images.npy"]


def test_the_step_keeps_it_where_the_run_keeps_its_models(source: Path, tmp_path: Path) -> None:
    artifact, report = dsl.Dataset(uri=str(tmp_path / "artifact")), dsl.HTML(uri=str(tmp_path / "report"))
    wanted = {"keep_dataset": True, "image_size": "12"}
    digest = ingest_dataset.python_func(dataset=artifact, report=report, source=str(source), ingest=wanted, store=str(tmp_path / "store"))
    assert Dataset.load(tmp_path / "store" / "datasets" / digest).info.digest == digest


@pytest.mark.integration
def test_on_s3(source: Path, tmp_path: Path, ministack_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    use(ministack_server, monkeypatch)
    store = new_address()
    address, _ = keep(source, tmp_path / "first", store)
    assert address.startswith(f"{store}/datasets/")
    assert again(address, tmp_path / "second") == files(tmp_path / "first")
    open_store(address).replace("test/labels.npy", encode(pixels(0)))
    with pytest.raises(IntegrityError, match=r"test/labels\.npy of dataset s3://"):
        again(address, tmp_path / "third")
    open_store(address).delete("manifest.json")
    with pytest.raises(DataError, match="no complete dataset version under s3://"):
        again(address, tmp_path / "fourth")
