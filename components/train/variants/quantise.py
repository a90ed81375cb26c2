"""A model in 8-bit whole numbers, weights per channel.

Static, by onnxruntime's quantisation: what flows between layers has the ranges of the calibration pictures, and convolutions and matrix
products compute in whole numbers (QuantizeLinear and DequantizeLinear nodes around them). Weights: only these are whole numbers, the
computation stays in floating point: a smaller file, no faster. Normalisation, softmax and familiarity stay in floating point in both.

onnxruntime's dynamic quantisation is not used: it takes its ranges from the whole batch, so that a picture's answer would depend on the
pictures beside it. Static weights use 7 of the 8 bits (`reduce_range`): CPUs without the VNNI instructions add products in 16 bits, which
overflow, so that the same file would give other answers there.
"""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from components.bundle.dataset import Split
from components.bundle.files import INPUT_NAME, OUTPUT_NAME
from components.classifier.errors import TrainingError, first_line
from components.classifier.images import Pixels
from components.train.variants.graphs import ancestors

BATCH = 32
PRODUCTS = ("Conv", "Gemm", "MatMul")
"""Operators that compute in whole numbers."""
SMALLEST = 1e-30
"""What a channel of zeros is divided by."""
BETWEEN = ("Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat")
"""Operators that pass whole numbers on, so that they need not become floating point between two products."""


def calibration_pictures(split: Split, count: int) -> Pixels:
    """Pictures spread evenly over a split, uint8 (n, H, W, C), n at most `count`."""
    rows = np.unique(np.linspace(0, len(split) - 1, min(count, len(split)), dtype=np.int64))
    return np.asarray(split.images[rows])


def quantise_static(path: Path, pictures: Pixels) -> onnx.ModelProto:
    """Quantise a model with the activation ranges of some pictures, uint8 (N, H, W, C).

    Raises TrainingError where onnxruntime cannot, where a part is in 8 bits already, as an ensemble's member that is an int8 version, or
    where nothing in the graph could be quantised.
    """
    if any(node.op_type == "DequantizeLinear" for node in onnx.load(path).graph.node):
        raise TrainingError(
            "static quantisation does not take a network of which a part is in 8 bits already; make each member an int8 version and an "
            "ensemble of these, or set quantisation=weights"
        )
    with tempfile.TemporaryDirectory(prefix="penstock-quantise-") as scratch:
        prepared, written = Path(scratch) / "prepared.onnx", Path(scratch) / "int8.onnx"
        with _explained():
            quant_pre_process(path, prepared, skip_symbolic_shape=True)
            graph = onnx.load(prepared).graph
            quantize_static(
                prepared,
                written,
                _Pictures(pictures),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=[*PRODUCTS, *BETWEEN],
                nodes_to_exclude=sorted({node.name for node in graph.node} - _quantised(graph)),
            )
        model = onnx.load(written)
    if not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise _nothing_to_quantise()
    return model


def quantise_weights(path: Path) -> onnx.ModelProto:
    """Round the weights of a model's products to whole numbers from -127 to 127 times a scale for each channel, symmetrically.

    Raises TrainingError where there is none left.
    """
    model = onnx.load(path)
    graph, rounded = model.graph, dict[str, str]()
    constants = {value.name: value for value in graph.initializer}
    wanted = ancestors(graph, OUTPUT_NAME)
    dequantised: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type not in PRODUCTS or node.name not in wanted or node.input[1] not in constants:
            continue
        name = node.input[1]
        if name not in rounded:
            transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            weights = numpy_helper.to_array(constants[name])
            axis = 0 if node.op_type == "Conv" or transposed else weights.ndim - 1
            scale = np.maximum(np.abs(weights).max(axis=tuple(k for k in range(weights.ndim) if k != axis)), SMALLEST) / 127
            whole = np.rint(weights / np.expand_dims(scale, tuple(k for k in range(weights.ndim) if k != axis))).astype(np.int8)
            rounded[name] = f"{name}_from_int8"
            graph.initializer.extend(
                [numpy_helper.from_array(whole, f"{name}_int8"), numpy_helper.from_array(scale.astype(np.float32), f"{name}_scale")]
            )
            inputs = [f"{name}_int8", f"{name}_scale"]
            dequantised.append(helper.make_node("DequantizeLinear", inputs, [rounded[name]], rounded[name], axis=axis))
        node.input[1] = rounded[name]
    used = {name for node in graph.node for name in node.input}
    for name in rounded.keys() - used:
        graph.initializer.remove(constants[name])
    for node in reversed(dequantised):
        graph.node.insert(0, node)
    if not rounded:
        raise _nothing_to_quantise()
    return model


class _Pictures(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, pictures: Pixels) -> None:
        self._batches: Iterator[Any] = iter([{INPUT_NAME: pictures[k : k + BATCH]} for k in range(0, len(pictures), BATCH)])

    def get_next(self) -> Any:
        """The next batch, None after the last."""
        return next(self._batches, None)


class _explained:
    """Turns what onnxruntime raises, which has no common class, into a TrainingError, and keeps its hints out of the log."""

    def __enter__(self) -> None:
        self._disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)  # on every call it advises to prepare the model, which was done

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        logging.disable(self._disabled)
        if isinstance(error, Exception):
            raise TrainingError(
                f"static quantisation does not take this network ({first_line(error)}); set quantisation=weights"
            ) from error


def _quantised(graph: GraphProto) -> set[str]:
    """The nodes that may be quantised: those that probabilities come from, from the first product on."""
    wanted, reached, after = ancestors(graph, OUTPUT_NAME), set[str](), set[str]()
    for node in graph.node:  # in the order of computation
        if node.name in wanted and (node.op_type in PRODUCTS or reached.intersection(node.input)):
            after.add(node.name)
            reached.update(node.output)
    return after


def _nothing_to_quantise() -> TrainingError:
    return TrainingError("the network has no convolution or matrix product left to quantise; leave it as it is")
