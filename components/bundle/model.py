"""The only forward path: evaluation, batch scoring and the predictor all run a bundle through `Classifier`, on the CPU or a GPU.

On a GPU the model runs through buffers that stay on it (`BoundRunner`).
"""

import contextlib
import ctypes
import io
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

from components.bundle.config import BundleConfig
from components.bundle.files import FAMILIARITY, INPUT_NAME, ONNX, OUTPUT_NAME
from components.classifier.cpu import available_cpus
from components.classifier.errors import IntegrityError, UsageError, first_line, one_line
from components.classifier.images import ImageSpec, Pixels

Probabilities = npt.NDArray[np.float32]
DEVICES = ("cpu", "cuda", "auto")
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_DRIVER = "libcuda.so.1"
_CUDA_OPTIONS = {
    # The default tries every algorithm for each new shape, which takes seconds, and what wins differs from run to run.
    "cudnn_conv_algo_search": "HEURISTIC",
    # TF32 rounds to 10 bits: answers would be up to 1e-3 away from those that were evaluated on a CPU.
    "use_tf32": "0",
    "arena_extend_strategy": "kSameAsRequested",
}


class Answers(NamedTuple):
    """`probabilities` float32 (N, K), and `familiarity` float32 (N,), 0 to 1: None for a version that has no such output."""

    probabilities: Probabilities
    familiarity: npt.NDArray[np.float32] | None


class Classifier:
    """A loaded model version: uint8 pictures in, calibrated probabilities out.

    `config` is the bundle's configuration, `spec` the shape of one picture, `classes` the names in the order of the outputs.
    Calls from several threads at once are safe (onnxruntime sessions are).
    """

    def __init__(self, directory: str | Path, threads: int | None = None, device: str = "cpu", bound: bool = False) -> None:
        """Load model.onnx and config.json from a directory.

        `threads`: threads of onnxruntime per operator; None takes as many as the container's CPU quota allows.
        `device`: "cpu", "cuda", or "auto" (cuda where it can be used). `bound`: keep buffers between runs on the CPU too, as on
        a GPU. Raises UsageError for a missing device, and IntegrityError for files that are missing, damaged or do not belong together.
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
        try:
            self._session = open_session(str(directory / ONNX), options, device)
        except UsageError:
            raise
        except Exception as error:  # onnxruntime raises classes of its own that share no base but Exception
            raise IntegrityError(f"{directory / ONNX} cannot be loaded ({first_line(error)}); publish the model version again") from error
        self.device: str = device_of(self._session)
        """The device that really runs the model."""
        self._check_signature(directory)
        self._outputs = [OUTPUT_NAME] if self.config.familiarity is None else [OUTPUT_NAME, FAMILIARITY]
        self._bound = BoundRunner(self._session, self._outputs, self.device) if bound or self.device == "cuda" else None

    def probabilities(self, images: Pixels, batch_size: int = 256) -> Probabilities:
        """Classify pictures, uint8 (N, H, W, C) of `spec`; returns float32 (N, K), rows sum to 1. Raises ValueError as `answer` does."""
        return self.answer(images, batch_size).probabilities

    def answer(self, images: Pixels, batch_size: int = 256) -> Answers:
        """Classify pictures, uint8 (N, H, W, C) of `spec`, and say how familiar they are.

        N may be 0. Raises ValueError for another shape or dtype: `images.from_bytes` brings pictures to `spec`.
        """
        if images.ndim != 4 or images.shape[1:] != self.spec.shape or images.dtype != np.uint8:
            raise ValueError(f"expected uint8 (N, {', '.join(map(str, self.spec.shape))}), got {images.dtype} {images.shape}")
        if len(images) == 0:
            return Answers(
                np.zeros((0, len(self.classes)), np.float32), None if self.config.familiarity is None else np.zeros(0, np.float32)
            )
        parts = [self._run(images[start : start + batch_size]) for start in range(0, len(images), batch_size)]
        if len(parts) == 1:
            return parts[0]
        familiarity = [part.familiarity for part in parts if part.familiarity is not None]
        return Answers(np.concatenate([part.probabilities for part in parts]), np.concatenate(familiarity) if familiarity else None)

    def unfamiliar(self, familiarity: npt.NDArray[np.float32] | None) -> npt.NDArray[np.bool_] | None:
        """Which pictures look like nothing that the version was trained on; None where it cannot say."""
        config = self.config.familiarity
        return None if familiarity is None or config is None else familiarity < np.float32(config.threshold)

    def _run(self, batch: Pixels) -> Answers:
        if self._bound is not None:
            found = self._bound.run(batch)
        else:
            found = self._session.run(self._outputs, {INPUT_NAME: np.ascontiguousarray(batch)})
        return Answers(np.asarray(found[0], dtype=np.float32), np.asarray(found[1], dtype=np.float32) if len(found) > 1 else None)

    def _check_signature(self, directory: Path) -> None:
        inputs = {i.name: (i.type, i.shape[1:]) for i in self._session.get_inputs()}
        outputs = {o.name: o.shape[1:] for o in self._session.get_outputs()}
        wanted = {OUTPUT_NAME: [len(self.classes)], **({} if self.config.familiarity is None else {FAMILIARITY: []})}
        if inputs != {INPUT_NAME: ("tensor(uint8)", list(self.spec.shape))} or outputs != wanted:
            raise IntegrityError(
                f"{directory / ONNX} takes {inputs} and gives {outputs}, but config.json says {self.spec} and "
                f"{len(self.classes)} classes; publish the model version again"
            )


def why_no_cuda() -> str:
    """Say why onnxruntime cannot use a GPU here, and what mends it; empty where nothing is known to be missing.

    onnxruntime itself lists a provider that it was built with, and goes on without it when its libraries cannot be loaded.
    """
    if _CUDA not in onnxruntime.get_available_providers():
        return "this onnxruntime is built without CUDA; use the image penstock-predictor-gpu, or install onnxruntime-gpu in its stead"
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
        onnxruntime.preload_dlls(directory="")  # from NVIDIA's packages, which are on no search path
    try:
        ctypes.CDLL(_DRIVER)
    except OSError:
        return f"there is no NVIDIA driver here ({_DRIVER}); run on a node with a GPU, and give one to the container (nvidia.com/gpu: 1)"
    return ""


def require_device(device: str) -> None:
    """Raise UsageError for a device that is unknown, and for "cuda" where it cannot be used."""
    if device not in DEVICES:
        raise UsageError(f"unknown device {device!r}; use cpu, cuda or auto")
    if device == "cuda" and (reason := why_no_cuda()):
        raise UsageError(f"device 'cuda' was requested, but {reason}; or use device 'cpu'")


def open_session(path: str, options: Any, device: str) -> Any:
    """Open an onnxruntime session on a device.

    Raises UsageError for a device that cannot be used ("auto" takes the CPU then), and what onnxruntime raises for the file.
    """
    require_device(device)
    if device == "cpu" or (device == "auto" and why_no_cuda()):
        return onnxruntime.InferenceSession(path, options, providers=[_CPU])
    reason = "its libraries cannot be loaded, see the log above"
    try:  # without fallback: that would print, and go on with the CPU
        session = onnxruntime.InferenceSession(path, options, providers=[(_CUDA, _CUDA_OPTIONS), _CPU], enable_fallback=0)
    except Exception as error:  # noqa: BLE001 - its errors have no common base; whether the file is at fault shows the CPU
        reason = one_line(error, 300)
    else:
        if device_of(session) == "cuda":
            return session
    session = onnxruntime.InferenceSession(path, options, providers=[_CPU])
    if device == "cuda":
        raise UsageError(f"device 'cuda' was requested, but onnxruntime cannot use it ({reason}); check the driver, or use device 'cpu'")
    return session


def device_of(session: Any) -> str:
    """Return the device that really runs a session: "cuda" or "cpu"."""
    return "cuda" if _CUDA in session.get_providers() else "cpu"


class _Buffers(NamedTuple):
    binding: Any
    host: npt.NDArray[np.uint8]
    input: Any
    outputs: list[Any]


class BoundRunner:
    """Runs a session through I/O binding: the buffers stay on the device, one set for each power of two of pictures.

    A batch is filled up to the next power of two, because cuDNN chooses its algorithm by shape, slowly. One run at a time.
    """

    def __init__(self, session: Any, outputs: list[str], device: str) -> None:
        """`outputs`: names of the outputs that are wanted; `device`: where the buffers are, "cuda" or "cpu"."""
        self._session, self._device = session, device
        (entry,) = session.get_inputs()
        self._input, self._shape = entry.name, tuple(entry.shape[1:])
        shapes = {output.name: tuple(output.shape[1:]) for output in session.get_outputs()}
        self._outputs = {name: shapes[name] for name in outputs}
        self._lock = threading.Lock()
        self._buffers: dict[int, _Buffers] = {}

    def run(self, batch: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
        """Return the outputs for uint8 (N, H, W, C), each float32 (N, …); N must be 1 or more."""
        number = len(batch)
        size = 1 << (number - 1).bit_length()
        with self._lock:
            if size not in self._buffers:
                self._buffers[size] = self._bind(size)
            binding, host, on_device, outputs = self._buffers[size]
            host[:number] = batch
            on_device.update_inplace(host)
            binding.synchronize_inputs()
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            return [output.numpy()[:number].copy() for output in outputs]

    def _bind(self, size: int) -> _Buffers:
        binding = self._session.io_binding()
        host = np.zeros((size, *self._shape), np.uint8)
        on_device = onnxruntime.OrtValue.ortvalue_from_numpy(host, self._device, 0)
        binding.bind_ortvalue_input(self._input, on_device)
        outputs = []
        for name, shape in self._outputs.items():
            output = onnxruntime.OrtValue.ortvalue_from_shape_and_type((size, *shape), np.float32, self._device, 0)
            binding.bind_ortvalue_output(name, output)
            outputs.append(output)
        return _Buffers(binding, host, on_device, outputs)
