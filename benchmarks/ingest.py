"""Seconds of an ingest, beside what others take to read the same pictures once, in the same run.

    python -m benchmarks.ingest [--images 50000] [--repeats 3]

Grey PNGs of 28x28 in ten classes, as a folder, as a webdataset of eight tars, and as Parquet. Ingest reads, checks, compares, splits
and writes them; the others only decode one epoch to batches of arrays, with a process per CPU: torchvision's ImageFolder and webdataset
in torch's DataLoader, Hugging Face datasets from Parquet. Each call is a whole process, Python's start and imports included;
`one CPU` is ingest bound to one of them. Seconds of the clock and of the CPU, and the largest memory (PSS) of all its processes.
"""

import argparse
import ctypes
import io
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from components.classifier.cpu import available_cpus

SHARDS, BATCH = 8, 256
OURS = {"folder": "ImageFolder + DataLoader", "webdataset": "webdataset + DataLoader", "parquet": "datasets + DataLoader"}
"""What ingest reads, and who reads the same beside it."""
_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER: processes whose parent has ended become ours, so that their CPU seconds are counted."""


def write_sources(root: Path, images: int) -> None:
    """Write the same pictures as a folder, as tars, and as Parquet: blocks of grey, each of some 200 bytes and no two alike."""
    random = np.random.default_rng(0)
    rows: dict[str, list[object]] = {"image": [], "label": []}
    (root / "webdataset").mkdir()
    tars = [tarfile.open(root / "webdataset" / f"part-{k:04d}.tar", "w") for k in range(SHARDS)]  # noqa: SIM115
    for k in range(10):
        (root / "folder" / str(k)).mkdir(parents=True)
    for number in range(images):
        blocks = random.integers(0, 9, (7, 7), dtype=np.uint8) * 28
        buffer = io.BytesIO()
        Image.fromarray(blocks.repeat(4, axis=0).repeat(4, axis=1)).save(buffer, "PNG")
        label, data = str(number % 10), buffer.getvalue()
        (root / "folder" / label / f"{number:07d}.png").write_bytes(data)
        rows["image"].append({"bytes": data, "path": None})
        rows["label"].append(label)
        for suffix, content in (("png", data), ("cls", label.encode())):
            member = tarfile.TarInfo(f"{number:07d}.{suffix}")
            member.size = len(content)
            tars[number % SHARDS].addfile(member, io.BytesIO(content))
    for tar in tars:
        tar.close()
    pq.write_table(pa.table(rows), root / "parquet.parquet", row_group_size=1000)


def source_of(root: Path, kind: str) -> Path:
    """Where the pictures of a kind lie."""
    return root / (f"{kind}.parquet" if kind == "parquet" else kind)


def ours(source: str, folder: str) -> int:
    """Make a dataset version; returns the number of pictures."""
    from components.ingest.ingest import ingest

    info = ingest(source, folder, log=lambda _: None)
    return sum(sum(counts.values()) for counts in info.counts.values())


def image_folder(source: str) -> int:
    """Read a folder once with torchvision."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.io import ImageReadMode, read_image

    return _count(DataLoader(ImageFolder(source, loader=partial(read_image, mode=ImageReadMode.GRAY)), BATCH, num_workers=available_cpus()))


def web_dataset(source: str) -> int:
    """Read tars once with webdataset."""
    import webdataset as wds
    from torch.utils.data import DataLoader

    shards = [str(path) for path in sorted(Path(source).glob("*.tar"))]
    pictures = wds.WebDataset(shards, shardshuffle=False).decode("l8").to_tuple("png", "cls").batched(BATCH)
    return _count(DataLoader(pictures, batch_size=None, num_workers=available_cpus()))


def hugging_face(source: str) -> int:
    """Read Parquet once with Hugging Face datasets."""
    from datasets import Dataset
    from datasets import Image as ImageFeature
    from torch.utils.data import DataLoader

    with tempfile.TemporaryDirectory() as cache:
        pictures = Dataset.from_parquet(source, cache_dir=cache).cast_column("image", ImageFeature(mode="L")).with_format("numpy")
        return _count(DataLoader(pictures, BATCH, num_workers=available_cpus(), collate_fn=_batch))


def _batch(rows: list[dict[str, np.ndarray]]) -> tuple[np.ndarray, list[object]]:
    return np.stack([row["image"] for row in rows]), [row["label"] for row in rows]


def _count(batches: Iterable[tuple[np.ndarray, object]]) -> int:
    return sum(len(pictures) for pictures, _ in batches)


PEERS = {"folder": image_folder, "webdataset": web_dataset, "parquet": hugging_face}


def measure(call: str, images: int, cpus: set[int]) -> dict[str, float]:
    """Run a call of this module in a process of its own, on these CPUs."""
    code = f"from benchmarks import ingest; assert {call} == {images}"
    before, used = time.perf_counter(), _cpu_seconds()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=sys.stderr, preexec_fn=partial(os.sched_setaffinity, 0, cpus))
    peak, ended = [0], threading.Event()
    sampler = threading.Thread(target=_sample, args=(process.pid, peak, ended))
    sampler.start()
    failed = process.wait()
    seconds = time.perf_counter() - before
    ended.set()
    sampler.join()
    with suppress(ChildProcessError):
        while True:  # the fork servers of multiprocessing
            os.waitpid(-1, 0)
    if failed:
        raise SystemExit(f"{call} failed")
    return {"seconds": seconds, "cpu": _cpu_seconds() - used, "memory_mb": peak[0] / 1024}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _sample(pid: int, peak: list[int], ended: threading.Event) -> None:
    while not ended.wait(0.3):
        peak[0] = max(peak[0], sum(map(_pss, _tree(pid))))


def _tree(pid: int) -> list[int]:
    found = [pid]
    with suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                found += _tree(int(child))
    return found


def _pss(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def main() -> None:
    """Measure in turns, so that other load on the machine falls on all alike; print a table, and all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(_SUBREAPER, 1)
    cpus = os.sched_getaffinity(0)
    figures: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_sources(root, options.images)
        for _ in range(options.repeats):
            for kind, peer in OURS.items():
                source, out = source_of(root, kind), root / "dataset"
                calls = {f"ingest, {kind}": (f"ingest.ours({str(source)!r}, {str(out)!r})", cpus)}
                calls[f"ingest, {kind}, one CPU"] = (calls[f"ingest, {kind}"][0], {min(cpus)})
                calls[peer] = (f"ingest.{PEERS[kind].__name__}({str(source)!r})", cpus)
                for what, (call, bound) in calls.items():
                    figures.setdefault(what, []).append(measure(call, options.images, bound))
                    shutil.rmtree(out, ignore_errors=True)
    versions = {package: version(package) for package in ("torchvision", "webdataset", "datasets", "pillow", "pyarrow")}
    print(
        json.dumps(
            {
                "images": options.images,
                "n": options.repeats,
                "cpus": available_cpus(),
                "load": os.getloadavg()[0],
                "versions": {"python": platform.python_version(), **versions},
                "all": figures,
            },
            indent=1,
        ),
        file=sys.stderr,
    )
    medians = {what: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for what, runs in figures.items()}
    print("| | seconds | CPU seconds | memory MB | one CPU / all CPUs | ingest / peer |\n|---|---|---|---|---|---|")
    for kind, peer in OURS.items():
        own, one, other = (medians[what] for what in (f"ingest, {kind}", f"ingest, {kind}, one CPU", peer))
        for what, row in ((f"ingest, {kind}", own), (f"ingest, {kind}, one CPU", one), (peer, other)):
            ratios = (f"{one['seconds'] / own['seconds']:.2f}", f"{own['seconds'] / other['seconds']:.2f}") if row is own else ("", "")
            print(f"| {what} | {row['seconds']:.1f} | {row['cpu']:.1f} | {row['memory_mb']:.0f} | {ratios[0]} | {ratios[1]} |")


if __name__ == "__main__":
    main()
