"""Datasets and models made to measure: an ONNX model that looks its probabilities up by the number in a picture's first two pixels."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from components.bundle import dataset, files
from components.bundle.config import BundleConfig, InputConfig

SIDE = 6


def pictures(n: int, seed: int = 0) -> np.ndarray:
    """Noise, uint8 (n, 6, 6, 1), each with its own number in the first two pixels."""
    images = np.random.default_rng(seed).integers(0, 256, (n, SIDE, SIDE, 1), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.arange(n) // 256, np.arange(n) % 256
    return images


def write_dataset(
    directory: Path, labels: np.ndarray, classes: list[str], images: np.ndarray | None = None, groups: list[str | None] | None = None
) -> dataset.Dataset:
    """A dataset whose test split has these labels, and groups by patient; training and validation are empty."""
    labels = np.asarray(labels, np.int64)
    images = pictures(len(labels)) if images is None else images
    counts = {part: dict.fromkeys(classes, 0) for part in dataset.SPLITS}
    info = dataset.DatasetInfo(
        source="made", classes=classes, shape=(SIDE, SIDE, 1), counts=counts, seed=0, group="patient" if groups else ""
    )
    columns = {"test": {"file": [f"{k}.png" for k in range(len(labels))], "patient": groups}} if groups else None
    parts: dict[dataset.SplitName, tuple[np.ndarray, np.ndarray]]
    parts = {"train": (images[:0], labels[:0]), "validation": (images[:0], labels[:0]), "test": (images, labels)}
    dataset.write(directory, info, parts, columns)  # type: ignore[arg-type]
    return dataset.Dataset.load(directory)


def write_model(
    directory: Path,
    probabilities: np.ndarray,
    classes: list[str],
    dataset_digest: str = "0" * 64,
    temperature: float = 1.0,
    shape: tuple[int, int] = (SIDE, SIDE),
) -> Path:
    """A model that gives picture number k the k-th row of `probabilities`, whatever is in it."""
    directory.mkdir(parents=True, exist_ok=True)
    height, width = shape
    nodes = [
        helper.make_node("Cast", ["image"], ["wide"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["wide", "flat"], ["rows"]),
        helper.make_node("Slice", ["rows", "zero", "two", "one"], ["digits"]),
        helper.make_node("Mul", ["digits", "weights"], ["parts"]),
        helper.make_node("ReduceSum", ["parts", "one"], ["any"], keepdims=0),
        helper.make_node("Min", ["any", "last"], ["number"]),
        helper.make_node("Gather", ["table", "number"], ["probabilities"], axis=0),
    ]
    constants = {"flat": [-1, height * width], "zero": [0], "two": [2], "one": [1], "weights": [256, 1], "last": [len(probabilities) - 1]}
    graph = helper.make_graph(
        nodes,
        "table",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", height, width, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(classes)])],
        [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()]
        + [numpy_helper.from_array(np.asarray(probabilities, np.float32), "table")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), directory / files.ONNX)
    BundleConfig(
        name="made",
        architecture="table",
        classes=classes,
        input=InputConfig(height=height, width=width, channels=1, mean=[0.0], std=[1.0]),
        temperature=temperature,
        trained_at="2026-01-02T03:04:05+00:00",
        dataset_digest=dataset_digest,
        parameters={},
        code_version="test",
    ).save(directory)
    return directory


def softmax(logits: np.ndarray) -> np.ndarray:
    """Rows as float32 probabilities."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)


def guesses(predicted: np.ndarray, classes: int, sure: float = 0.9) -> np.ndarray:
    """Probabilities (n, classes) whose largest is `sure`, at the predicted class."""
    table = np.full((len(predicted), classes), (1 - sure) / (classes - 1), np.float32)
    table[np.arange(len(predicted)), predicted] = sure
    return table
