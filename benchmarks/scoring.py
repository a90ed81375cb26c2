"""Images a second of batch scoring, beside a bare onnxruntime loop over the same pictures in the same run.

    python -m benchmarks.scoring [--images 100000] [--repeats 5] [--price 0.04]

The model is `small_cnn` for 28x28 grey pictures (untrained: the time is the same). `bare` reads arrays from memory and does
nothing with the answers; `bare png` decodes each file with the product's own `from_bytes`, one after another, and then runs the model.
Others' own ways (`scoring_peers.py`) are whole processes, Python's start included: torch eager, torchvision, webdataset, Ray Data.
`npy` and `png` are whole runs: Python's start, plan, model, scoring, both Parquet files, merge, with as many processes as the product
chooses; `png on ray` has the engine Ray. Seconds of the clock, and of the CPU (children included), which other load on the machine
disturbs less. `--price` is what one CPU costs per hour; then a million pictures have a price: CPUs x hours x price.
"""

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image

from benchmarks.scoring_peers import PEERS
from components.bundle.model import Classifier
from components.classifier.cpu import available_cpus
from components.classifier.images import ImageSpec, from_bytes
from components.classifier.network import ServingGraph, build
from components.registry import Record, Registry
from components.registry.publication import publish_directory
from components.storage import open_store
from components.train.export import export_onnx
from tests import tiny

SPEC = ImageSpec(28, 28, 1)
TARS = 8
RUNS = (("npy", "pictures.npy", "local"), ("png", "png", "local"), ("png on ray", "png", "ray"))
"""Runs of the product: their names, what they read, and the engine."""
SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER: processes whose parent has ended become ours, so that their CPU seconds are counted."""
ORPHAN_SECONDS = 5


def write_store(folder: Path) -> tuple[str, str]:
    """Publish small_cnn in a store; returns (store, version)."""
    bundle = tiny.write_bundle(folder / "bundle", size=28, golden=False)
    torch.manual_seed(0)
    network = build("small_cnn", SPEC, 10).eval()
    export_onnx(ServingGraph(network, [0.5], [0.25], 1.0).eval(), SPEC, bundle / "model.onnx", {})
    store = str(folder / "store")
    registry = Registry(open_store(store), "digits")
    version = publish_directory(registry, bundle).version
    registry.ledger.append(Record(action="deployed", version=version, champion=version, strategy="force"))
    return store, version


def score(store: str, version: str, source: Path, folder: Path, engine: str = "local") -> None:
    """Run the steps in a process of its own, which imports what a step imports: scoring processes import their parent's main module."""
    code = "import sys; from benchmarks.scoring_run import run; run(*sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, store, version, str(source), str(folder), engine], check=True, stdout=sys.stderr)


def peer(name: str, images: int, folder: Path) -> None:
    """Score the PNGs as others do, in a process of its own."""
    places = [str(folder / place) for place in ("png", "tars", "bundle")]
    subprocess.run([sys.executable, "-m", "benchmarks.scoring_peers", name, str(images), *places], check=True, stdout=sys.stderr)


def write_pictures(folder: Path, images: int) -> np.ndarray:
    """Write the same pictures as an array, as PNGs in folders, and as tars in webdataset's form; returns them."""
    pictures = np.random.default_rng(0).integers(0, 256, (images, 28, 28, 1), dtype=np.uint8)
    np.save(folder / "pictures.npy", pictures)
    for number, picture in enumerate(pictures):
        path = folder / "png" / f"{number // 1000:03d}" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture[:, :, 0]).save(path)
    files = sorted((folder / "png").rglob("*.png"))
    (folder / "tars").mkdir()
    for shard in range(TARS):
        with tarfile.open(folder / "tars" / f"{shard}.tar", "w") as tar:
            for path in files[shard::TARS]:
                tar.add(path, path.name)
    return pictures


def measure(images: int, work: Callable[[], object]) -> tuple[float, float]:
    """Images per second of the clock, and per CPU second of this process and those that it started, of one call."""
    started, used = time.perf_counter(), cpu_seconds()
    work()
    seconds = time.perf_counter() - started
    _wait_for_orphans()
    return images / seconds, images / (cpu_seconds() - used)


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _wait_for_orphans() -> None:
    """Count the CPU seconds of processes whose parent has ended, as Ray's: they became ours, and end soon."""
    until = time.monotonic() + ORPHAN_SECONDS
    with suppress(ChildProcessError):
        while time.monotonic() < until:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.01)


def main() -> None:
    """Measure in turns, so that other load on the machine falls on all alike; print medians and ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--price", type=float, default=0.0, help="of one CPU per hour")
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
    sys.stdout = sys.stderr  # the steps' own lines
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, version = write_store(folder)
        pictures = write_pictures(folder, options.images)
        files = sorted((folder / "png").rglob("*.png"))
        bare = Classifier(folder / "bundle")

        def bare_png() -> None:
            for start in range(0, len(files), 64):
                bare.probabilities(np.stack([from_bytes(path.read_bytes(), SPEC) for path in files[start : start + 64]]), 64)

        rates: dict[str, list[tuple[float, float]]] = {}
        for repeat in range(options.repeats):
            work: dict[str, Callable[[], object]] = {"bare": partial(bare.probabilities, pictures, 64), "bare png": bare_png}
            work |= {name: partial(peer, name, options.images, folder) for name in PEERS}
            for kind, source, engine in RUNS:
                work[kind] = partial(score, store, version, folder / source, folder / f"{kind}-{repeat}", engine)
            for kind, call in work.items():
                rates.setdefault(kind, []).append(measure(options.images, call))
    clock, cpu = ({kind: statistics.median(pair[k] for pair in pairs) for kind, pairs in rates.items()} for k in (0, 1))
    result = {
        "images": options.images,
        "n": options.repeats,
        "images_per_second": {kind: round(value) for kind, value in clock.items()},
        "images_per_cpu_second": {kind: round(value) for kind, value in cpu.items()},
        "npy_to_bare": {"clock": round(clock["npy"] / clock["bare"], 2), "cpu": round(cpu["npy"] / cpu["bare"], 2)},
        "png_to_bare_png": {"clock": round(clock["png"] / clock["bare png"], 2), "cpu": round(cpu["png"] / cpu["bare png"], 2)},
        "png_to": {name: {"clock": round(clock["png"] / clock[name], 2), "cpu": round(cpu["png"] / cpu[name], 2)} for name in PEERS},
        "price_per_million": {kind: round(available_cpus() * options.price * 1e6 / rate / 3600, 4) for kind, rate in clock.items()},
        "all": {kind: [[round(a), round(b)] for a, b in pairs] for kind, pairs in rates.items()},
        "cpus": available_cpus(),
        "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version(), "onnxruntime": onnxruntime.__version__, "numpy": np.__version__},
    }
    print(json.dumps(result, indent=1), file=sys.__stdout__)


if __name__ == "__main__":
    main()
