"""validate_serving boots the real predictor: a sound version passes, and each kind of unsound one is named."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.bundle import files
from components.classifier.errors import IntegrityError, ServingError, VersionNotFound
from components.validate_serving.predictor_process import PredictorProcess
from components.validate_serving.validation import validate, validate_version
from tests.predictor.versions import NAME
from tests.validate_serving.versions import CHANGES, copy_of, damage, published, write_sound


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with all that is published, before publishing."""
    return write_sound(tmp_path_factory.mktemp("sound") / "bundle")


def children() -> set[str]:
    """Processes of this one that run the predictor."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if parent == str(os.getpid()) and b"components.predictor" in (folder / "cmdline").read_bytes():
                found.add(folder.name)
        except OSError:
            continue  # it ended just now
    return found


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Whatever a test does, the predictors that it started are gone afterwards."""
    before = children()
    yield
    assert children() == before


def test_a_sound_version_passes_and_is_measured(sound: Path, tmp_path: Path) -> None:
    _, version = published(sound, tmp_path)
    report = validate_version(version, str(tmp_path / "store"), NAME, 5_000, tmp_path / "report.md")
    assert report.version == version
    assert len(report.differences) == 5
    assert max(report.differences.values()) <= 1e-6
    assert 0 < report.latency_median <= report.latency_p95 < 5
    assert 0 < report.cold_start < 60
    assert 20 < report.memory / 2**20 < 500
    page = (tmp_path / "report.md").read_text()
    for word in (version, "95th percentile", "process start to ready", "memory", "V2, binary"):
        assert word in page
    assert report.metadata()["memory_mib"] > 20


@pytest.mark.parametrize(("change", "words"), CHANGES.items())
def test_a_version_that_is_not_what_was_evaluated_is_blocked(sound: Path, tmp_path: Path, change, words: str) -> None:
    directory = copy_of(sound, tmp_path)
    change(directory)
    _, version = published(directory, tmp_path)
    with pytest.raises(ServingError, match=words):
        validate_version(version, str(tmp_path / "store"), NAME)


def test_a_file_that_changed_since_is_named(sound: Path, tmp_path: Path) -> None:
    registry, version = published(sound, tmp_path)
    folder = registry.fetch(version, tmp_path / "models")
    damage(registry, version)
    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        validate_version(version, str(tmp_path / "store"), NAME)
    (folder / files.ONNX).chmod(0o644)
    (folder / files.ONNX).write_bytes(b"x")
    with pytest.raises(ServingError, match=r"model\.onnx"):
        validate(folder, NAME)


def test_an_unknown_version_is_told(sound: Path, tmp_path: Path) -> None:
    published(sound, tmp_path)
    with pytest.raises(VersionNotFound):
        validate_version("20200101-000000-000000000000", str(tmp_path / "store"), NAME)


def test_a_version_that_is_too_slow_is_blocked(sound: Path, tmp_path: Path) -> None:
    _, version = published(sound, tmp_path)
    with pytest.raises(ServingError, match=r"budget is 0\.001 ms"):
        validate_version(version, str(tmp_path / "store"), NAME, 0.001)


def test_the_predictor_goes_when_its_parent_is_killed(sound: Path, tmp_path: Path) -> None:
    registry, version = published(sound, tmp_path)
    folder = registry.fetch(version, tmp_path / "models")
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom components.validate_serving.predictor_process import PredictorProcess\n"
        "with PredictorProcess('digits', Path(sys.argv[1])) as process:\n    process.wait(60)\n"
        "    print(process.process.pid, flush=True)\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_predictor_that_takes_too_long_is_told_and_ended(sound: Path, tmp_path: Path) -> None:
    registry, version = published(sound, tmp_path)
    folder = registry.fetch(version, tmp_path / "models")
    with PredictorProcess(NAME, folder) as process, pytest.raises(ServingError, match=r"not ready within 0\.1 s"):
        process.wait(0.1)
