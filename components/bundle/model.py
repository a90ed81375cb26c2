"""The only forward path: evaluation, batch scoring and the predictor all run a bundle through `Classifier`."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

from components.bundle.accelerator import BoundRunner, device_of, open_session
from components.bundle.config import BundleConfig
from components.bundle.files import FAMILIARITY, INPUT_NAME, ONNX, OUTPUT_NAME
from components.classifier.cpu import available_cpus
from components.classifier.errors import IntegrityError, UsageError, first_line
from components.classifier.images import ImageSpec, Pixels

Probabilities = npt.NDArray[np.float32]


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
