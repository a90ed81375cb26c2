"""What every peer does with a picture, so that only the servers differ: decode, one forward pass, label and confidence."""

import io
import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

PORT = int(os.environ.get("BENCH_PORT", "8080"))


class Forward:
    """The benchmark's model on one thread of onnxruntime, as the predictor runs it."""

    def __init__(self) -> None:
        directory = Path(os.environ["BENCH_MODEL"])
        config = json.loads((directory / "config.json").read_text())
        self.classes = config["classes"]
        self.shape = tuple(config["input"][side] for side in ("height", "width", "channels"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(directory / "model.onnx", options, providers=["CPUExecutionProvider"])

    def array(self, instances: list) -> np.ndarray:
        """Nested lists (N, H, W, C) as uint8."""
        return np.array(instances, dtype=np.uint8).reshape(-1, *self.shape)

    def raw(self, data: bytes) -> np.ndarray:
        """Bytes of uint8 pixels, as many pictures as they hold."""
        return np.frombuffer(data, np.uint8).reshape(-1, *self.shape)

    def png(self, data: bytes) -> np.ndarray:
        """One encoded picture as uint8 (1, H, W, C)."""
        height, width, channels = self.shape
        image = Image.open(io.BytesIO(data)).convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image, np.uint8).reshape(1, *self.shape)

    def answer(self, images: np.ndarray) -> tuple[list[str], list[float]]:
        """Labels and confidences, one a picture."""
        (probabilities,) = self.session.run(["probabilities"], {"image": np.ascontiguousarray(images)})
        best = probabilities.argmax(axis=1)
        return [self.classes[index] for index in best], probabilities[np.arange(len(best)), best].tolist()
