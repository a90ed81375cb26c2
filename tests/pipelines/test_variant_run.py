"""The variant pipeline for real, through kfp's own local runner: an 8-bit version, then an ensemble with it, by the same gate."""

from pathlib import Path

import pytest

from components.bundle.config import Variant
from components.bundle.evaluation import Evaluation
from components.registry import Registry
from components.registry.kept_dataset import keep
from components.registry.publication import publish_directory
from components.storage import open_store
from pipelines.cli.run import RunFailed, prepare
from pipelines.local import RunResult, run_local
from tests import tiny
from tests.train.test_variants import write_wide

pytestmark = pytest.mark.integration


def run(root: Path, kind: str, versions: str) -> RunResult:
    arguments = prepare("variant", [f"kind={kind}", f"versions={versions}"], env="dev", store=str(root / "store"), name="digits")
    folder = root / kind
    (folder / "tmp").mkdir(parents=True)
    result = run_local("variant", arguments, folder, lambda *_: None, str(root / "checkpoints"))
    if not result.succeeded:
        raise RunFailed(f"{result.error}: {result.log.read_text()[-2000:]}")
    return result


def test_an_8_bit_version_is_deployed_and_an_ensemble_with_it_is_judged_against_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the steps' models are too small for more to help
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    dataset = tiny.write_dataset(tmp_path / "dataset")
    (dataset.path / "report.html").write_text("<p>checks")
    keep(dataset.path, dataset.info, str(tmp_path / "store"))
    registry = Registry(open_store(str(tmp_path / "store")), "digits")
    parent = publish_directory(registry, write_wide(tmp_path / "bundle", 0, dataset.info.digest)).version
    first = run(tmp_path, "int8", parent)
    small = first.outputs["version"]
    assert first.outputs["decision"] == "deploy"
    assert registry.ledger.champion() == small
    assert registry.verify(small) == []

    second = run(tmp_path, "ensemble", f"{parent},champion")
    whole = second.outputs["version"]
    variant = Variant.of(registry.get(whole).manifest.parameters)
    assert variant is not None
    assert [it.version for it in variant.parents] == [parent, small]
    evaluation = Evaluation.load(registry.fetch(whole, tmp_path / "whole"))
    assert evaluation.champion is not None
    assert (evaluation.champion.version, evaluation.champion.same_images) == (small, True)
    assert evaluation.tradeoff is not None
    assert [(it.role, it.version) for it in evaluation.tradeoff.models] == [
        ("this model", ""),
        ("parent", parent),
        ("parent and champion", small),
    ]
    assert registry.ledger.records()[-1].version == whole
    assert second.outputs["decision"] in {"deploy", "hold"}
