"""The training loop: one device, a one-cycle schedule, early stopping that restores the best weights, checkpoints."""

import copy
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.bundle.training import Epoch
from components.classifier.errors import TrainingError
from components.settings.training import TrainingSettings
from components.train.augmentation import Augmentation
from components.train.batches import Batches, batches_per_pass
from components.train.checkpoint import Checkpoints, State
from components.train.process_env import StopRequest
from components.train.progress import TrainingProgress

MIN_STEPS_PER_EPOCH = 60
"""Small sets are repeated with new augmentation until an epoch has this many steps."""

GRADIENT_NORM = 5.0
WARM_UP = 0.2
"""The fraction of all steps in which the learning rate rises; after them it falls to nearly zero."""


@dataclass
class Progress:
    """How far a training has come, as the checkpoint stores it."""

    history: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    best_loss: float = float("inf")
    begun: "BegunEpoch | None" = None

    @property
    def stale(self) -> int:
        """Return the number of epochs since the best one."""
        return len(self.history) - self.best_epoch


@dataclass
class BegunEpoch:
    """The epoch that is not complete yet: steps done, the sum of their losses, seconds, and where the random numbers stand."""

    total: Tensor
    augmentation: torch.Generator
    steps: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Fitted:
    """The outcome of a training; the network holds the best epoch's weights."""

    history: list[Epoch]
    best_epoch: int
    stop_reason: str


class Trainer:
    """Fits one network to one dataset.

    On a CPU the same seed, inputs and number of threads give the same weights, also after an interruption.
    """

    def __init__(
        self,
        network: nn.Module,
        normalise: "Normalise",
        train: Batches,
        validation: Batches,
        augmentation: Augmentation,
        options: TrainingSettings,
        device: torch.device,
    ) -> None:
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._normalise = normalise
        self._train, self._validation = train, validation
        self._augmentation = augmentation
        self._options, self._device = options, device
        self.steps = max(batches_per_pass(len(train), options.batch_size), MIN_STEPS_PER_EPOCH)
        groups = _parameter_groups(network, options)
        self._optimizer = torch.optim.AdamW(groups, weight_decay=options.weight_decay)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, [g["lr"] for g in groups], total_steps=options.epochs * self.steps + 1, pct_start=WARM_UP, cycle_momentum=False
        )
        self._amp_type = _amp_type(device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._amp_type == torch.float16)

    def fit(self, checkpoints: Checkpoints, show: TrainingProgress, stop: StopRequest | None = None) -> Fitted:
        """Train until the last epoch or until validation stops improving, and restore the best weights.

        Told to stop, it writes a checkpoint after the step that it is in, and raises what `stop.leave` raises. Raises TrainingError
        when the loss is not finite or the GPU's memory is full.
        """
        stop = stop or StopRequest()
        progress = self._resume(checkpoints, show)
        with stop.deferred():
            while len(progress.history) < self._options.epochs and progress.stale < self._options.patience:
                epoch = self._within_memory(progress, checkpoints, show, stop)
                progress.begun = None
                progress.history.append(epoch)
                loss = epoch.train_loss if epoch.validation_loss is None else epoch.validation_loss
                if loss < progress.best_loss:
                    progress.best_loss, progress.best_epoch = loss, epoch.epoch
                    progress.best = copy.deepcopy(self.network.state_dict())
                self._save_when_due(progress, checkpoints, show, stop)
                show.line(str(epoch))
                self._leave_when_told(checkpoints, show, stop)
        self.network.load_state_dict(progress.best)
        return Fitted(progress.history, progress.best_epoch, self._stop_reason(progress))

    def predict(self, batches: Batches) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Return logits (N, K) and labels (N,) of a split, as the network is now."""
        self.network.eval()
        parts = []
        with torch.inference_mode():
            for images, _ in batches.in_order(2 * self._options.batch_size):
                with self._autocast():
                    parts.append(self.network(self._normalise(images)).float().cpu())
        return torch.cat(parts).numpy(), batches.labels.numpy()

    def _within_memory(self, progress: Progress, checkpoints: Checkpoints, show: TrainingProgress, stop: StopRequest) -> Epoch:
        try:
            return self._epoch(progress, checkpoints, show, stop)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"the GPU's memory is full in epoch {len(progress.history) + 1}; lower batch_size (it is {self._options.batch_size}) "
                "or choose a smaller architecture"
            ) from error

    def _epoch(self, progress: Progress, checkpoints: Checkpoints, show: TrainingProgress, stop: StopRequest) -> Epoch:
        number, options = len(progress.history) + 1, self._options
        begun = progress.begun = progress.begun or self._begin(number)
        started = time.perf_counter() - begun.seconds
        self.network.train()
        batches = self._train.shuffled(options.batch_size, (options.seed, number), self.steps, begun.steps)
        for images, labels in show.steps(batches, options.epochs * self.steps, (number - 1) * self.steps + begun.steps):
            begun.total += self._step(self._augmentation(self._normalise(images), begun.augmentation), labels)
            begun.steps += 1
            begun.seconds = time.perf_counter() - started
            if begun.steps < self.steps:
                self._save_when_due(progress, checkpoints, show, stop)
                self._leave_when_told(checkpoints, show, stop)
        train_loss = self._finite(begun.total.item() / self.steps, number)
        loss, accuracy = self._validate(number)
        return Epoch(number, train_loss, loss, accuracy, float(self._schedule.get_last_lr()[-1]), time.perf_counter() - started)

    def _begin(self, number: int) -> BegunEpoch:
        seed = _mix(self._options.seed, number)
        torch.manual_seed(seed)  # for dropout; set in each epoch, so that a resumed training draws the same numbers
        return BegunEpoch(torch.zeros((), device=self._device), torch.Generator().manual_seed(seed + 1))

    def _save_when_due(self, progress: Progress, checkpoints: Checkpoints, show: TrainingProgress, stop: StopRequest) -> None:
        if not stop.requested and not checkpoints.due(epoch_ended=progress.begun is None):
            return
        reached = self._reached(progress)
        if problem := checkpoints.save(self._state(progress), reached):
            show.line(f"warning: {problem}; the training goes on without a checkpoint of {reached}")

    def _leave_when_told(self, checkpoints: Checkpoints, show: TrainingProgress, stop: StopRequest) -> None:
        if stop.requested:
            if checkpoints.saved:
                show.line(f"stopped; the same training goes on after {checkpoints.saved} (checkpoint in {checkpoints.place})")
            stop.leave()

    def _reached(self, progress: Progress) -> str:
        if progress.begun is None:
            return f"epoch {len(progress.history)}"
        return f"step {progress.begun.steps} of {self.steps} in epoch {len(progress.history) + 1}"

    def _step(self, pictures: Tensor, labels: Tensor) -> Tensor:
        with self._autocast():
            loss = F.cross_entropy(self.network(pictures), labels, label_smoothing=self._options.label_smoothing)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._schedule.step()
        return loss.detach()

    def _validate(self, number: int) -> tuple[float | None, float | None]:
        if len(self._validation) == 0:
            return None, None
        logits, labels = self.predict(self._validation)
        loss = F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item()
        return self._finite(loss, number), float((logits.argmax(axis=1) == labels).mean())

    def _finite(self, loss: float, number: int) -> float:
        if not np.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} in epoch {number}: the training diverged; "
                f"lower learning_rate (it is {self._options.learning_rate:g}), or raise batch_size"
            )
        return loss

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, dtype=self._amp_type, enabled=self._amp_type is not None)

    def _state(self, progress: Progress) -> State:
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "history": [asdict(epoch) for epoch in progress.history],
            "best": progress.best,
            "best_epoch": progress.best_epoch,
            "best_loss": progress.best_loss,
            "begun": self._begun_state(progress.begun),
        }

    def _begun_state(self, begun: BegunEpoch | None) -> State | None:
        if begun is None:
            return None
        cuda = torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None
        random = {"augmentation": begun.augmentation.get_state(), "cpu": torch.get_rng_state(), "cuda": cuda}
        return {"total": begun.total, "steps": begun.steps, "seconds": begun.seconds, "random": random}

    def _resume(self, checkpoints: Checkpoints, show: TrainingProgress) -> Progress:
        state = checkpoints.load(self._device)
        if state is None:
            return Progress()
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])
        history = [Epoch(**epoch) for epoch in state["history"]]
        begun = self._resume_epoch(state["begun"])
        progress = Progress(history, state["best"], state["best_epoch"], state["best_loss"], begun)
        checkpoints.saved = self._reached(progress)
        show.line(f"note: resumed from the checkpoint of {checkpoints.saved}, in {checkpoints.place}")
        return progress

    def _resume_epoch(self, state: State | None) -> BegunEpoch | None:
        if state is None:
            return None
        random = state["random"]
        torch.set_rng_state(random["cpu"].cpu())
        if random["cuda"] is not None:
            torch.cuda.set_rng_state(random["cuda"].cpu(), self._device)
        generator = torch.Generator()
        generator.set_state(random["augmentation"].cpu())
        return BegunEpoch(state["total"], generator, state["steps"], state["seconds"])

    def _stop_reason(self, progress: Progress) -> str:
        if len(progress.history) >= self._options.epochs:
            return "all epochs were run"
        return f"no lower validation loss in {self._options.patience} epochs"


class Normalise(nn.Module):
    """Turns uint8 pictures (N, C, H, W) into floats of mean 0 and standard deviation 1, given those of pixels / 255."""

    def __init__(self, mean: list[float], std: list[float], device: torch.device) -> None:
        super().__init__()
        self._scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(1, -1, 1, 1)
        self._shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(1, -1, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Scale and shift."""
        return torch.addcmul(self._shift, images.float(), self._scale)


def _parameter_groups(network: nn.Module, options: TrainingSettings) -> list[dict[str, Any]]:
    parameters = list(network.parameters())
    if not options.pretrained:
        return [{"params": parameters, "lr": options.learning_rate}]
    # The pretrained layers are nearly right already: they learn ten times slower than the new last layer.
    head = parameters[-2:]
    return [{"params": parameters[:-2], "lr": options.learning_rate / 10}, {"params": head, "lr": options.learning_rate}]


def _amp_type(device: torch.device) -> torch.dtype | None:
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def _mix(seed: int, epoch: int) -> int:
    return seed * 100_003 + epoch * 2
