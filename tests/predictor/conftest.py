"""Running predictors that the tests share: starting one takes seconds."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from components.bundle.model import Classifier
from components.validate_serving.predictor_process import PredictorProcess, predictor
from tests import tiny
from tests.predictor.versions import NAME, model_dir


@pytest.fixture(scope="session")
def served_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published model version's folder (digits, 8x8, grey)."""
    return model_dir(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def server(served_dir: Path) -> Iterator[tuple[PredictorProcess, str]]:
    """The predictor with its defaults: the process and its address."""
    with predictor(NAME, served_dir, 60) as (process, started):
        yield process, started.url


@pytest.fixture(scope="session")
def url(server: tuple[PredictorProcess, str]) -> str:
    return server[1]


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
def strict_url(served_dir: Path) -> Iterator[str]:
    """A predictor with small limits."""
    limits = {"max_body_bytes": 20_000, "max_images": 4, "max_pixels": 10_000, "header_timeout": 1, "body_timeout": 2, "keep_alive": 2}
    options = [text for name, value in limits.items() for text in (f"--{name}", str(value))]
    with predictor(NAME, served_dir, 60, *options) as (_, started):
        yield started.url


@pytest.fixture(scope="session")
def pictures() -> np.ndarray:
    """Twelve digits, uint8 (12, 8, 8, 1)."""
    return tiny.digits()[0][:12]


@pytest.fixture(scope="session")
def expected(served_dir: Path, pictures: np.ndarray) -> np.ndarray:
    """Their probabilities, as the one forward path gives them."""
    return Classifier(served_dir, threads=1).probabilities(pictures)
