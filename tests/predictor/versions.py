"""Published model versions for the predictor's tests, and requests to it."""

import base64
import io
import json
import struct
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from components.bundle import files
from components.bundle.config import BundleConfig
from components.registry import Record, Registry
from components.registry.publication import publish_directory
from components.storage import open_store
from tests import tiny

NAME = "digits"
PREDICT, INFER = f"/v1/models/{NAME}:predict", f"/v2/models/{NAME}/infer"


def publish(folder: Path, **options: Any) -> tuple[Registry, str]:
    """Publish a tiny model into a store below `folder`; returns its registry and the version."""
    directory = tiny.write_bundle(folder / f"bundle-{options.get('seed', 0)}", **options)
    config = BundleConfig.load(directory)
    (directory / files.EVALUATION).write_text(json.dumps({"classes": config.classes}))
    registry = Registry(open_store(str(folder / "store")), NAME)
    return registry, publish_directory(registry, directory).version


def model_dir(folder: Path, **options: Any) -> Path:
    """Publish a tiny model and fetch it, as KServe's storage initializer would."""
    registry, version = publish(folder, **options)
    return registry.fetch(version, folder / "models")


def promote(registry: Registry, version: str) -> None:
    """Make a version the champion."""
    registry.ledger.append(Record(action="deployed", version=version, champion=version, strategy="manual"))


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def tensor(shape: list[int], datatype: str = "UINT8", **more: Any) -> dict[str, Any]:
    return {"name": "image", "shape": shape, "datatype": datatype, **more}


def binary(header: dict[str, Any], raw: bytes, length: Any = None) -> dict[str, Any]:
    """What httpx needs to send a JSON header with binary data behind it; `length` replaces the true header length."""
    head = json.dumps(header).encode()
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": length if isinstance(length, bytes) else str(len(head) if length is None else length),
    }
    return {"content": head + raw, "headers": headers}


def elements(*data: bytes) -> bytes:
    """BYTES elements, each with its length before it."""
    return b"".join(struct.pack("<I", len(item)) + item for item in data)


def error_of(response: httpx.Response, status: int | tuple[int, ...] = 400) -> str:
    """The message of a refused request; checks its status and form on the way."""
    wanted = (status,) if isinstance(status, int) else status
    assert response.status_code in wanted, response.text
    document = response.json()
    assert list(document) == ["error"]
    message: str = document["error"]
    assert message
    assert "\n" not in message
    assert "Traceback" not in message
    assert "/" not in message.replace("/v2/models/NAME/infer", "").replace("application/json", "").replace("/docs", "")
    return message
