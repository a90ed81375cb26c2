"""Others' own ways to score the same PNGs with the same model; each is called in a process of its own and returns how many it answered.

The answers of each go to memory only, where the product writes them with names and reasons.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, read_image

from components.bundle.model import Classifier
from components.classifier.cpu import available_cpus
from components.classifier.images import ImageSpec
from components.classifier.network import build

BATCH = 64


def torch_eager(png: str, _tars: str, _bundle: str) -> int:
    """The loop of most tutorials: Pillow, then torch in eager mode, batch after batch."""
    network, count = build("small_cnn", ImageSpec(28, 28, 1), 10).eval(), 0
    files = sorted(Path(png).rglob("*.png"))
    with torch.inference_mode():
        for start in range(0, len(files), BATCH):
            batch = np.stack([np.asarray(Image.open(path)) for path in files[start : start + BATCH]])
            count += len(network((torch.from_numpy(batch)[:, None].float() / 255 - 0.5) / 0.25))
    return count


class _Pictures(Dataset[torch.Tensor]):
    def __init__(self, png: str) -> None:
        self._files = [str(path) for path in sorted(Path(png).rglob("*.png"))]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> torch.Tensor:
        return read_image(self._files[number], ImageReadMode.GRAY)


def torchvision_loader(png: str, _tars: str, bundle: str) -> int:
    """`read_image` in torch's DataLoader with a process per CPU, then onnxruntime."""
    model = Classifier(Path(bundle))
    loader = DataLoader(_Pictures(png), batch_size=BATCH, num_workers=available_cpus())
    return sum(len(model.probabilities(batch.permute(0, 2, 3, 1).numpy(), BATCH)) for batch in loader)


def web_dataset(_png: str, tars: str, bundle: str) -> int:
    """webdataset over tars in torch's DataLoader with a process per CPU, then onnxruntime."""
    import webdataset

    model = Classifier(Path(bundle))
    shards = sorted(map(str, Path(tars).glob("*.tar")))
    pictures = webdataset.WebDataset(shards, shardshuffle=False).decode("l8").to_tuple("png").batched(BATCH)
    loader = DataLoader(pictures, batch_size=None, num_workers=min(available_cpus(), len(shards)))
    return sum(len(model.probabilities(np.asarray(batch[0])[..., None], BATCH)) for batch in loader)


def ray_data(png: str, _tars: str, bundle: str) -> int:
    """Ray Data's own way: read_images, then actors that hold the model, on a cluster of this machine."""
    import ray

    ray.init("local", num_cpus=max(2, available_cpus()), include_dashboard=False, log_to_driver=False)
    rows = ray.data.read_images(png, mode="L").map_batches(
        _RayModel, batch_size=BATCH, compute=ray.data.ActorPoolStrategy(size=1), fn_constructor_args=[bundle]
    )
    count = sum(len(batch["label"]) for batch in rows.iter_batches(batch_size=4096))
    ray.shutdown()
    return count


class _RayModel:
    def __init__(self, bundle: str) -> None:
        self._model = Classifier(Path(bundle), threads=1)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"label": self._model.probabilities(batch["image"][..., None], BATCH).argmax(1)}


PEERS = {"torch eager": torch_eager, "torchvision": torchvision_loader, "webdataset": web_dataset, "ray data": ray_data}

if __name__ == "__main__":
    name, images, *places = sys.argv[1:]
    assert PEERS[name](*places) == int(images)
