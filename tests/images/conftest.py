"""Images built once for all tests that look at them, and a model version as KServe's storage initializer leaves it."""

import os
from pathlib import Path

import pytest

from tests.images import engine
from tests.predictor.versions import model_dir
from tests.validate_serving.versions import published, write_sound

INITIALIZER = 1000
"""The user to whom KServe's storage initializer leaves the files."""


@pytest.fixture(scope="session")
def docker_engine() -> None:
    if reason := engine.reason_to_skip():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def predictor_image(docker_engine: None) -> str:
    return engine.build("predictor", "--build-arg", "REVISION=abc1234", "--build-arg", "CREATED=2026-01-02T03:04:05Z")


@pytest.fixture(scope="session")
def pipeline_image(docker_engine: None) -> str:
    return engine.build("pipeline")


@pytest.fixture(scope="session")
def sound_version(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store with one version in it, and the version."""
    folder = tmp_path_factory.mktemp("store")
    _, version = published(write_sound(folder / "bundle"), folder)
    return folder / "store", version


@pytest.fixture(scope="session")
def version_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = model_dir(tmp_path_factory.mktemp("image"))
    if os.getuid() == 0:
        for path in (folder, *folder.iterdir()):
            os.chown(path, INITIALIZER, INITIALIZER)
    return folder
