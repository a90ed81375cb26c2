"""Where training runs: asked for and there, or refused at once; never a CPU in silence."""

import logging

import torch

from components.classifier.errors import TrainingError

log = logging.getLogger(__name__)


def choose_device(asked: str, gpus: str = "0") -> torch.device:
    """Pick the device: `auto` takes cuda, then mps, then the CPU; `gpu` any accelerator; other names are taken as they are.

    Raises TrainingError when the one asked for is not there or does not work, or when `gpus` promises one that is not there.
    """
    wants_gpu = gpus not in {"", "0"}
    if asked == "cpu" and not wants_gpu:
        return torch.device("cpu")
    found = _accelerator()
    if asked == "auto" and not wants_gpu:
        return found or torch.device("cpu")
    wish = f"gpus={gpus}" if asked in {"auto", "cpu"} else f"device={asked}"
    if asked == "cpu":
        raise TrainingError(f"device=cpu and {wish} contradict each other; use gpus=0, or device=auto")
    if found is None:
        raise TrainingError(
            f"{wish} was asked for, but there is no GPU here ({_why_none()}); run on a node with one, or use device=auto and gpus=0"
        )
    if asked in {"auto", "gpu"} or asked == found.type:
        return found
    if asked.startswith("cuda:") and found.type == "cuda":
        return _numbered(asked)
    raise TrainingError(f"{wish} was asked for, but the accelerator here is {found.type}; use device={found.type} or device=auto")


def describe(device: torch.device) -> str:
    """Name the hardware for logs: `cpu, 2 threads` or `cuda (NVIDIA H100)`."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def _accelerator() -> torch.device | None:
    for kind, available in (("cuda", torch.cuda.is_available), ("mps", torch.backends.mps.is_available)):
        if available():
            device = torch.device(kind)
            try:
                torch.ones(8, device=device).sum().item()  # a driver too old for this torch is seen only when a kernel runs
            except RuntimeError as error:
                log.warning("%s is there but does not work (%s)", kind, str(error).splitlines()[0])
                continue
            return device
    return None


def _numbered(asked: str) -> torch.device:
    count = torch.cuda.device_count()
    number = asked.partition(":")[2]
    if not number.isdigit() or int(number) >= count:
        raise TrainingError(f"device={asked} was asked for, but there are {count} CUDA devices; use cuda:0 to cuda:{count - 1}")
    return torch.device(asked)


def _why_none() -> str:
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    return "torch sees no CUDA device"
