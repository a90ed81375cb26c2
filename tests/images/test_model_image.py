"""A version's image as KServe mounts it: loaded into Docker, and beside the predictor as a modelcar."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.integrations.model_image import write_image
from components.registry import Registry
from components.storage import open_store
from tests.images import engine
from tests.predictor.versions import NAME

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800), pytest.mark.xdist_group("images")]

MODELCAR = ("sh", "-c", "ln -sf /proc/$$/root/models /mnt/models && sleep infinity")
"""The arguments that KServe gives to a modelcar."""


@pytest.fixture(scope="module")
def model_image(docker_engine: None, sound_version: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store, version = sound_version
    folder = tmp_path_factory.mktemp("image")
    (folder / "layout").mkdir()
    write_image(Registry(open_store(str(store)), NAME), version, folder / "layout").archive(folder / "image.tar")
    engine.docker("load", "--input", str(folder / "image.tar"))
    yield f"{NAME}:{version}"
    engine.docker("rmi", "--force", f"{NAME}:{version}")


def test_docker_loads_the_versions_files_byte_for_byte(model_image: str, sound_version: tuple[Path, str], tmp_path: Path) -> None:
    store, version = sound_version
    published = Registry(open_store(str(store)), NAME).fetch(version, tmp_path / "version")
    it = engine.docker("create", model_image).strip()
    try:
        engine.docker("cp", f"{it}:/models", str(tmp_path / "found"))
    finally:
        engine.docker("rm", it)
    files = {path.name: path.read_bytes() for path in (tmp_path / "found").iterdir()}
    assert files == {path.name: path.read_bytes() for path in published.iterdir()}
    assert engine.inspect(model_image)["Config"]["User"] == "65532:65532"


def test_the_predictor_serves_from_a_modelcar_that_starts_after_it(
    model_image: str, predictor_image: str, sound_version: tuple[Path, str], tmp_path: Path
) -> None:
    """The two containers of such a pod: one space of processes, a folder of both, no capabilities, and the link made last."""
    shared = tmp_path / "mnt"
    shared.mkdir()
    shared.chmod(0o777)
    options = (*engine.LOCKED_DOWN, "--volume", f"{shared}:/mnt")
    with engine.container(predictor_image, "--model_name", NAME, options=(*options, "--env", "MODEL_INIT_MODE=async")) as predictor:
        time.sleep(2)  # as long as the predictor's own start: it may look before there is anything
        with engine.container(model_image, *MODELCAR, options=(*options, "--pid", f"container:{predictor}")):
            deadline = time.monotonic() + 60
            while '"event": "serving"' not in engine.logs(predictor) and time.monotonic() < deadline:
                time.sleep(0.2)
            said = [json.loads(line) for line in engine.logs(predictor).splitlines() if line.startswith("{")]
    assert [line["version"] for line in said if line["event"] == "serving"] == [sound_version[1]]
