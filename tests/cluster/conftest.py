"""A cluster for the rollout's tests, and what of it is missing.

KUBECONFIG names it. Where KServe's controller does not run in it, the stand-in of `controller.py` is started; where it has no node,
`kubelet.py` too. Nothing else differs, so that the tests say the same of a cluster with the real KServe.

CLUSTER_TESTS_IMAGE: the predictor's image as the nodes have it. CLUSTER_TESTS_S3_HOST: this machine's address as the pods see it.
"""

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.api import Api
from tests.cluster.place import Place, new_namespace
from tests.storage.servers import Server, ministack
from tests.tiny import write_bundle

KUBECONFIG = os.environ.get("KUBECONFIG", "")
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = "needs a cluster: set KUBECONFIG to an administrator's of one that is for tests (docs/rollout.md says how with kind)"
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.integration)
            item.add_marker(pytest.mark.xdist_group("cluster"))
            if not KUBECONFIG:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def administrator() -> Api:
    return Api(KUBECONFIG)


def _start(module: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", module, KUBECONFIG], stdout=output, stderr=subprocess.STDOUT)
    end = time.monotonic() + 60
    while b"ready" not in log.read_bytes():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, f"{module} does not start; see {log}"
        time.sleep(0.1)
    return process


@pytest.fixture(scope="session")
def real_kserve(administrator: Api) -> bool:
    deployments = administrator.ask("GET", "/apis/apps/v1/deployments")["items"]
    return any(d["metadata"]["name"] == "kserve-controller-manager" for d in deployments)


@pytest.fixture(scope="session")
def real_nodes(administrator: Api) -> bool:
    return bool(administrator.ask("GET", "/api/v1/nodes")["items"])


@pytest.fixture(scope="session")
def running(administrator: Api, real_kserve: bool, real_nodes: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the cluster lacks, started; the folder of the logs."""
    folder = tmp_path_factory.mktemp("stand-ins")
    lock = (Path(tempfile.gettempdir()) / "penstock-cluster-tests.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)  # two stand-ins on one cluster would undo each other's work
    missing = {"tests.cluster.controller": real_kserve, "tests.cluster.kubelet": real_nodes}
    started = [_start(module, folder / f"{module}.log") for module, there in missing.items() if not there]
    yield folder
    for process in started:
        process.terminate()
        process.wait(10)
    if not real_kserve:
        path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/inferenceservice.stand-in.tests"
        administrator.ask("DELETE", path)
    lock.close()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with ministack(tmp_path_factory.mktemp("s3"), bind="0.0.0.0") as server:
        server.make_bucket()
        yield server


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good models, and one whose golden requests another model answered."""
    folder = tmp_path_factory.mktemp("bundles")
    for day, samples in enumerate((600, 900, 1200, 1000), 1):
        write_bundle(folder / f"v{day}", samples=samples, trained_at=f"2026-01-{day:02d}T03:04:05+00:00")
    (folder / "v4" / "golden.npz").write_bytes((folder / "v1" / "golden.npz").read_bytes())
    return folder


@pytest.fixture
def place(
    administrator: Api, running: Path, s3: Server, bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None
) -> Iterator[Place]:
    """A namespace with the manifests applied, a store with versions in it, and only the deployer's rights."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    with new_namespace(administrator, s3, bundles, tmp_path) as made:
        monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig))
        yield made


@pytest.fixture
def wait() -> Callable[[Callable[[], object], float], None]:
    def until(condition: Callable[[], object], seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not come about"
            time.sleep(0.2)

    return until
