"""The only forward path: evaluation, batch scoring and the predictor all run a bundle through `Classifier`."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from components.bundle.config import BundleConfig
from components.bundle.files import INPUT_NAME, ONNX, OUTPUT_NAME
from components.classifier.cpu import available_cpus
from components.classifier.errors import IntegrityError, UsageError, first_line
from components.classifier.images import ImageSpec, Pixels

Probabilities = npt.NDArray[np.float32]


class Classifier:
    """A loaded model version: uint8 pictures in, calibrated probabilities out.

    `config` is the bundle's configuration, `spec` the shape of one picture, `classes` the names in the order of the outputs.
    Calls from several threads at once are safe (onnxruntime sessions are).
    """

    def __init__(self, directory: str | Path, threads: int | None = None, device: str = "cpu") -> None:
        """Load model.onnx and config.json from a directory.

        `threads`: threads of onnxruntime per operator; None takes as many as the container's CPU quota allows.
        `device`: "cpu", "cuda", or "auto" (cuda where onnxruntime has it). Raises UsageError for a missing device, and
        IntegrityError for files that are missing, damaged or do not belong together.
        """
        directory = Path(directory)
        self.config = BundleConfig.load(directory)
        self.spec: ImageSpec = self.config.input.spec
        self.classes: list[str] = self.config.classes
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or available_cpus()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin while they wait use up a CPU quota: with 2 threads, 2.6 times the CPU time per request.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = _providers(device)
        try:
            self._session = onnxruntime.InferenceSession(str(directory / ONNX), options, providers=providers)
        except Exception as error:  # onnxruntime raises classes of its own that share no base but Exception
            raise IntegrityError(f"{directory / ONNX} cannot be loaded ({first_line(error)}); publish the model version again") from error
        self.device: str = "cuda" if "CUDAExecutionProvider" in self._session.get_providers() else "cpu"
        """The device that really runs the model."""
        if device == "cuda" and self.device != "cuda":  # onnxruntime silently falls back to the CPU
            raise UsageError("device 'cuda' was requested, but onnxruntime cannot use the GPU here; check the driver, or use device 'auto'")
        self._check_signature(directory)

    def probabilities(self, images: Pixels, batch_size: int = 256) -> Probabilities:
        """Classify pictures, uint8 (N, H, W, C) of `spec`; returns float32 (N, K), rows sum to 1.

        N may be 0. Raises ValueError for another shape or dtype: `images.from_bytes` brings pictures to `spec`.
        """
        if images.ndim != 4 or images.shape[1:] != self.spec.shape or images.dtype != np.uint8:
            raise ValueError(f"expected uint8 (N, {', '.join(map(str, self.spec.shape))}), got {images.dtype} {images.shape}")
        if len(images) == 0:
            return np.zeros((0, len(self.classes)), np.float32)
        parts = [self._run(images[start : start + batch_size]) for start in range(0, len(images), batch_size)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, batch: Pixels) -> Probabilities:
        (output,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: np.ascontiguousarray(batch)})
        return np.asarray(output, dtype=np.float32)

    def _check_signature(self, directory: Path) -> None:
        inputs = {i.name: (i.type, i.shape[1:]) for i in self._session.get_inputs()}
        outputs = {o.name: o.shape[-1] for o in self._session.get_outputs()}
        if inputs != {INPUT_NAME: ("tensor(uint8)", list(self.spec.shape))} or outputs != {OUTPUT_NAME: len(self.classes)}:
            raise IntegrityError(
                f"{directory / ONNX} takes {inputs} and gives {outputs}, but config.json says {self.spec} and "
                f"{len(self.classes)} classes; publish the model version again"
            )


def _providers(device: str) -> list[str]:
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise UsageError(
            "device 'cuda' was requested, but this onnxruntime has no CUDA provider; install onnxruntime-gpu or use device 'auto'"
        )
    if device not in {"cpu", "cuda", "auto"}:
        raise UsageError(f"unknown device {device!r}; use cpu, cuda or auto")
    return ["CUDAExecutionProvider", "CPUExecutionProvider"] if device != "cpu" and has_cuda else ["CPUExecutionProvider"]
