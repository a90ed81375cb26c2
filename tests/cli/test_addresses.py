"""Commands that write files write them to a store, too, when they are given its address; no local folder called s3: is made."""

import json
from pathlib import Path

import pytest

from components.classifier.errors import UsageError
from pipelines.cli.output import local_only, written_to
from tests.gate.cases import good
from tests.gate.versions import publish, registry_in
from tests.pipelines.runs import penstock
from tests.review import queue_of


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket"


def test_compiled_pipelines_and_reports_go_to_an_address(bucket: str, tmp_path: Path) -> None:
    done = penstock("compile", "--output", f"{bucket}/compiled/", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    assert f"{bucket}/compiled/training.yaml" in json.loads(done.out)
    assert "penstock-training" in (tmp_path / "bucket/compiled/training.yaml").read_text("utf-8")
    registry = registry_in(tmp_path)
    version, _ = publish(registry, tmp_path / "model", good())
    done = penstock("report", version, "--store", registry.store.url, "--name", "digits", "-o", f"{bucket}/r/a.html", cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "bucket/r/a.html").is_file()
    assert not list(tmp_path.glob("file:*"))


def test_pictures_to_review_go_to_an_address_that_is_empty(bucket: str, tmp_path: Path) -> None:
    queue = queue_of.at(tmp_path / "store")
    queue.put(queue_of.entry(queue_of.noise(1)))
    export = ("review", "export", f"{bucket}/to-label", "--store", str(tmp_path / "store"), "--name", "digits")
    done = penstock(*export, cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "bucket/to-label/labels.csv").is_file()
    back = penstock("review", "import", f"{bucket}/to-label", "--store", str(tmp_path / "store"), "--name", "digits", cwd=tmp_path)
    assert (back.code, "0 labels recorded" in back.out) == (0, True), back.err
    again = penstock(*export, cwd=tmp_path)
    assert (again.code, "holds something already" in again.err) == (2, True)


def test_a_whole_bucket_is_not_a_place_for_files_and_an_address_is_not_a_file_of_this_machine() -> None:
    with pytest.raises(UsageError, match="name a prefix in it, such as s3://bucket/out"), written_to("s3://bucket"):
        pass
    with pytest.raises(UsageError, match="s3://bucket/labels is an address"):
        local_only(Path("s3://bucket/labels"))
