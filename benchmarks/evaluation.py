"""How long an evaluation takes, report included, beside the bare onnxruntime pass over the same pictures.

    python -m benchmarks.evaluation                                    # 10,000 made pictures of 28x28, a small_cnn
    python -m benchmarks.evaluation --dataset DATASET --model MODEL    # what ingest and train wrote

Prints seconds of the bare pass, of the evaluation (imports included), and of one that has a champion to compare with.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from sklearn.datasets import load_digits

from components.bundle.dataset import Dataset, DatasetInfo, write
from components.bundle.files import INPUT_NAME, ONNX, OUTPUT_NAME
from components.classifier.cpu import available_cpus

PICTURES = 10_000
LIMIT_S = 20.0


def make_dataset(directory: Path) -> Path:
    """Digits enlarged to 28x28, repeated with noise: 3,000 to train on, 500 for validation, 10,000 sealed."""
    digits, rng = load_digits(), np.random.default_rng(0)
    large = [Image.fromarray((image * 15.9).astype(np.uint8)).resize((28, 28), Image.Resampling.BILINEAR) for image in digits.images]
    base, labels = np.stack([np.asarray(image) for image in large]), digits.target.astype(np.int64)
    parts, counts = {}, {}
    for name, n in (("train", 3000), ("validation", 500), ("test", PICTURES)):
        rows = rng.integers(0, len(base), n)
        noisy = np.clip(base[rows] + rng.normal(0, 60, (n, 28, 28)), 0, 255).astype(np.uint8)
        parts[name] = (noisy[..., None], labels[rows])
        counts[name] = {str(k): int((labels[rows] == k).sum()) for k in range(10)}
    write(directory, DatasetInfo("made", [str(k) for k in range(10)], (28, 28, 1), counts, seed=0), parts)
    return directory


def make_model(dataset: Path, directory: Path) -> Path:
    """A small_cnn that was trained for two epochs."""
    from components.settings.training import TrainingSettings
    from components.train.training import train

    train(dataset, directory, TrainingSettings(name="benchmark", epochs=2))
    return directory


def bare_pass(model: Path, images: np.ndarray) -> None:
    """What onnxruntime alone does, with the threads and the batches of the evaluation."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cpus()
    session = onnxruntime.InferenceSession(model / ONNX, options, providers=["CPUExecutionProvider"])
    for start in range(0, len(images), 256):
        session.run([OUTPUT_NAME], {INPUT_NAME: np.ascontiguousarray(images[start : start + 256])})


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def evaluation(dataset: Path, model: Path, output: Path, champion: Path | None = None) -> None:
    """One evaluation, its imports included on the first call."""
    from components.evaluate.comparison import VersionFiles
    from components.evaluate.evaluation import evaluate

    evaluate(dataset, model, output, VersionFiles("champion", champion) if champion else None)


def main() -> None:
    """Time the three and print them in a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-benchmark-") as name:
        scratch = Path(name)
        dataset = arguments.dataset or make_dataset(scratch / "dataset")
        model = arguments.model or make_model(dataset, scratch / "model")
        images = Dataset.load(dataset).split("test").images
        bare = seconds(lambda: bare_pass(model, images))
        alone = seconds(lambda: evaluation(dataset, model, scratch / "alone"))
        paired = seconds(lambda: evaluation(dataset, model, scratch / "paired", model))
        report = (scratch / "paired" / "report.html").stat().st_size
    shape = "x".join(map(str, images.shape[1:]))
    print(f"\n{len(images):,} pictures of {shape}, {available_cpus()} CPUs, {platform.machine()}")
    print(f"bare onnxruntime pass        {bare:6.2f} s   {len(images) / bare:,.0f} pictures a second")
    print(f"evaluation, report included  {alone:6.2f} s   {alone / bare:.1f} times the bare pass, limit {LIMIT_S:.0f} s")
    print(f"  with a champion            {paired:6.2f} s   {paired / bare:.1f} times the bare pass")
    print(f"report.html                  {report / 1000:6.0f} kB")
    if alone > LIMIT_S:
        raise SystemExit(f"the evaluation took {alone:.1f} s, more than {LIMIT_S:.0f} s")


if __name__ == "__main__":
    main()
