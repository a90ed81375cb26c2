"""Several processes that train one network, one per GPU: each takes its part of every batch, and gradients are averaged.

torchrun's launcher starts them, passes signals on, and ends all when one fails; torch's DistributedDataParallel averages the gradients.
"""

import os
import pickle
import signal
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from components.classifier.errors import PenstockError, TrainingError, UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """The processes that train together, as one of them sees it; alone, every method returns what it was given."""

    rank: int = 0
    """This process' number, from 0. The first one prints, writes checkpoints, and exports the model."""
    size: int = 1

    @classmethod
    def join(cls, device: torch.device) -> "tuple[Group, torch.device]":
        """Meet the other processes where torchrun started this one; returns the group, and this process' own device."""
        if not dist.is_torchelastic_launched():
            return cls(), device
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size()), device

    def leave(self) -> "Group":
        """Part from the others; returns the group of this process alone."""
        if self.size > 1:
            dist.destroy_process_group()
        return Group()

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the network as it is called for training: the backward pass averages gradients, and all begin with the first's weights."""
        return network if self.size == 1 else nn.parallel.DistributedDataParallel(network)

    def part(self, rows: T) -> T:
        """Return this process' rows of an array or a tensor that all have: every `size`-th."""
        return rows if self.size == 1 else rows[self.rank :: self.size]  # type: ignore[index]

    def largest(self, *values: float) -> list[float]:
        """Return the largest of each value over the processes, so that all decide alike."""
        if self.size == 1:
            return list(values)
        return self._reduced(torch.tensor(values, dtype=torch.float64), dist.ReduceOp.MAX).tolist()

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor over the processes, on its device."""
        return value if self.size == 1 else self._reduced(value.clone(), dist.ReduceOp.SUM) / self.size

    def gather(self, rows: npt.NDArray[np.float32], total: int) -> npt.NDArray[np.float32]:
        """Return all `total` rows, in order, of which each process has its `part`."""
        if self.size == 1:
            return rows
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, rows)
        together = np.empty((total, *rows.shape[1:]), rows.dtype)
        for rank, one in enumerate(parts):
            together[rank :: self.size] = one
        return together

    def _reduced(self, value: Tensor, how: Any) -> Tensor:
        dist.all_reduce(value, how)
        return value


ALONE = Group()


@dataclass(frozen=True)
class Nodes:
    """The machines that train together, as one of them sees it."""

    count: int = 1
    rank: int = 0
    meeting: str = ""
    """HOST:PORT of the first one, where all meet."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Nodes":
        """Read the variables that Kubeflow Trainer sets for torchrun; raises UsageError where one is missing.

        PET_NPROC_PER_NODE is not among them: without GPUs the Trainer makes it the number of CPUs, and one process uses them all.
        """
        try:
            count, rank, host, port = (environment[f"PET_{name}"] for name in ("NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"))
            return cls(int(count), int(rank), f"{host}:{int(port)}")
        except (KeyError, ValueError) as error:
            raise UsageError(
                f"not started by Kubeflow Trainer: {error} is missing or wrong in the environment; use a runtime with mlPolicy.torch"
            ) from error


def launch(processes: int, function: Callable[..., T], *arguments: object, nodes: Nodes | None = None) -> T:
    """Call a function in this many new processes, where `Group.join` finds the others; returns what the first one here returns.

    With `nodes` each of these machines calls this, and the processes of all of them are one group.

    The function and the arguments are pickled. SIGTERM and Ctrl-C are passed on to each process, which then have 30 s, and end this
    one like a training in one process. On Linux none outlives this one, however it ends. Raises the PenstockError that a process raised,
    and TrainingError when one ended otherwise.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        meeting: dict[str, Any] = (
            {"run_id": uuid.uuid4().hex, "rdzv_backend": "c10d", "rdzv_endpoint": "127.0.0.1:0", "local_addr": "127.0.0.1"}
            if nodes is None
            else {"run_id": "nodes", "rdzv_backend": "static", "rdzv_endpoint": nodes.meeting, "rdzv_configs": {"rank": nodes.rank}}
        )
        count = nodes.count if nodes else 1
        settings = LaunchConfig(
            min_nodes=count,
            max_nodes=count,
            nproc_per_node=processes,
            **meeting,
            max_restarts=0,
            signals_to_handle="SIGTERM,SIGINT",
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            results: dict[int, T] = elastic_launch(settings, _run)(function, arguments, folder)
        except SignalException as stopped:
            if stopped.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(128 + int(stopped.sigval)) from None
        except ChildFailedError as failed:
            for file in sorted(Path(folder).glob("error-*"), key=lambda it: it.stat().st_mtime_ns):
                raise pickle.loads(file.read_bytes()) from None
            rank, first = failed.get_first_failure()
            raise TrainingError(
                f"process {rank} of {count * processes} ended with exit code {first.exitcode}; what it printed is above, and -9 means that "
                "it was killed, as when memory is full"
            ) from failed
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return results[min(results)]


def _run(function: Callable[..., T], arguments: tuple[object, ...], folder: str) -> T:
    os.setsid()  # Ctrl-C in a terminal reaches the launcher alone, which passes it on once
    # When the launcher is killed, so is this process: torch asks Linux for a SIGINT then, which waits while gloo does, for half an hour.
    torch.multiprocessing._prctl_pr_set_pdeathsig(signal.SIGKILL)  # type: ignore[attr-defined]
    try:
        return function(*arguments)
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None  # torch's launcher takes it for a result otherwise
    except PenstockError as error:
        file = Path(folder) / f"error-{os.environ['RANK']}"
        file.with_suffix(".new").write_bytes(pickle.dumps(error))
        file.with_suffix(".new").rename(file)
        raise SystemExit(1) from None
