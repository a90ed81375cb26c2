"""A published version in the formats of other runtimes, each accepted only if it answers the golden requests as the evaluation did.

| format | file | runs in | answers |
|---|---|---|---|
| onnx | model.onnx, as published | onnxruntime, and all that reads ONNX | probabilities, familiarity |
| openvino | model.xml, model.bin | OpenVINO | probabilities, familiarity |
| pt2 | model.pt2 | PyTorch (`torch.export.load`) | probabilities |
| torchscript | model.torchscript | PyTorch and LibTorch (C++) | probabilities |

The last two are made of the weights: how familiar a picture looks is computed by parts that only model.onnx has.
"""

import importlib.util
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from components.bundle import files
from components.bundle.config import BundleConfig, Variant, facts_of
from components.bundle.files import ExportFormat
from components.bundle.golden import GOLDEN_TOLERANCE, difference, load_golden, load_golden_familiarity
from components.bundle.model import Classifier
from components.classifier.errors import RegistryError, TrainingError, UsageError, first_line
from components.classifier.images import Pixels
from components.registry import Registry
from components.storage.files import atomic_directory

if TYPE_CHECKING:
    from torch import nn

    from components.classifier.network import ServingGraph

LABELS, DESCRIPTION = "labels.json", "export.json"
FACTS_INSIDE = "penstock.json"
"""The file inside model.torchscript and model.pt2 that says what they take and give."""

Run = Callable[[Pixels], Mapping[str, npt.NDArray[Any]]]
"""The written file in its own runtime: from uint8 pictures (N, H, W, C) to arrays by name."""


@dataclass(frozen=True)
class Exported:
    """The content of export.json: what the files take and give, and how they were checked."""

    name: str
    version: str
    format: str
    files: list[str]
    made_with: str
    classes: list[str]
    """In the order of the probabilities."""
    input: dict[str, Any]
    preprocessing: str
    outputs: list[str]
    familiarity_threshold: float | None
    """A picture whose familiarity is below it looks like nothing in training; None where the file does not say how familiar it is."""
    golden_pictures: int
    largest_difference: float
    """The largest distance of a probability or a familiarity from the evaluated one, over the golden pictures."""


def export_version(registry: Registry, version: str, chosen: ExportFormat, output: Path) -> Exported:
    """Write a version in a format, with labels.json, export.json and golden.npz, into a folder that is new or empty.

    What is downloaded is checked by digest, and the folder appears when the written file has answered the golden requests in its own
    runtime, all together and one by one. Raises UsageError for a folder that is not empty or a runtime that is not installed,
    RegistryError for a version that is not there, is damaged, or has weights that do not make its network, and TrainingError for a
    network that cannot be exported or a file that gives other answers.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UsageError(f"{output} is not an empty folder; name a new one")
    source, write = _WRITERS[chosen]
    if chosen is ExportFormat.OPENVINO and importlib.util.find_spec("openvino") is None:
        raise UsageError("the format openvino needs OpenVINO, which is not installed; run `pip install 'penstock[openvino]'`")
    variant = Variant.of(registry.get(version).manifest.parameters)
    if variant is not None and variant.kind != "average" and source == files.WEIGHTS:
        raise RegistryError(f"version {version} is an {variant.kind} and has no {files.WEIGHTS}; choose onnx or openvino")
    with registry.opened(version, [source, files.CONFIG, files.GOLDEN]) as model:
        config = BundleConfig.load(model)
        with atomic_directory(output) as folder:
            with _quiet():
                run, made_with = write(model, config, folder)
                written = sorted(path.name for path in folder.iterdir())
                outputs, pictures, worst = _check(run, model, " and ".join(written))
            exported = Exported(
                name=config.name,
                version=version,
                format=chosen.value,
                files=written,
                made_with=made_with,
                classes=config.classes,
                input={"name": files.INPUT_NAME, "dtype": "uint8", "shape": ["N", *config.input.spec.shape], "layout": "NHWC"},
                preprocessing=facts_of(config)["penstock.preprocessing"],
                outputs=outputs,
                familiarity_threshold=config.familiarity.threshold if config.familiarity and files.FAMILIARITY in outputs else None,
                golden_pictures=pictures,
                largest_difference=worst,
            )
            for name, content in ((LABELS, config.classes), (DESCRIPTION, asdict(exported))):
                (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
            shutil.copyfile(model / files.GOLDEN, folder / files.GOLDEN)
    return exported


def _check(run: Run, model: Path, written: str) -> tuple[list[str], int, float]:
    """Compare the file's answers with those of golden.npz; returns the names of its outputs, how many pictures, the largest difference."""
    images, probabilities = load_golden(model)
    expected = {files.OUTPUT_NAME: probabilities, files.FAMILIARITY: load_golden_familiarity(model)}
    together, alone = run(images), [run(images[k : k + 1]) for k in range(len(images))]
    worst = 0.0
    for name, found in together.items():
        evaluated = expected[name]
        if evaluated is None:
            continue
        one_by_one = np.concatenate([answer[name] for answer in alone])
        worst = max(worst, difference(found, evaluated), difference(one_by_one, evaluated))
    if not worst <= GOLDEN_TOLERANCE:
        raise TrainingError(
            f"the answers of {written} differ from the evaluation's by {worst:.2g} for golden pictures (at most {GOLDEN_TOLERANCE:g}); "
            "choose another format"
        )
    return list(together), len(images), worst


def _onnx(model: Path, config: BundleConfig, folder: Path) -> tuple[Run, str]:
    import onnxruntime

    shutil.copyfile(model / files.ONNX, folder / files.ONNX)
    classifier = Classifier(model)

    def run(images: Pixels) -> dict[str, npt.NDArray[Any]]:
        return {name: array for name, array in classifier.answer(images)._asdict().items() if array is not None}

    return run, f"onnxruntime {onnxruntime.__version__}"


def _openvino(model: Path, config: BundleConfig, folder: Path) -> tuple[Run, str]:
    import openvino

    core = openvino.Core()
    try:
        read = core.read_model(model / files.ONNX)
    except RuntimeError as error:
        cause = str(error).strip().splitlines()[-1].removeprefix("-- ")
        raise TrainingError(f"OpenVINO does not take this network ({cause}); choose another format") from error
    for key, value in facts_of(config).items():
        read.set_rt_info(value, key.split("."))
    openvino.save_model(read, folder / "model.xml", compress_to_fp16=False)
    # CPUs that compute in bfloat16 would do so by default, and miss the tolerance by more than twice.
    compiled = core.compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [files.OUTPUT_NAME] if config.familiarity is None else [files.OUTPUT_NAME, files.FAMILIARITY]

    def run(images: Pixels) -> dict[str, npt.NDArray[Any]]:
        found = compiled({files.INPUT_NAME: images})
        return {name: found[name] for name in names}

    return run, f"openvino {openvino.__version__}"


def _torchscript(model: Path, config: BundleConfig, folder: Path) -> tuple[Run, str]:
    import torch

    graph, example, inside = _serving_graph(model, config)
    path = str(folder / "model.torchscript")
    with torch.inference_mode(), _exporting("TorchScript"):
        torch.jit.save(torch.jit.trace(graph, example), path, _extra_files=inside)  # type: ignore[no-untyped-call]
    return _torch_runner(torch.jit.load(path)), f"torch {torch.__version__}"  # type: ignore[no-untyped-call]


def _pt2(model: Path, config: BundleConfig, folder: Path) -> tuple[Run, str]:
    import torch

    graph, example, inside = _serving_graph(model, config)
    path = folder / "model.pt2"
    with torch.no_grad(), _exporting("pt2"):
        program = torch.export.export(graph, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, path, extra_files=inside)
    return _torch_runner(torch.export.load(path).module()), f"torch {torch.__version__}"


_WRITERS = {
    ExportFormat.ONNX: (files.ONNX, _onnx),
    ExportFormat.OPENVINO: (files.ONNX, _openvino),
    ExportFormat.PT2: (files.WEIGHTS, _pt2),
    ExportFormat.TORCHSCRIPT: (files.WEIGHTS, _torchscript),
}
"""By format: the file of the version that it is made of, and what writes it."""


def _serving_graph(model: Path, config: BundleConfig) -> tuple["ServingGraph", Any, dict[str, str]]:
    """The version's network as it was served, a batch of two empty pictures, and the text that goes into the file."""
    import torch

    from components.classifier.network import ServingGraph

    graph = ServingGraph(load_network(model, config), config.input.mean, config.input.std, config.temperature).eval()
    return graph, torch.zeros((2, *config.input.spec.shape), dtype=torch.uint8), {FACTS_INSIDE: json.dumps(facts_of(config))}


def load_network(model: Path, config: BundleConfig) -> "nn.Module":
    """Build a version's network with its weights; raises RegistryError for weights that do not make it."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from components.classifier.network import build

    try:
        network = build(config.architecture, config.input.spec, len(config.classes), width=config.parameters.get("width", 1.0))
        network.load_state_dict(load_file(model / files.WEIGHTS))
    except (RuntimeError, SafetensorError, UsageError) as error:
        raise RegistryError(
            f"{files.WEIGHTS} does not make the network {config.architecture!r} ({first_line(error)}), so that only formats made of "
            f"{files.ONNX} can be had; choose onnx or openvino"
        ) from error
    return network


def _torch_runner(module: Callable[[Any], Any]) -> Run:
    import torch

    def run(images: Pixels) -> dict[str, npt.NDArray[Any]]:
        with torch.inference_mode():
            return {files.OUTPUT_NAME: module(torch.from_numpy(images)).numpy()}

    return run


@contextmanager
def _exporting(what: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch raises it, or a class of its own that is one, for what it cannot trace
        raise TrainingError(f"the network cannot be exported to {what} ({first_line(error)}); choose another format") from error


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and tracing tells of every size that it takes for constant
        yield
