"""Which device trains: a missing device is an error; there is no silent CPU fallback."""

import torch

from components.classifier.errors import TrainingError, first_line
from components.classifier.progress import warn_once


def choose_device(requested: str, gpus: str = "0") -> torch.device:
    """Return the device: `auto` takes cuda, then mps, then the CPU; `gpu` takes any accelerator; other names mean themselves.

    `gpus` is the number of GPUs that the step was given. Raises TrainingError when the requested device is missing or does not work,
    or when `gpus` is not 0 and there are fewer GPUs.
    """
    wants_gpu = gpus not in {"", "0"}
    if requested == "cpu" and not wants_gpu:
        return torch.device("cpu")
    found = _accelerator()
    if requested == "auto" and not wants_gpu:
        return found or torch.device("cpu")
    request = f"gpus={gpus}" if requested in {"auto", "cpu"} else f"device={requested}"
    if requested == "cpu":
        raise TrainingError(f"device=cpu and {request} contradict each other; use gpus=0, or device=auto")
    if found is None:
        why = "this torch is built without CUDA" if torch.version.cuda is None else "torch sees no CUDA device"
        raise TrainingError(
            f"{request} was requested, but there is no GPU here ({why}); run on a node with one, or use device=auto and gpus=0"
        )
    there = torch.cuda.device_count() if found.type == "cuda" else 1
    if wants_gpu and int(gpus) > there:
        raise TrainingError(f"gpus={gpus} was requested, but there {'is one' if there == 1 else f'are {there}'} here; use gpus={there}")
    if requested in {"auto", "gpu"} or requested == found.type:
        return found
    if requested.startswith("cuda:") and found.type == "cuda":
        number = requested.partition(":")[2]
        if number.isdigit() and int(number) < there:
            return torch.device(requested)
        raise TrainingError(f"device={requested} was requested, but there are {there} CUDA devices; use cuda:0 to cuda:{there - 1}")
    raise TrainingError(f"{request} was requested, but the accelerator here is {found.type}; use device={found.type} or device=auto")


def describe(device: torch.device) -> str:
    """Return the hardware's name for logs: `cpu, 2 threads` or `cuda (NVIDIA H100)`."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def fast_type(device: torch.device, precision: str = "auto") -> torch.dtype | None:
    """Return the type of 16 bits in which a device computes a training step; None for float32.

    bfloat16 on CUDA, float16 on CUDA of before 2020. On CPUs that multiply matrices of bfloat16 (Intel's AMX) only where `precision` says
    so: a training would else give another model on another CPU, and one that is resumed there would change in its middle.
    """
    if precision == "float32":
        return None
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    able = precision == "bfloat16" and device.type == "cpu" and torch.cpu.get_capabilities().get("amx_bf16")
    return torch.bfloat16 if able else None


def _accelerator() -> torch.device | None:
    for kind, available in (("cuda", torch.cuda.is_available), ("mps", torch.backends.mps.is_available)):
        if available():
            device = torch.device(kind)
            try:
                torch.ones(8, device=device).sum().item()  # a driver too old for torch fails only when a kernel runs
            except RuntimeError as error:
                warn_once(f"{kind} is there but does not work ({first_line(error)})")
                continue
            return device
    return None
