"""A tiny but really trained model: logistic regression on scikit-learn's digits, as an ONNX bundle like train's, in a second."""

from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from components.bundle import dataset, files
from components.bundle.config import BundleConfig, FamiliarityConfig, InputConfig
from components.bundle.golden import save_golden
from components.bundle.model import Classifier

CLASSES = [str(digit) for digit in range(10)]


@cache
def digits(size: int = 8, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """All 1,797 digits, uint8 (N, size, size, channels), and their labels int64 (N,)."""
    data = load_digits()
    grey = (data.images * 255 / 16).round().astype(np.uint8)
    if size != 8:
        grey = np.stack([np.asarray(Image.fromarray(g).resize((size, size), Image.Resampling.BILINEAR)) for g in grey])
    return np.repeat(grey[..., None], channels, axis=3), data.target.astype(np.int64)


def write_dataset(directory: Path, size: int = 8, channels: int = 1, classes: list[str] | None = None) -> dataset.Dataset:
    """Digits as a dataset version: 1,200 for training, 200 for validation, 397 sealed."""
    images, labels = digits(size, channels)
    order = np.random.default_rng(7).permutation(len(labels))
    images, labels = images[order], labels[order]
    parts = {"train": slice(0, 1200), "validation": slice(1200, 1400), "test": slice(1400, None)}
    names = classes or CLASSES
    counts = {p: {c: int((labels[s] == k).sum()) for k, c in enumerate(names)} for p, s in parts.items()}
    info = dataset.DatasetInfo(source="digits", classes=names, shape=images.shape[1:], counts=counts, seed=7)
    dataset.write(directory, info, {p: (images[s], labels[s]) for p, s in parts.items()})
    return dataset.Dataset.load(directory)


@cache
def _weights(size: int, channels: int, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = digits(size, channels)
    chosen = np.random.default_rng(seed).permutation(len(labels))[:samples]
    model = LogisticRegression(max_iter=300).fit(images[chosen].reshape(len(chosen), -1) / 255, labels[chosen])
    return model.coef_.astype(np.float32), model.intercept_.astype(np.float32)


def write_bundle(
    directory: Path,
    *,
    name: str = "digits",
    size: int = 8,
    channels: int = 1,
    samples: int = 1200,
    seed: int = 0,
    temperature: float = 1.0,
    classes: list[str] | None = None,
    trained_at: str = "2026-01-02T03:04:05+00:00",
    dataset_digest: str = "0" * 64,
    golden: bool = True,
    familiarity: bool = False,
    levels: int = 16,
) -> Path:
    """Write model.onnx, model.safetensors, config.json, training.json (and golden.npz) of a model trained on `samples` digits.

    With `familiarity` it has a second output: pictures about as bright as digits are familiar.
    """
    directory.mkdir(parents=True, exist_ok=True)
    coef, intercept = _weights(size, channels, samples, seed)
    weight, bias = coef.T / 255, intercept
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"]),
        helper.make_node("Div", ["logits", "temperature"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["probabilities"], axis=1),
    ]
    outputs, constants = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])], []
    if familiarity:
        means = digits(size, channels)[0].mean(axis=(1, 2, 3))
        centre, limit = means.mean(), np.quantile(np.abs(means - means.mean()), 0.995)
        outputs.append(helper.make_tensor_value_info("familiarity", TensorProto.FLOAT, ["batch"]))
        constants = [numpy_helper.from_array(np.float32(v), n) for n, v in (("centre", centre), ("limit", limit), ("one", 1))]
        nodes += [
            helper.make_node("ReduceMean", ["float"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Sub", ["mean", "centre"], ["away"]),
            helper.make_node("Div", ["away", "limit"], ["apart"]),
            helper.make_node("Mul", ["apart", "apart"], ["squared"]),
            helper.make_node("Add", ["squared", "one"], ["inverse"]),
            helper.make_node("Reciprocal", ["inverse"], ["familiarity"]),
        ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", size, size, channels])],
        outputs,
        [
            *constants,
            numpy_helper.from_array(np.ascontiguousarray(weight, np.float32), "weight"),
            numpy_helper.from_array(bias, "bias"),
            numpy_helper.from_array(np.float32(temperature), "temperature"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), directory / files.ONNX)
    save_file({"weight": np.ascontiguousarray(weight), "bias": bias}, directory / files.WEIGHTS)
    (directory / files.TRAINING).write_text('{"epochs": []}\n')
    BundleConfig(
        name=name,
        architecture="logistic",
        classes=classes or CLASSES,
        input=InputConfig(height=size, width=size, channels=channels, levels=levels, mean=[0.0] * channels, std=[1.0] * channels),
        temperature=temperature,
        familiarity=FamiliarityConfig(threshold=0.5, quantile=0.01, pictures=100, layer="", features=1) if familiarity else None,
        trained_at=trained_at,
        dataset_digest=dataset_digest,
        parameters={"samples": samples, "seed": seed},
        code_version="test",
    ).save(directory)
    if golden:
        images, _ = digits(size, channels)
        save_golden(directory, images[:16], *Classifier(directory, threads=1).answer(images[:16]))
    return directory
