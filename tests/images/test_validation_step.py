"""The step validate_serving in the image that serves: its own command, locked down, on sound and on unsound versions."""

from collections.abc import Callable
from pathlib import Path

import pytest

from components.registry import Registry
from components.registry.publication import publish_directory
from components.storage import open_store
from tests.images import engine, step
from tests.predictor.versions import NAME
from tests.storage.fixtures import ministack_server, new_address, use
from tests.storage.servers import Server
from tests.validate_serving.versions import CHANGES, copy_of, damage, published, write_sound

__all__ = ["ministack_server"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800), pytest.mark.xdist_group("images")]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sound(tmp_path_factory.mktemp("sound") / "bundle")


def test_a_sound_version_passes(predictor_image: str, sound_version: tuple[Path, str]) -> None:
    store, version = sound_version
    ran = step.run(predictor_image, step.command(version), *step.mount(store))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"digits {version} serves: 16 golden pictures agree by 5 ways in" in ran.stdout


@pytest.mark.parametrize(("change", "words"), CHANGES.items())
def test_a_version_that_is_not_what_was_evaluated_is_refused(
    predictor_image: str, sound: Path, tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    directory = copy_of(sound, tmp_path)
    change(directory)
    _, version = published(directory, tmp_path)
    ran = step.run(predictor_image, step.command(version), *step.mount(tmp_path / "store"))
    assert ran.returncode == 1
    assert "ServingError" in ran.stderr
    assert words in ran.stderr.splitlines()[-1]


def test_a_file_that_changed_since_is_refused(predictor_image: str, sound: Path, tmp_path: Path) -> None:
    registry, version = published(sound, tmp_path)
    damage(registry, version)
    ran = step.run(predictor_image, step.command(version), *step.mount(tmp_path / "store"))
    assert ran.returncode == 1
    assert "IntegrityError" in ran.stderr
    assert "model.onnx" in ran.stderr.splitlines()[-1]


def test_the_version_may_lie_on_s3(predictor_image: str, sound: Path, ministack_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    use(ministack_server, monkeypatch)
    store = new_address()
    version = publish_directory(Registry(open_store(store), NAME), sound).version
    settings = [option for pair in ministack_server.environment.items() for option in ("--env", "=".join(pair))]
    ran = step.run(predictor_image, step.command(version, store), *settings, network="host")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"digits {version} serves" in ran.stdout


def test_an_image_without_it_cannot_run_the_step(docker_engine: None, sound_version: tuple[Path, str]) -> None:
    store, version = sound_version
    ran = step.run(engine.BASE, step.command(version), *step.mount(store))
    assert ran.returncode != 0
    assert "No module named 'kfp'" in ran.stderr
