"""Pictures in Google's and Azure's stores: read as all others where fsspec has its package, else the package is named."""

import importlib.util
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from components.classifier.errors import AccessDenied, DataError, ObjectNotFound, StoreUnavailable, UsageError
from components.readers.cloud import CloudObjects
from components.readers.places import open_source
from tests.ingest.cases import encode, files, folder, pixels, zip_of
from tests.ingest.conftest import Run, run
from tests.score.conftest import Score, score
from tests.score.conftest import model as model

__all__ = ["run", "score"]


class Bucket(MemoryFileSystem):
    """fsspec's own file system in memory, under the scheme of Google's store, of which one bucket may not be read and one fails."""

    protocol = "gs"
    store: dict[str, object] = {}  # noqa: RUF012 - as fsspec has it
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("gs://", "memory://")))

    def find(self, path: str, *arguments: object, **options: object) -> object:
        if "/closed" in f"/{path}":
            raise PermissionError("no storage.objects.list access")
        if "/broken" in f"/{path}":
            raise RuntimeError("the library's own kind of error")
        found = super().find(path, *arguments, **options)
        return list(found) if list(found) == [f"/{path.strip('/')}"] else found  # as adlfs answers for one object


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setitem(_registry, "gs", Bucket)
    made = fsspec.filesystem("gs", use_listings_cache=False)
    made.store.clear()
    yield made
    made.store.clear()


def test_a_prefix_an_archive_and_a_table_of_addresses_are_read_as_from_anywhere(
    bucket: Bucket, tmp_path: Path, run: Run, score: Score
) -> None:
    data = files(folder(tmp_path / "data", ["cat", "dog"]))
    for name, content in data.items():
        bucket.pipe_file(f"/pets/all/{name}", content)
        bucket.pipe_file(f"/pets/all-2/other/{name}", encode(pixels(9)))
    bucket.pipe_file("/pets/all.zip", zip_of(tmp_path / "all.zip", data).read_bytes())
    bucket.pipe_file("/pets/all/cat/", b"")
    here = run(tmp_path / "data")
    assert run("gs://pets/all").info.digest == run("gs://pets/all.zip").info.digest == here.info.digest
    table = "file,label\n" + "\n".join(f"gs://pets/all/{name},{name.partition('/')[0]}" for name in data)
    (tmp_path / "table.csv").write_text(table)
    assert run(tmp_path / "table.csv").info.digest == here.info.digest
    assert {row["input"] for row in score("gs://pets/all").rows} == set(data)


def test_what_cannot_be_read_is_told_in_one_line(bucket: Bucket, run: Run) -> None:
    with pytest.raises(DataError, match="there is nothing under gs://pets/none; check bucket and prefix"):
        run("gs://pets/none")
    with pytest.raises(AccessDenied, match=r"gs://closed may not be read \(no storage\.objects\.list access\); check the credentials"):
        run("gs://closed/all")
    with pytest.raises(StoreUnavailable, match=r"gs://broken cannot be read \(the library's own kind of error\); check address"):
        run("gs://broken/all")
    with pytest.raises(ObjectNotFound, match=r"no object 'a\.png' in gs://pets"):
        CloudObjects("gs://pets").read("a.png")


@pytest.mark.parametrize(
    ("address", "package", "missing"),
    [
        ("gs://pets/all", "gcsfs", "gcsfs"),
        ("az://pets/all", "adlfs", "adlfs"),
        ("abfs://pets@account.dfs.core.windows.net/all", "adlfs", "adlfs"),
        ("gs://pets/all", "gcsfs", "a_module_that_it_needs"),
    ],
)
def test_without_its_package_the_address_is_refused_and_what_is_missing_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str, package: str, missing: str
) -> None:
    if missing == package:
        monkeypatch.setitem(sys.modules, package, None)
    else:
        (tmp_path / f"{package}.py").write_text(f"import {missing}")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, package, raising=False)
    told = f"{address.split('/all')[0]} is read by {package}, and {missing} is missing; pip install {package}, or use s3://"
    with pytest.raises(UsageError, match=f"^{re.escape(told)}$"), open_source(address):
        pass


KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of the account that Azure's emulator has, as its documentation gives it."""


@pytest.mark.integration
@pytest.mark.parametrize(("scheme", "package", "server"), [("gs", "gcsfs", "fake-gcs-server"), ("az", "adlfs", "azurite-blob")])
def test_an_emulated_store_is_read_as_a_folder(
    scheme: str, package: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, score: Score
) -> None:
    if importlib.util.find_spec(package) is None or shutil.which(server) is None:
        pytest.skip(f"needs the package {package} and the emulator {server} (docs/data.md)")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    if scheme == "gs":
        command = [
            server,
            "-scheme",
            "http",
            "-host",
            "127.0.0.1",
            "-port",
            str(port),
            "-public-host",
            f"127.0.0.1:{port}",
            "-backend",
            "memory",
        ]
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # asks Google itself what kind of bucket it is
    else:
        command = [server, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(tmp_path / "az"), "--skipApiVersionCheck"]
        account = f"AccountName=devstoreaccount1;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"DefaultEndpointsProtocol=http;{account}")
    data = files(folder(tmp_path / "data", ["cat", "d\u00f6g +%#?x"]))
    here = run(tmp_path / "data")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            listening(port)
            store = fsspec.filesystem(scheme, skip_instance_cache=True)
            store.mkdir("pets")
            for name, content in data.items():
                store.pipe_file(f"pets/all/{name}", content)
                store.pipe_file(f"pets/all-2/other/{name}", encode(pixels(9)))
            store.pipe_file("pets/all.zip", zip_of(tmp_path / "all.zip", data).read_bytes())
            assert run(f"{scheme}://pets/all").info.digest == run(f"{scheme}://pets/all.zip").info.digest == here.info.digest
            assert {row["input"] for row in score(f"{scheme}://pets/all").rows} == set(data)
            with pytest.raises(DataError, match=rf"there is nothing under {scheme}://none/all"):
                run(f"{scheme}://none/all")
        finally:
            process.terminate()


def listening(port: int) -> None:
    """Wait until a server accepts connections."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
