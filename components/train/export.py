"""From a trained network to model.onnx, which is accepted only if it reproduces torch's probabilities."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor

from components.bundle.files import FAMILIARITY, INPUT_NAME, ONNX, OUTPUT_NAME
from components.bundle.model import Classifier
from components.classifier.errors import TrainingError, first_line
from components.classifier.images import ImageSpec, Pixels
from components.classifier.network import ServingGraph

OPSET = 18
CHECKED_BATCHES = (1, 2, 7, 64)
TOLERANCE = 1e-4


def export_onnx(graph: ServingGraph, spec: ImageSpec, path: Path, facts: Mapping[str, str]) -> None:
    """Write the serving graph as one ONNX file with a dynamic batch: `image` uint8 (N, H, W, C), `probabilities` float32 (N, K)
    and, where the graph has it, `familiarity` float32 (N,).

    `facts` become the file's metadata_props.

    Raises TrainingError when it cannot be exported.
    """
    graph = graph.to("cpu", torch.float32).eval()
    example = torch.zeros((2, *spec.shape), dtype=torch.uint8)
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME] if graph.familiarity is None else [OUTPUT_NAME, FAMILIARITY],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                verbose=False,
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise TrainingError(f"the network cannot be exported to ONNX ({first_line(error)}); choose another architecture") from error
    assert program is not None
    model = _without_source_lines(program.model_proto)
    onnx.helper.set_model_props(model, dict(sorted(facts.items())))
    path.write_bytes(model.SerializeToString(deterministic=True))


def check_export(graph: ServingGraph, directory: Path, samples: Pixels) -> float:
    """Compare model.onnx in batches of several sizes with torch, and with itself picture by picture.

    `directory` also holds config.json. `samples` are real pictures, uint8 (N, H, W, C); noise is added where there are fewer than 64.
    Returns the largest difference of a probability or a familiarity. Raises TrainingError when it is above TOLERANCE.
    """
    images = probes(samples, Classifier(directory).spec)
    with torch.inference_mode():
        expected = _as_tuple(graph.to("cpu").eval()(torch.from_numpy(images)))
    return check_answers(directory, images, joined(*expected), "the trained network")


def check_answers(directory: Path, images: Pixels, expected: npt.NDArray[np.float32] | None, what: str) -> float:
    """Compare model.onnx in batches of several sizes with itself picture by picture, and with what `what` answered, (N, K) or (N, K + 1).

    Returns the largest difference of a probability or a familiarity. Raises TrainingError when it is above TOLERANCE.
    """
    classifier = Classifier(directory)
    alone = np.concatenate([joined(*classifier.answer(images[k : k + 1])) for k in range(len(images))])
    expected = alone if expected is None else expected
    worst = float(np.abs(alone - expected).max())
    for size in CHECKED_BATCHES:
        together = joined(*classifier.answer(images[:size], batch_size=size))
        worst = max(worst, float(np.abs(together - alone[:size]).max()), float(np.abs(together - expected[:size]).max()))
    if not worst <= TOLERANCE:
        raise TrainingError(f"{ONNX} differs from {what} by {worst:.2g} (at most {TOLERANCE:g}); choose another architecture")
    return worst


def _as_tuple(outputs: Tensor | tuple[Tensor, Tensor]) -> tuple[Any, Any]:
    probabilities, familiarity = (outputs, None) if isinstance(outputs, Tensor) else outputs
    return probabilities.numpy(), None if familiarity is None else familiarity.numpy()


def joined(probabilities: Any, familiarity: Any) -> npt.NDArray[np.float32]:
    """Both outputs side by side, (N, K + 1)."""
    return probabilities if familiarity is None else np.column_stack([probabilities, familiarity])


def probes(samples: Pixels, spec: ImageSpec) -> Pixels:
    """The first pictures of `samples`, uint8 (N, H, W, C), and noise up to the largest batch that is checked."""
    wanted = max(CHECKED_BATCHES)
    noise = np.random.default_rng(0).integers(0, 256, (max(0, wanted - len(samples)), *spec.shape), dtype=np.uint8)
    return np.concatenate([np.asarray(samples[:wanted]), noise])


def _without_source_lines(model: onnx.ModelProto) -> onnx.ModelProto:
    # The exporter records the source line of every node, with paths of the machine that trained.
    del model.metadata_props[:]
    for part in (model.graph, *model.functions):
        del part.metadata_props[:]
        part.doc_string = ""
        for node in part.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    return model
