"""Many pictures are decoded by several processes: the same bytes and words as by one, and nobody left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.classifier.decode import WorkBudget
from components.classifier.errors import DataError, StoreUnavailable
from components.ingest import pixels as decoding
from components.ingest.ingest import ingest
from components.ingest.layout import arrange, class_folders
from components.ingest.pixels import _decode_batch
from components.readers import places, processes
from components.readers.archives import ArchiveSource
from components.readers.records import Encoded
from components.settings.ingest import IngestSettings
from tests.ingest.cases import encode, files, folder, pixels, put, tar_of, zip_of
from tests.ingest.conftest import Run

SCRIPT = """
import sys, time
from components.readers import processes
processes.MIN_PICTURES, processes.available_cpus = 1, lambda: 2
from components.ingest.ingest import ingest
from multiprocessing import active_children

def log(line):
    if "progress" in line:
        print("children", *(child.pid for child in active_children()), flush=True)
        time.sleep(60)

ingest(sys.argv[1], sys.argv[2], log=log)
print("done", flush=True)
"""
"""A script without a guard, which a process that imported its main module would run again."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Two processes for any number of pictures; how many each pool had."""
    pools: list[int] = []

    class Counted(ProcessPoolExecutor):
        def __init__(self, count: int, *rest: object) -> None:
            pools.append(count)
            super().__init__(count, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(processes, "MIN_PICTURES", 1)
    monkeypatch.setattr(processes, "available_cpus", lambda: 2)
    monkeypatch.setattr(processes, "ProcessPoolExecutor", Counted)
    yield pools
    assert active_children() == []


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in grey and colour, of two sizes, some damaged, one none at all."""
    data = folder(tmp_path_factory.mktemp("data") / "pictures", {"cat": 70, "dog": 70}, channels=1)
    folder(data, {"cow": 30}, seed=500, size=(20, 20))
    put(data / "cat" / "cut.png", encode(pixels(0, 900))[:60])
    put(data / "cat" / "page.png", "<html>no picture</html>")
    put(data / "dog" / "note.txt", "not one")
    put(data / "dog" / "unnamed", encode(pixels(1, 901)))
    return data


SET_ASIDE = dict.fromkeys(("folder", "tar", "zip"), "cat/cut.png") | {"parquet": "pictures.parquet#", "webdataset": "part-1.tar"}


def shards(root: Path, source: Path) -> Path:
    """Two tars of a webdataset, of which the second is cut."""
    pictures = [(name.partition("/")[0], data) for name, data in files(source).items() if name.endswith(("0.png", "5.png"))]
    for half in (0, 1):
        members = {
            f"{half}{k:02d}.{end}": content
            for k, (label, data) in enumerate(pictures[half::2])
            for end, content in (("png", data), ("cls", label.encode()))
        }
        path = tar_of(root / "shards" / f"part-{half}.tar", members)
    path.write_bytes(path.read_bytes()[:-12_000])
    return path.parent


@pytest.mark.parametrize("kind", ["folder", "tar", "zip", "parquet", "webdataset"])
def test_the_dataset_is_that_of_one_process(kind: str, source: Path, tmp_path: Path, started: list[int]) -> None:
    address = source
    if kind == "tar":
        address = tar_of(tmp_path / "pictures.tar", files(source))
    elif kind == "zip":
        address = zip_of(tmp_path / "pictures.zip", files(source))
    elif kind == "parquet":
        rows = [{"image": data, "label": name.partition("/")[0]} for name, data in files(source).items() if not name.endswith(".txt")]
        pq.write_table(pa.Table.from_pylist(rows), address := tmp_path / "pictures.parquet")
    elif kind == "webdataset":
        address = shards(tmp_path, source)
    said: dict[int, list[str]] = {1: [], 2: []}
    several = run(address, tmp_path / "several", said[2])
    pools = [2] * (5 if kind == "webdataset" else 3)  # to list the tars, to read the labels, to decode, to hash, and to compare
    assert started == pools
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "MIN_PICTURES", 10**6)
        one = run(address, tmp_path / "one", said[1])
    assert started == pools
    assert several == one
    assert said[2] == said[1]
    assert any(line.startswith(f"warning: set aside {SET_ASIDE[kind]}") for line in said[2])


def run(address: Path, path: Path, said: list[str]) -> dict[str, bytes]:
    ingest(str(address), path, IngestSettings(image_size=(12, 12)), said.append)
    return files(path)


def test_sizes_that_differ_are_refused_in_the_same_words(source: Path, tmp_path: Path, started: list[int]) -> None:
    with pytest.raises(DataError, match=r"2 sizes \(height x width\): 16x16 \(141, such as cat/cat_000.png\), 20x20 \(30"):
        ingest(str(source), tmp_path / "out", log=lambda _: None)
    assert started == [2]


def test_what_a_store_does_not_give_stops_the_run_from_another_process_too(
    source: Path, tmp_path: Path, started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places.LocalSource, "loader", lambda _source, _key: refused)
    with pytest.raises(StoreUnavailable, match="no answer; try again later"):
        ingest(str(source), tmp_path / "out", log=lambda _: None)
    assert started == [2]


def refused() -> bytes:
    """What a source's loader does while its store is down."""
    raise StoreUnavailable("no answer; try again later")


def test_a_process_may_not_vanish_in_silence(source: Path, tmp_path: Path, started: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places.LocalSource, "loader", lambda _source, _key: killed)
    with pytest.raises(DataError, match=r"ended from outside, probably for its memory; give the step more memory, or fewer CPUs"):
        ingest(str(source), tmp_path / "out", log=lambda _: None)
    assert started == [2]
    assert not (tmp_path / "out" / "dataset.json").exists()


def killed() -> bytes:
    """What happens to a process that took too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


def test_few_pictures_start_no_process(source: Path, tmp_path: Path, started: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MIN_PICTURES", 1000)
    assert run(source, tmp_path / "out", [])
    assert started == []


@pytest.mark.parametrize("ended", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_an_ingest_that_is_ended(ended: signal.Signals, source: Path, tmp_path: Path) -> None:
    put(tmp_path / "script.py", SCRIPT)
    environment = {**os.environ, "PENSTOCK_PROGRESS_SECONDS": "1e-9", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(tmp_path / "script.py"), str(folder(tmp_path / "data", {"cat": 70, "dog": 70})), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as script:
        assert script.stdout is not None
        children = [int(pid) for pid in script.stdout.readline().split()[1:]]
        script.send_signal(ended)
        rest, errors = script.communicate(timeout=300)
    assert len(children) == 2
    assert "done" not in rest
    assert errors.count("Traceback") == (1 if ended is signal.SIGINT else 0), errors
    end = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < end, "a process outlived the ingest"
        time.sleep(0.05)


def test_memory_for_decoding_is_counted_over_all_processes() -> None:
    one, other = WorkBudget(100 * 2**20), WorkBudget(100 * 2**20)
    changed, used = threading.Condition(), [0]
    for budget in (one, other):
        budget.share(changed, used)
    order: list[str] = []

    def wait() -> None:
        with other.hold(60 * 2**20):
            order.append("other")

    with one.hold(60 * 2**20):
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.05)
        order.append("one")
    waiting.join()
    assert order == ["one", "other"]
    assert used == [0]


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_a_picture_takes_few_bytes_of_memory_until_it_is_decoded(tmp_path: Path, make: Callable[..., Path]) -> None:
    """Of 20,000 pictures in an archive, all that is known before and after decoding: names are kept once, the rest in arrays."""
    data = {f"{number % 4}/{number:06d}.png": b"" for number in range(20_000)}
    path = make(tmp_path / "many", data)
    tracemalloc.start()
    source = ArchiveSource(path, "many", tmp_path)
    listing = source.listing()
    labelled = class_folders(source, listing, arrange(listing))
    names = [record.input for record in labelled.records]
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert labelled.count == len(names) == len(data)
    assert taken < 220 * len(names)


def test_pictures_that_are_made_smaller_are_not_in_memory_together_at_their_own_size() -> None:
    data = encode(np.zeros((2000, 2000, 3), np.uint8))
    batch = [Encoded(f"{number}.png", 0, partial(bytes, data), len(data)) for number in range(12)]
    tracemalloc.start()
    decoded = _decode_batch(batch, IngestSettings(image_size=(28, 28)), all_pictures=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert decoded.outcomes == [(28, 28, 3)] * 12
    assert peak < 4 * 2000 * 2000 * 3


def test_no_more_pictures_wait_for_those_before_them_than_memory_allows(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of 8,000x8,000 take 192 MB each once they are decoded."""
    begun, most, lock = [0], [0], threading.Lock()

    def decode(*batch: Any, **settings: Any) -> Any:
        with lock:
            begun[0] += 1
            most[0] = max(most[0], begun[0])
        return of_batch(*batch, **settings)

    def append(file: Any, pictures: Any) -> None:
        with lock:
            begun[0] -= 1
        appended(file, pictures)

    of_batch, appended = decoding._decode_batch, decoding._PixelFile.append
    monkeypatch.setattr(decoding, "_decode_batch", decode)
    monkeypatch.setattr(decoding._PixelFile, "append", append)
    monkeypatch.setattr(decoding, "BATCH_FILES", 1)
    monkeypatch.setattr(decoding, "WORK", WorkBudget(4 * 3 * 16 * 16))
    assert run(folder(tmp_path / "data", ["cat", "dog"]), image_size=None).counts() == {"cat": 6, "dog": 6}
    assert most[0] <= 3
