"""Images a second of batch scoring, beside a bare onnxruntime loop over the same pictures in the same run.

    python -m benchmarks.scoring [--images 100000] [--repeats 5]

The model is `small_cnn` for 28x28 grey pictures (untrained: the time is the same). `bare` reads arrays from memory and does
nothing with the answers; `bare png` decodes each file with the product's own `from_bytes`, one after another, and then runs the model.
`dataloader` reads the files as torchvision users do: `read_image` in torch's DataLoader with a process per CPU, then the same model.
`npy` and `png` are whole runs: Python's start, plan, model, scoring, both Parquet files, merge, with as many processes as the product
chooses. Seconds of the clock, and of the CPU (children included), which other load on the machine disturbs less.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, read_image

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


def score(store: str, version: str, source: Path, folder: Path) -> None:
    """Run the steps in a process of its own, which imports what a step imports: scoring processes import their parent's main module."""
    code = "import sys; from benchmarks.scoring_run import run; run(*sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, store, version, str(source), str(folder)], check=True, stdout=sys.stderr)


def measure(images: int, work: Callable[[], object]) -> tuple[float, float]:
    """Images per second of the clock, and per CPU second of this process and those that it started, of one call."""
    started, used = time.perf_counter(), cpu_seconds()
    work()
    return images / (time.perf_counter() - started), images / (cpu_seconds() - used)


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Pictures(Dataset[torch.Tensor]):
    """Files as torchvision reads them, for torch's DataLoader."""

    def __init__(self, files: list[Path]) -> None:
        self._files = [str(path) for path in files]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> torch.Tensor:
        return read_image(self._files[number], ImageReadMode.GRAY)


def main() -> None:
    """Measure in turns, so that other load on the machine falls on all alike; print medians and ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    sys.stdout = sys.stderr  # the steps' own lines
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, version = write_store(folder)
        pictures = np.random.default_rng(0).integers(0, 256, (options.images, 28, 28, 1), dtype=np.uint8)
        np.save(folder / "pictures.npy", pictures)
        for number, picture in enumerate(pictures):
            path = folder / "png" / f"{number // 1000:03d}" / f"{number:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture[:, :, 0]).save(path)
        files = sorted((folder / "png").rglob("*.png"))
        bare = Classifier(folder / "bundle")

        def bare_png() -> None:
            for start in range(0, len(files), 64):
                bare.probabilities(np.stack([from_bytes(path.read_bytes(), SPEC) for path in files[start : start + 64]]), 64)

        def dataloader() -> None:
            for batch in DataLoader(Pictures(files), batch_size=64, num_workers=available_cpus()):
                bare.probabilities(batch.permute(0, 2, 3, 1).numpy(), 64)

        rates: dict[str, list[tuple[float, float]]] = {"bare": [], "npy": [], "bare png": [], "png": [], "dataloader": []}
        for repeat in range(options.repeats):
            rates["bare"].append(measure(options.images, lambda: bare.probabilities(pictures, 64)))
            rates["bare png"].append(measure(options.images, bare_png))
            rates["dataloader"].append(measure(options.images, dataloader))
            for kind, source in (("npy", folder / "pictures.npy"), ("png", folder / "png")):
                place = folder / f"{kind}-{repeat}"
                rates[kind].append(measure(options.images, lambda source=source, place=place: score(store, version, source, place)))
    clock, cpu = ({kind: statistics.median(pair[k] for pair in pairs) for kind, pairs in rates.items()} for k in (0, 1))
    result = {
        "images": options.images,
        "n": options.repeats,
        "images_per_second": {kind: round(value) for kind, value in clock.items()},
        "images_per_cpu_second": {kind: round(value) for kind, value in cpu.items()},
        "npy_to_bare": {"clock": round(clock["npy"] / clock["bare"], 2), "cpu": round(cpu["npy"] / cpu["bare"], 2)},
        "png_to_bare_png": {"clock": round(clock["png"] / clock["bare png"], 2), "cpu": round(cpu["png"] / cpu["bare png"], 2)},
        "png_to_dataloader": {k: round(rate["png"] / rate["dataloader"], 2) for k, rate in (("clock", clock), ("cpu", cpu))},
        "all": {kind: [[round(a), round(b)] for a, b in pairs] for kind, pairs in rates.items()},
        "cpus": available_cpus(),
        "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version(), "onnxruntime": onnxruntime.__version__, "numpy": np.__version__},
    }
    print(json.dumps(result, indent=1), file=sys.__stdout__)


if __name__ == "__main__":
    main()
