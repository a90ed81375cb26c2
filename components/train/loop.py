"""The training loop: cycles of the learning rate, averaged weights of which the best are kept, early stopping, checkpoints."""

import copy
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.bundle.training import Epoch
from components.classifier.device import fast_type
from components.classifier.errors import TrainingError
from components.classifier.progress import TrainingProgress
from components.classifier.stopping import StopRequest
from components.settings.training import MAX_EPOCHS, TrainingSettings
from components.train import auto_epochs
from components.train.augmentation import Augmentation
from components.train.batch_norm import WholeBatch, is_synchronised
from components.train.batches import Batch, Batches, Normalise, weighted_loss
from components.train.checkpoint import Checkpoints, State
from components.train.distributed import ALONE, Group
from components.train.optimisation import WeightAverage, freeze, is_frozen, learning_body, make_optimizer, relative_rate, set_rate
from components.train.temperature import calibrated_losses, clearly_worse

MIN_STEPS_PER_EPOCH = 60
"""Small sets are repeated with new augmentation until an epoch has this many steps."""

GRADIENT_NORM = 5.0
AVERAGED_FRACTION = 0.04
"""The part of all steps of a cycle over which weights are averaged, between 10 and 250 steps."""
_NO_MEMORY = "can't allocate memory"
"""Part of what torch says when the machine's memory, not a GPU's, is full."""


@dataclass
class Progress:
    """How far a training has come, as the checkpoint stores it."""

    cycle: int = 0
    """Epochs of the cycle that goes on, 0 before the first; within a time budget there is one without an end."""
    cycle_start: int = 0
    """Epochs before it."""
    history: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    kept: list[int] = field(default_factory=list)
    """After each epoch, the one whose weights were kept."""
    lowest: npt.NDArray[np.float64] = field(default_factory=lambda: np.array([np.inf]))
    """Losses of the epoch with the lowest mean: of the validation pictures after calibration, or the one of the training."""
    begun: "BegunEpoch | None" = None

    @property
    def best_epoch(self) -> int:
        """Return the epoch whose weights are kept, 0 before the first."""
        return self.kept[-1] if self.kept else 0

    @property
    def stale(self) -> int:
        """Return the number of epochs of this cycle since the one whose weights are kept."""
        return len(self.history) - max(self.best_epoch, self.cycle_start)

    @property
    def seconds(self) -> float:
        """Return how long the epochs took, with the one that goes on."""
        return sum(epoch.seconds for epoch in self.history) + (self.begun.seconds if self.begun else 0.0)


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
    kept: list[int]
    """After each epoch, the one whose weights were kept."""
    stop_reason: str
    advice: str = ""
    """What would help next time."""

    @property
    def best_epoch(self) -> int:
        """Return the epoch whose weights were kept at the end."""
        return self.kept[-1]


class Trainer:
    """Fits one network to one dataset.

    On a CPU the same seed, inputs, number of threads and of processes give the same weights, also after an interruption.
    """

    def __init__(
        self,
        network: nn.Module,
        normalise: Normalise,
        train: Batches,
        validation: Batches,
        augmentation: Augmentation,
        options: TrainingSettings,
        device: torch.device,
        class_weights: Tensor | None = None,
        group: Group = ALONE,
    ) -> None:
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._normalise = normalise
        self._train, self._validation = train, validation
        self._augmentation = augmentation
        self._options, self._device, self._seconds = options, device, options.budget_seconds
        self._losses: npt.NDArray[np.float64] | None = None
        """Of the validation pictures in the last epoch, after calibration; None where there are none."""
        self._class_weights = None if class_weights is None else class_weights.to(device)
        self._group = group
        self._body = learning_body(self.network)
        self._freeze(options.frozen > 0)
        self.steps = max(train.per_pass(options.batch_size), MIN_STEPS_PER_EPOCH)
        self._optimizer = make_optimizer(network, options)
        self._average = WeightAverage(self.network)
        self._amp_type = fast_type(device, options.precision)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._amp_type == torch.float16)

    def fit(self, checkpoints: Checkpoints, show: TrainingProgress, stop: StopRequest | None = None, until: int | None = None) -> Fitted:
        """Train until the last epoch or until validation stops improving, and restore the best weights.

        `until`: pause after this many epochs, with a checkpoint from which the same training goes on later. Told to stop, it writes a
        checkpoint after the step that it is in, and raises what `stop.leave` raises. Raises TrainingError when the loss is not finite or
        the GPU's memory is full.
        """
        stop = stop or StopRequest()
        progress = self._resume(checkpoints, show)
        with stop.deferred():
            while (until is None or len(progress.history) < until) and self._continues(progress, show):
                epoch = self._within_memory(progress, checkpoints, show, stop)
                progress.begun = None
                progress.history.append(epoch)
                self._choose(progress, epoch)
                _, due = self._agree(epoch.seconds, len(progress.history) == until or checkpoints.due(epoch_ended=True), stop)
                self._save(progress, checkpoints, show, due=due)
                show.line(str(epoch))
                self._leave_when_told(checkpoints, show, stop)
            # a store gets one every few minutes only, and what follows takes the most memory
            self._save(progress, checkpoints, show, due=checkpoints.saved != self._reached(progress))
        self._called, self._group = self.network, self._group.leave()
        self.network.load_state_dict(progress.best)
        classes = len(torch.unique(self._validation.labels))
        told = progress.history, progress.best_epoch, len(self._validation), classes, self._stale(progress), self._options.time_budget
        advice = auto_epochs.advice(*told)
        return Fitted(progress.history, progress.kept, self._stop_reason(progress), advice)

    def _freeze(self, frozen: bool) -> None:
        """Let only the last layer learn, or all; the gradients that are averaged over processes are those of what learns."""
        self._frozen = frozen
        freeze(self.network, self._body, frozen)
        self._called = self._group.wrap(self.network)

    def _choose(self, progress: Progress, epoch: Epoch) -> None:
        """Keep the weights of the last epoch that is not clearly worse than the one with the lowest loss.

        Where few pictures validate, the lowest loss is often one of the first epochs' by chance, or because those are less sure, which
        calibration evens out: so losses are compared after it, picture by picture, and among equals the lower learning rate counts.
        """
        losses = np.array([epoch.train_loss]) if self._losses is None else self._losses
        lower = bool(losses.mean() < progress.lowest.mean())
        keep = lower or not clearly_worse(losses, progress.lowest)
        progress.kept.append(epoch.epoch if keep else progress.best_epoch)
        if keep:
            progress.best = copy.deepcopy(self._average.network.state_dict())
        if lower:
            progress.lowest = losses

    def _continues(self, progress: Progress, show: TrainingProgress) -> bool:
        """Say whether another epoch follows, which may begin a cycle."""
        if self._seconds is not None:
            if progress.cycle == 0:
                self._start_cycle(progress, MAX_EPOCHS)
            return progress.seconds < self._seconds
        if self._stale(progress):
            return False
        if len(progress.history) < progress.cycle_start + progress.cycle:
            return True
        more = self._next_cycle(progress)
        if more and progress.history:
            wrong = f"more than {auto_epochs.GOOD_ERROR:.0%} of the validation pictures are misclassified"
            show.line(f"note: epochs=auto: {wrong}, {more} epochs follow")
        if more:
            self._start_cycle(progress, more)
        return more > 0

    def _next_cycle(self, progress: Progress) -> int:
        if isinstance(self._options.epochs, int):
            return 0 if progress.history else self._options.epochs
        return auto_epochs.next_cycle(progress.history, progress.best_epoch, len(self._validation))

    def _start_cycle(self, progress: Progress, epochs: int) -> None:
        progress.cycle_start, progress.cycle = len(progress.history), epochs
        self._prepare(progress)

    def _prepare(self, progress: Progress) -> None:
        """Make what a cycle begins with: a new optimizer, and an average of the weights."""
        self._optimizer = make_optimizer(self.network, self._options)
        horizon = min(max(AVERAGED_FRACTION * progress.cycle * self.steps, 10), 250)
        self._average.restart(horizon)

    def _stale(self, progress: Progress) -> bool:
        return self._seconds is None and progress.stale >= self._options.patience

    def predict(self, batches: Batches) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Return logits (N, K) and labels (N,) of a split, as the network is now."""
        return self._predict(self.network, batches)

    def _predict(self, network: nn.Module, batches: Batches) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        network.eval()
        parts = []
        with torch.inference_mode():
            for images, _ in batches.in_order(2 * self._options.batch_size, self._group):
                with self._autocast():
                    parts.append(network(self._normalise(images)).float().cpu())
        return self._group.gather(torch.cat(parts).numpy(), len(batches)), batches.labels.numpy()

    def _within_memory(self, progress: Progress, checkpoints: Checkpoints, show: TrainingProgress, stop: StopRequest) -> Epoch:
        try:
            return self._epoch(progress, checkpoints, show, stop)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError) and _NO_MEMORY not in str(error):
                raise
            whose = "memory" if self._device.type == "cpu" else "the GPU's memory"
            raise TrainingError(
                f"{whose} is full in epoch {len(progress.history) + 1}; lower batch_size (it is {self._options.batch_size}), "
                "ingest.image_size or width, or choose a smaller architecture"
            ) from error

    def _epoch(self, progress: Progress, checkpoints: Checkpoints, show: TrainingProgress, stop: StopRequest) -> Epoch:
        number, options = len(progress.history) + 1, self._options
        begun = progress.begun = progress.begun or self._begin(number)
        started = time.perf_counter() - begun.seconds
        freeze(self.network, self._body, self._frozen)
        batches = self._train.shuffled(options.batch_size, (options.seed, number), self.steps, begun.steps)
        first = (number - 1) * self.steps + begun.steps
        for batch in show.steps(batches, self._expected_steps(progress, first), first):
            if is_frozen(options.frozen, progress.cycle_start, self._done(progress)) != self._frozen:
                self._freeze(not self._frozen)
            rate = set_rate(self._optimizer, relative_rate(options.scheduler, self._done(progress)))
            if self._group.size > 1:  # each process drops other features, and the same ones after an interruption
                torch.manual_seed(_mix(options.seed, number) + begun.steps * self._group.size + self._group.rank)
            pictures = self._augmentation(self._normalise(batch.images), begun.augmentation, self._group, batch.whole)
            begun.total += self._step(pictures, batch)
            begun.steps += 1
            self._average.update((number - 1 - progress.cycle_start) * self.steps + begun.steps)
            begun.seconds, due = self._agree(time.perf_counter() - started, checkpoints.due(epoch_ended=False), stop)
            if self._done(progress) >= 1:
                break
            if begun.steps < self.steps:
                self._save(progress, checkpoints, show, due=due)
                self._leave_when_told(checkpoints, show, stop)
        train_loss = self._finite(self._group.mean(begun.total).item() / begun.steps, number)
        loss, accuracy = self._validate(number)
        seconds, _ = self._agree(time.perf_counter() - started, False, stop)
        return Epoch(number, train_loss, loss, accuracy, rate, seconds)

    def _expected_steps(self, progress: Progress, done: int) -> int:
        """Return how many steps the whole training will have as far as is known: within a time budget, at the speed so far."""
        if self._seconds is None:
            return (progress.cycle_start + progress.cycle) * self.steps
        return round(done / self._done(progress)) if done else self.steps

    def _done(self, progress: Progress) -> float:
        """Return how much of the cycle has passed, from 0 to 1: of its time where there is a budget, otherwise of its steps."""
        if self._seconds is not None:
            return progress.seconds / self._seconds
        begun = progress.begun.steps if progress.begun else 0
        return ((len(progress.history) - progress.cycle_start) * self.steps + begun) / (progress.cycle * self.steps)

    def _begin(self, number: int) -> BegunEpoch:
        seed = _mix(self._options.seed, number)
        torch.manual_seed(seed)  # for dropout; set in each epoch, so that a resumed training draws the same numbers
        return BegunEpoch(torch.zeros((), device=self._device), torch.Generator().manual_seed(seed + 1))

    def _agree(self, seconds: float, due: bool, stop: StopRequest) -> tuple[float, bool]:
        """Return what holds for all processes: how long the epoch took so far, and whether a checkpoint is due; one's signal is all's."""
        seconds, due_at_one, number = self._group.largest(seconds, due, stop.number)
        stop.follow(int(number))
        return seconds, bool(due_at_one) or stop.requested

    def _save(self, progress: Progress, checkpoints: Checkpoints, show: TrainingProgress, *, due: bool) -> None:
        if not due:
            return
        if progress.begun is not None:
            progress.begun.total = self._group.mean(progress.begun.total)
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

    def _step(self, pictures: Tensor, batch: Batch) -> Tensor:
        options = self._options
        with self._autocast(), WholeBatch() if is_synchronised(options, self._group.size) else nullcontext():
            logits = self._called(pictures)
            loss = weighted_loss(logits, batch.labels, batch.weights, self._class_weights, options.label_smoothing, self._group)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss.detach()

    def _validate(self, number: int) -> tuple[float | None, float | None]:
        if len(self._validation) == 0:
            return None, None
        logits, labels = self._predict(self._average.network, self._validation)
        loss = F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item()
        loss = self._finite(loss, number)
        self._losses = calibrated_losses(logits, labels)
        return loss, float((logits.argmax(axis=1) == labels).mean())

    def _finite(self, loss: float, number: int) -> float:
        if not np.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} in epoch {number}: the training diverged; "
                f"lower learning_rate (it is {self._options.learning_rate:g}), or raise batch_size (it is {self._options.batch_size})"
            )
        return loss

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, dtype=self._amp_type, enabled=self._amp_type is not None)

    def _state(self, progress: Progress) -> State:
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": self._average.network.state_dict(),
            "scaler": self._scaler.state_dict(),
            "history": [asdict(epoch) for epoch in progress.history],
            "best": progress.best,
            "kept": progress.kept,
            "lowest": torch.from_numpy(progress.lowest),
            "cycle": progress.cycle,
            "cycle_start": progress.cycle_start,
            "begun": self._begun_state(progress.begun),
        }

    def _begun_state(self, begun: BegunEpoch | None) -> State | None:
        if begun is None:
            return None
        cuda = torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None
        random = {"augmentation": begun.augmentation.get_state(), "cpu": torch.get_rng_state(), "cuda": cuda}
        return {"total": begun.total, "steps": begun.steps, "seconds": begun.seconds, "random": random}

    def _resume(self, checkpoints: Checkpoints, show: TrainingProgress) -> Progress:
        state = checkpoints.load(self._device, show.line)
        if state is None:
            return Progress()
        history = [Epoch(**epoch) for epoch in state["history"]]
        begun = self._resume_epoch(state["begun"])
        progress = Progress(
            state["cycle"], state["cycle_start"], history, state["best"], state["kept"], state["lowest"].cpu().numpy(), begun
        )
        self._prepare(progress)
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._average.network.load_state_dict(state["average"])
        self._scaler.load_state_dict(state["scaler"])
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
        if self._seconds is not None:
            return f"the time budget of {self._options.time_budget} is used up"
        if self._stale(progress):
            return f"the validation loss was clearly higher for {self._options.patience} epochs"
        return "all epochs were run"


def _mix(seed: int, epoch: int) -> int:
    return seed * 100_003 + epoch * 2
