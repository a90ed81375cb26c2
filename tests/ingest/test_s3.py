"""Sources on a real S3 server."""

from pathlib import Path

import pytest

from components.classifier.errors import DataError
from tests.ingest.cases import encode, files, folder, pixels, tar_of
from tests.ingest.conftest import Run
from tests.storage.fixtures import ministack_server, new_address, use
from tests.storage.servers import BUCKET, Server

__all__ = ["ministack_server"]
pytestmark = pytest.mark.integration

ODD = ["with space", "a+b", "50%", "%2B", "#1", "q?x", "a&b=c", "tilde~", "ümläut"]


@pytest.fixture
def address(ministack_server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    use(ministack_server, monkeypatch)
    return new_address()


def put_all(server: Server, address: str, content: dict[str, bytes]) -> None:
    client, prefix = server.client(), address.removeprefix(f"s3://{BUCKET}/")
    for name, data in content.items():
        client.put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=data)


def test_odd_names_and_folder_objects(tmp_path: Path, run: Run, ministack_server: Server, address: str) -> None:
    for kind, name in enumerate(("left side", "right+side")):
        for k, file in enumerate(ODD):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / name / f"{file}.png").write_bytes(encode(pixels(kind, k)))
    content = files(tmp_path / "data")
    put_all(ministack_server, address, {"": b"", "left side/": b"", "right+side": b"", "owl/": b"", **content})
    found = run(address)
    assert found.counts() == {"left side": 9, "right+side": 9}
    assert set(found.files()) == set(content)
    assert found.info.digest == run(tmp_path / "data").info.digest
    assert found.info.set_aside == []


def test_more_keys_than_a_page_and_neighbours_left_alone(run: Run, ministack_server: Server, address: str) -> None:
    put_all(ministack_server, address, {f"{'ab'[k % 2]}/{k}.png": encode(pixels(k % 2, k, size=(4, 4), channels=1)) for k in range(1030)})
    put_all(ministack_server, f"{address}-other", {"c/1.png": encode(pixels(3))})
    assert sum(run(address).counts().values()) == 1030


def test_an_archive_with_an_odd_name(tmp_path: Path, run: Run, ministack_server: Server, address: str) -> None:
    data = folder(tmp_path / "data", ["cat", "dog"])
    put_all(ministack_server, address, {"my data #1+2%.tgz": tar_of(tmp_path / "a.tgz", files(data), "w:gz").read_bytes()})
    assert run(f"{address}/my data #1+2%.tgz").info.digest == run(data).info.digest


def test_what_is_not_there_is_said(run: Run, address: str) -> None:
    with pytest.raises(DataError, match="there is nothing under"):
        run(f"{address}/nothing")
