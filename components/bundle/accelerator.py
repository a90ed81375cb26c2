"""onnxruntime on a GPU: whether one can be used here, and runs of a model through buffers that stay on it."""

import contextlib
import ctypes
import io
import threading
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

from components.classifier.errors import UsageError, one_line

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
