"""Model, input and output on a real S3 server."""

import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.readers import archive_rows, places
from components.readers.places import StoreSource
from components.score.merge import merge
from components.score.shard import ShardResult, score_shard
from components.storage import open_store
from tests.score import cases
from tests.score.conftest import Score, plan_of, publish
from tests.storage.fixtures import ministack_server, new_address, use
from tests.storage.servers import BUCKET, Server

__all__ = ["ministack_server"]
pytestmark = pytest.mark.integration

ODD = ["with space", "a+b", "50%", "%2B", "#1", "q?x", "a&b=c", "tilde~", "ümläut"]


@pytest.fixture
def address(ministack_server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    use(ministack_server, monkeypatch)
    return new_address()


def put(server: Server, address: str, key: str, data: bytes) -> None:
    server.client().put_object(Bucket=BUCKET, Key=f"{address.removeprefix(f's3://{BUCKET}/')}/{key}", Body=data)


def test_objects_score_like_files(tmp_path: Path, tiny_bundle: Path, score: Score, ministack_server: Server, address: str) -> None:
    model = publish(tiny_bundle, f"{address}/store")
    for number, name in enumerate(ODD):
        cases.put(tmp_path / "in" / "left side" / f"{name}.png", cases.png(number))
    cases.tar(tmp_path / "in" / "t.tar", [("a.png", cases.png(1)), ("a.cls", b"1")])
    for marker in ("data/", "data", "data/left side/", "data/left side"):
        put(ministack_server, address, marker, b"")
    for path in (tmp_path / "in").rglob("*.*"):
        put(ministack_server, address, f"data/{path.relative_to(tmp_path / 'in')}", path.read_bytes())
    local = score(tmp_path / "in")

    def run(folder: Path) -> tuple[list[ShardResult], bytes]:
        plan = plan_of(model, folder / "plan", f"{address}/data", f"{address}/out", shards=3)
        results = [score_shard(plan, shard) for shard in plan.shards()]
        merge(plan, [result.to_json() for result in results], folder / "merged")
        return results, open_store(f"{address}/out").read("predictions.parquet")

    first, data = run(tmp_path / "first")
    assert sum(result.scored for result in first) == 10
    assert data == local.data
    again, same = run(tmp_path / "again")
    assert (sum(result.scored for result in again), same) == (0, data)
    put(ministack_server, address, "data/left side/#1.png", cases.png(30))
    changed, other = run(tmp_path / "changed")
    assert sum(result.scored for result in changed) == 10
    assert other != data
    assert pq.read_table(tmp_path / "changed" / "merged" / "predictions.parquet")["input"].to_pylist() == local.names


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_large_archive_is_read_by_ranges(
    kind: str, tmp_path: Path, tiny_bundle: Path, score: Score, ministack_server: Server, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = publish(tiny_bundle, f"{address}/store")
    path = tmp_path / f"many.{kind}"
    if kind == "tar":
        cases.tar(path, [(f"{k:03d}.png", cases.png(k)) for k in range(30)])
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for k in range(30):
                archive.writestr(f"{k:03d}.png", cases.png(k))
    put(ministack_server, address, path.name, path.read_bytes())
    whole = score(path)
    monkeypatch.setattr(archive_rows, "SPLIT_BYTES", 0)
    monkeypatch.setattr(archive_rows, "ANCHOR_ROWS", 4)
    monkeypatch.setattr(places, "READ_AHEAD", 1000)
    monkeypatch.setattr(StoreSource, "local", None)
    plan = plan_of(model, tmp_path / "plan", f"{address}/{path.name}", f"{address}/out", shards=3)
    results = [score_shard(plan, shard) for shard in plan.shards()]
    merge(plan, [result.to_json() for result in results], tmp_path / "merged")
    assert [result.scored for result in results] == [10, 10, 10]
    assert open_store(f"{address}/out").read("predictions.parquet") == whole.data
