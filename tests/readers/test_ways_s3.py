"""One picture gives the same pixels by every way in from a real S3 server: training's dataset, batch scoring, and a predictor."""

from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from components.registry import Registry
from components.score.merge import merge
from components.score.shard import score_shard
from components.storage import open_store
from components.validate_serving.predictor_process import predictor
from tests import tiny
from tests.ingest.cases import files, put
from tests.ingest.conftest import Run, run
from tests.predictor.versions import NAME, PREDICT, b64
from tests.readers.test_ways import LEVELS, REFUSED, SIZE, WAYS, Array, bundle, pictures_of_every_kind
from tests.score.conftest import plan_of, publish
from tests.storage.fixtures import ministack_server, new_address, use
from tests.storage.servers import BUCKET, Server

__all__ = ["bundle", "ministack_server", "run"]
pytestmark = pytest.mark.integration


@pytest.fixture
def address(ministack_server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    use(ministack_server, monkeypatch)
    return new_address()


def made(root: Path, content: dict[str, bytes]) -> dict[str, Path]:
    """Some forms of the same pictures, which are files or folders, and arrays of other ones; test_ways.py has the others."""
    for name, data in content.items():
        put(root / "folder" / name, data)
    forms = {way: WAYS[way](root / way.replace(" ", "-"), content) for way in ("zip", "tar", "csv", "webdataset", "parquet of structs")}
    put(root / "arrays" / "notes.md")
    np.save(root / "arrays" / "images.npy", np.random.default_rng(0).integers(0, 256, (12, SIZE, SIZE, 3), dtype=np.uint8))
    np.save(root / "arrays" / "labels.npy", np.arange(12) % 2)
    return {"folder": root / "folder", **forms, "arrays": root / "arrays"}


def test_every_way_in_gives_from_s3_what_it_gives_from_a_folder(
    ministack_server: Server, address: str, bundle: Path, run: Run, tmp_path: Path
) -> None:
    content = pictures_of_every_kind() | {f"a/{number:02d}.{ending}": data for number, (ending, data, _) in enumerate(REFUSED.values())}
    client, prefix = ministack_server.client(), address.removeprefix(f"s3://{BUCKET}/")
    forms = made(tmp_path / "forms", content)
    for name, data in files(tmp_path / "forms").items():
        client.put_object(Bucket=BUCKET, Key=f"{prefix}/in/{name}", Body=data)
    remote = {form: f"{address}/in/{path.relative_to(tmp_path / 'forms')}" for form, path in forms.items()}
    model = publish(bundle, f"{address}/store")

    def trained(source: Path | str) -> tuple[dict[str, tuple[str, bytes]], list[dict[str, str]], str]:
        done = run(source, image_size=SIZE, channels=3, levels=LEVELS)
        return {name: (label, pixels.tobytes()) for name, (label, pixels) in done.files().items()}, done.info.set_aside, done.info.digest

    for form, path in forms.items():
        assert trained(remote[form]) == trained(path), form

    def scored(source: Path | str, output: str, scratch: Path) -> dict[tuple[str, int], tuple[str | None, Array]]:
        plan = plan_of(model, scratch / "plan", source, output, probabilities=True)
        merge(plan, [score_shard(plan, shard).to_json() for shard in plan.shards()], scratch / "merged")
        rows = pq.read_table(scratch / "merged" / "predictions.parquet").to_pylist()
        return {(row["input"].rpartition("/")[2], row["index"]): (row["error"], row["probabilities"]) for row in rows}

    for form in ("parquet of structs", "folder"):
        here = scored(forms[form], str(tmp_path / "out" / form), tmp_path / "here" / form)
        rows = scored(remote[form], f"{address}/out/{form}", tmp_path / "there" / form)
        assert rows == here, form
        assert sum(error is not None for error, _ in here.values()) == len(REFUSED)
        assert open_store(f"{address}/out/{form}").read("predictions.parquet")

    version = Registry(open_store(f"{address}/store"), "digits").fetch(model.version, tmp_path / "version")
    with predictor(NAME, version, 60) as (_, started), httpx.Client(base_url=started.url, timeout=30) as asked:
        for name, data in content.items():
            answer = asked.post(PREDICT, json={"instances": [{"b64": b64(data)}], "return_probabilities": True})
            error, probabilities = rows[name.rpartition("/")[2], 0]
            assert (answer.status_code == 200) == (error is None), name
            if error is None:
                found = answer.json()["predictions"][0]["probabilities"]
                assert [found[label] for label in tiny.CLASSES] == pytest.approx(probabilities, abs=1e-5), name
            else:
                assert error in answer.text.replace('\\"', '"'), name
