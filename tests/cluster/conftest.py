"""A cluster for the rollout's tests, and what of it is missing.

KUBECONFIG names it. Where KServe is not installed in it, the stand-in of `controller.py` is started; where it has no node,
`kubelet.py` too. Nothing else differs, so that the tests say the same of a cluster with the real KServe. Each process of tests has
stand-ins of its own for its own namespaces: these tests mostly wait, and many can do that at once (`pytest -n 3`).

CLUSTER_TESTS_IMAGE: the predictor's image as the nodes have it. CLUSTER_TESTS_HOST: this machine's address as the pods see it.
"""

import fcntl
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests
import yaml

from tests.cluster import webhook
from tests.cluster.api import SERVING, Api, service_path
from tests.cluster.place import ROOT, Place, new_namespace
from tests.storage.servers import Server, ministack
from tests.tiny import write_bundle

KUBECONFIG = os.environ.get("KUBECONFIG", "")
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = "needs a cluster: set KUBECONFIG to an administrator's of one that is for tests (docs/rollout.md says how with kind)"
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.integration)
            item.add_marker(pytest.mark.cluster)
            if not KUBECONFIG:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def administrator() -> Api:
    return Api(KUBECONFIG)


@contextmanager
def own_number() -> Iterator[int]:
    """Give this process a number that no other one on this machine has."""
    for number in range(100):
        with (Path(tempfile.gettempdir()) / f"penstock-cluster-tests.{number}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield number
            return
    raise AssertionError("a hundred of these tests run on this machine already")


def start(module: str, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=output, stderr=subprocess.STDOUT)
    end = time.monotonic() + 60
    while b"ready" not in log.read_bytes():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, f"{module} does not start; see {log}"
        time.sleep(0.1)
    return process


def release(api: Api, own: str) -> None:
    """Take the finalizers off what is left in namespaces that are being deleted: who would do it has ended."""
    for service in api.ask("GET", f"{SERVING}/v1beta1/inferenceservices")["items"]:
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        if namespace.startswith(own):
            with suppress(requests.HTTPError):  # gone meanwhile
                api.merge(service_path(namespace, name), {"metadata": {"finalizers": None}})


@pytest.fixture(scope="session")
def real_kserve(administrator: Api) -> bool:
    """Whether KServe is installed: by its webhook, wherever its controller runs."""
    return administrator.find(f"{webhook.CONFIGURATIONS}/inferenceservice.serving.kserve.io") is not None


@pytest.fixture(scope="session")
def real_nodes(administrator: Api) -> bool:
    return bool(administrator.ask("GET", "/api/v1/nodes")["items"])


@pytest.fixture(scope="session")
def prefix(administrator: Api, real_kserve: bool, real_nodes: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """How the namespaces of this process' tests begin; what the cluster lacks is started for them."""
    if real_kserve:
        path = f"{SERVING}/v1alpha1/clusterstoragecontainers/default"
        administrator.merge(path, yaml.safe_load((ROOT / "manifests/components/restricted/storage-initializer.yaml").read_text()))
    folder = tmp_path_factory.mktemp("stand-ins")
    with own_number() as number:
        own = f"penstock-{secrets.token_hex(3)}-"
        started = []
        if not real_kserve:
            started.append(start("tests.cluster.controller", folder / "controller.log", KUBECONFIG, own))
        if not real_nodes:
            started.append(start("tests.cluster.kubelet", folder / "kubelet.log", KUBECONFIG, own, str(number)))
        yield own
        for process in started:
            process.terminate()
            process.wait(10)
        if not real_kserve:
            release(administrator, own)
            administrator.ask("DELETE", f"{webhook.CONFIGURATIONS}/{webhook.name_of(own)}")


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
    administrator: Api, prefix: str, s3: Server, bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None
) -> Iterator[Place]:
    """A namespace with the manifests applied, a store with versions in it, and only the deployer's rights."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    with new_namespace(administrator, prefix, s3, bundles, tmp_path) as made:
        monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig))
        yield made
