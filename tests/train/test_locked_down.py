"""The step in a pod that locks it down: a number for a user, nothing writable but /tmp, hardly any shared memory."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.bundle import files
from components.bundle.dataset import Dataset
from components.train import prepare_environment

ROOT = Path(__file__).resolve().parents[2]
UID = 123456
CLOSED = ["/proc", "/usr", "/var/lib/docker", str(ROOT / ".venv")]
"""Large trees of root's, into which nobody else can write."""

STEP = """
import getpass, sys
from kfp import dsl
from components.train.component import train_model
data, out = sys.argv[1:]
print(train_model.python_func(
    dataset=dsl.Dataset(uri=data), dataset_digest="", model=dsl.Model(uri=f"{out}/model"), metrics=dsl.Metrics(uri=f"{out}/metrics"),
    curves=dsl.HTML(uri=f"{out}/curves"),
    name="digits", epochs=1, architecture="mobilenet_v3_small"))
print("user", getpass.getuser())
"""

pytestmark = pytest.mark.integration


@pytest.fixture
def shared(digits_dataset: Dataset) -> Iterator[tuple[Path, Path]]:
    """The digits where anyone may read them, and a folder where anyone may write."""
    with tempfile.TemporaryDirectory(prefix="penstock-test-", dir="/tmp") as name:
        folder = Path(name)
        shutil.copytree(digits_dataset.path, folder / "data")
        (folder / "out").mkdir()
        (folder / "out").chmod(0o777)
        subprocess.run(["chmod", "-R", "a+rX", name], check=True)
        yield folder / "data", folder / "out"


@pytest.mark.skipif(
    os.getuid() != 0 or not (shutil.which("setpriv") and shutil.which("unshare")), reason="only root can become another user"
)
@pytest.mark.timeout(900)
def test_a_user_without_account_and_home_and_one_megabyte_of_shared_memory(shared: tuple[Path, Path]) -> None:
    """One training meets all of it; mobilenet_v3_small, because torchvision is loaded for it too."""
    data, out = shared
    small = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"', "sh"]
    # The interpreter may lie in root's home: this user may read all there is, and write what anyone may.
    user = [
        "setpriv",
        f"--reuid={UID}",
        f"--regid={UID}",
        "--clear-groups",
        "--inh-caps=+dac_read_search",
        "--ambient-caps=+dac_read_search",
    ]
    environment = {"PATH": os.environ["PATH"], "HOME": "/", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*small, *user, sys.executable, "-B", "-c", STEP, str(data), str(out)]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"cpu\nuser uid{UID}" in done.stdout
    assert {path.name for path in (out / "model").iterdir()} == set(files.TRAINED_FILES)
    assert (out / "model").stat().st_uid == UID
    pruned = [part for path in CLOSED for part in ("-path", path, "-prune", "-o")]
    written = subprocess.run(["find", "/", "-xdev", *pruned, "-uid", str(UID), "-print"], capture_output=True, text=True, check=False)
    places = {Path(line) for line in written.stdout.splitlines()}
    assert places
    assert all(place.is_relative_to("/tmp") for place in places), "nothing is written elsewhere"
    shutil.rmtree(f"/tmp/penstock-{UID}", ignore_errors=True)


def test_a_writable_home_and_settings_of_the_user_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    prepare_environment()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    assert "XDG_CACHE_HOME" not in os.environ
