"""Sets known by name: scikit-learn's digits, which need no network, and those that torchvision downloads: MNIST and its kin, CIFAR-10."""

import os
import pickle
import queue
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.classifier.errors import DataError, one_line
from components.ingest.collection import NOT_GIVEN, SPLIT_CODE, Collection, from_arrays
from components.ingest.pixels import Log

ANSWER_SECONDS = 6
"""How long a server may take to answer at all."""
MAX_KNOWN_DUPLICATES = 0.01
"""Share of a test split that may also be in training: the published sets are what they are, and some have a few."""
STALL_SECONDS = 60
"""How long a download may stand still."""


@dataclass(frozen=True)
class _Published:
    """A set: torchvision's class, and the names of its classes where torchvision's own will not do."""

    torchvision_name: str
    classes: tuple[str, ...] = ()


SETS = {
    "mnist": _Published("MNIST", tuple("0123456789")),
    "fashion_mnist": _Published("FashionMNIST"),
    "kmnist": _Published("KMNIST"),
    "cifar10": _Published("CIFAR10"),
}


def load(name: str, log: Log) -> Collection:
    """Read digits, or a published set with its own train and test split, downloading it at the first time.

    Raises DataError within seconds when there is no network, saying what to do instead.
    """
    if name == "digits":
        return _digits()
    from torchvision import datasets

    published = SETS[name]
    factory = getattr(datasets, published.torchvision_name)
    root = cache_folder()
    parts = _open(factory, root, name, log)
    images = np.concatenate([_pixels(part.data) for part in parts])
    labels = np.concatenate([np.asarray(part.targets, np.int64) for part in parts])
    train, test = (len(part) for part in parts)
    given = np.repeat(np.array([SPLIT_CODE["train"], SPLIT_CODE["test"]], np.int8), [train, test])
    names = [*(f"{name}/train#{k}" for k in range(train)), *(f"{name}/test#{k}" for k in range(test))]
    collection = from_arrays(images, labels, list(published.classes or parts[0].classes), given, names)
    collection.known_duplicates = int(MAX_KNOWN_DUPLICATES * test)
    return collection


def cache_folder() -> Path:
    """Where downloads are kept: PENSTOCK_CACHE, else the user's cache folder, else (read-only home) the temporary folder."""
    if chosen := os.environ.get("PENSTOCK_CACHE"):
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME") or (f"{os.environ['HOME']}/.cache" if os.environ.get("HOME") else "")
    for folder in filter(None, (home, tempfile.gettempdir())):
        path = Path(folder) / "penstock" / "datasets"
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(path, os.W_OK):
            return path
    raise DataError("no folder can be written for downloads; set PENSTOCK_CACHE to one")


def _open(factory: Callable[..., Any], root: Path, name: str, log: Log) -> list[Any]:
    try:
        return [factory(root, train=train, download=False) for train in (True, False)]
    except (RuntimeError, OSError, ValueError, EOFError, AssertionError, pickle.UnpicklingError) as error:
        if "download=True" not in str(error):  # how torchvision says that nothing is there
            raise DataError(f"the files of {name} in {root} are damaged ({one_line(error)}); delete them and run again") from error
        log(f"downloading {name} to {root}")
    _check_network(getattr(factory, "mirrors", None) or [factory.url], name)  # type: ignore[attr-defined]
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        return [factory(root, train=train, download=True) for train in (True, False)]
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise DataError(f"{name} cannot be downloaded ({one_line(error)}); {_remedy(name)}") from error
    finally:
        socket.setdefaulttimeout(before)


def _check_network(addresses: list[str], name: str) -> None:
    """Ask all servers of a set at once for an answer, of whatever kind, before torchvision waits for one without a limit."""
    answers: queue.Queue[str] = queue.Queue()
    for address in addresses:
        threading.Thread(target=lambda url: answers.put(_ask(url)), args=(address,), daemon=True).start()
    reasons, until = [], time.monotonic() + ANSWER_SECONDS
    for _ in addresses:
        try:
            reason = answers.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            reason = f"nothing within {ANSWER_SECONDS} s"
        if not reason:
            return
        reasons.append(reason)
    raise DataError(f"{name} cannot be downloaded, no server answers ({'; '.join(reasons)}); {_remedy(name)}")


def _ask(address: str) -> str:
    """Why a server does not answer; "" when it does."""
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=ANSWER_SECONDS).close()
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError) as error:
        return f"{address.split('/')[2]}: {one_line(getattr(error, 'reason', error))}"
    return ""


def _remedy(name: str) -> str:
    files = "one folder of pictures per class" if name == "cifar10" else "its four IDX files (train-images-idx3-ubyte.gz …)"
    return f"download it elsewhere and give the folder with {files} as source=/path/to/{name}; source=digits needs no network"


def _pixels(data: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    array = np.asarray(data, dtype=np.uint8)
    return array[..., None] if array.ndim == 3 else array


def _digits() -> Collection:
    """Read the digits that scikit-learn bundles; their 17 levels of grey are spread over 0 to 255."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images * (255 / 16)).round().astype(np.uint8)[..., None]
    names = [f"digits#{k}" for k in range(len(images))]
    return from_arrays(images, data.target, [str(digit) for digit in range(10)], np.full(len(images), NOT_GIVEN, np.int8), names)
