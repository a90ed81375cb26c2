"""Fixtures that several folders of tests share: a clean environment, and a tiny trained model."""

import os
import signal
from pathlib import Path

import hypothesis
import pytest

from components.bundle.dataset import Dataset
from tests import tiny

# Threads that wait do not spin: the tests share few cores, also with the processes that they start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background shell, whose children could not be interrupted
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("penstock", deadline=None)  # a busy machine is not a failure
hypothesis.settings.load_profile("penstock")


def pytest_configure() -> None:
    """Let COLUMNS count when a test sets it: rich's consoles keep that of their first import, and pytest-xdist's workers have one."""
    os.environ.pop("COLUMNS", None)
    import pipelines.cli.output  # noqa: F401


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one process of `pytest -n 4 --dist loadgroup` run the integration tests of a file, which share servers and trained models.

    What is marked `release` is an integration test too.
    """
    items.sort(key=lambda item: item.path.stem != "test_tutorial")  # the longest begins first, while others run beside it
    for item in items:
        if item.get_closest_marker("release"):
            item.add_marker(pytest.mark.integration)
        if item.get_closest_marker("integration") and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


_OURS = ("PENSTOCK_", "AWS_", "KFP_", "OPENLINEAGE_", "MLFLOW_", "HF_")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests leaks into them."""
    for name in [n for n in os.environ if n.startswith(_OURS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as train leaves it, of a model that knows digits (8x8, grey)."""
    return tiny.write_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="session")
def digits_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """scikit-learn's digits as ingest would write them."""
    return tiny.write_dataset(tmp_path_factory.mktemp("tiny") / "dataset")
