"""The stores that one suite runs over, and the servers behind them."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.storage import Store, open_store
from tests.storage.rgw import ceph
from tests.storage.servers import BUCKET, Server, ministack, s3rver

KINDS = [
    "local",
    "memory",
    pytest.param("ministack", marks=pytest.mark.integration),
    pytest.param("rgw", marks=[pytest.mark.integration, pytest.mark.xdist_group("rgw")]),
]
_numbers = itertools.count()


def _with_bucket(server: Server) -> Server:
    server.make_bucket()
    return server


@pytest.fixture(scope="session")
def ministack_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with ministack(tmp_path_factory.mktemp("ministack")) as server:
        yield _with_bucket(server)


@pytest.fixture(scope="session")
def rgw_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with ceph(tmp_path_factory.mktemp("ceph")) as server:
        yield _with_bucket(server)


@pytest.fixture(scope="session")
def s3rver_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with s3rver(tmp_path_factory.mktemp("s3rver")) as server:
        yield _with_bucket(server)


def use(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this test, and the processes it starts, reach a server."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def new_address() -> str:
    """A store of its own in the test bucket."""
    return f"s3://{BUCKET}/{next(_numbers)}/store"


@pytest.fixture
def address(kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> str:
    """The address of an empty store of one kind."""
    if kind == "local":
        return str(tmp_path / "store")
    if kind == "memory":
        return f"memory://{request.node.name}-{next(_numbers)}"
    use(request.getfixturevalue(f"{kind}_server"), monkeypatch)
    return new_address()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def store(address: str) -> Store:
    return open_store(address)
