"""`penstock models lineage`: data, run, version, service and scores, from the files that are there."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.classifier.errors import DataError, IntegrityError
from components.registry import Record, Registry
from components.registry.publication import publish_directory
from components.storage import open_store
from pipelines.cli import app
from pipelines.lineage import periods, read_scores
from tests.registry import bundles


def champions(*versions: str) -> list[Record]:
    """Records of deployments one after the other; an empty one is held and changes nothing."""
    records, now = [], ""
    for hour, version in enumerate(versions):
        action, after = ("deployed", version) if version else ("held", now)
        records.append(
            Record(action=action, version=version or "x", champion=after, previous=now, strategy="quality", time=f"0{hour}:00")  # type: ignore[arg-type]
        )
        now = after
    return records


def test_a_version_serves_from_its_deployment_to_the_next_of_another_and_again_after_a_rollback() -> None:
    told = [(period.since, period.until) for period in periods("a", champions("a", "", "a", "b", "a"))]
    assert told == [("00:00", "03:00"), ("04:00", "")]
    assert periods("c", champions("a", "b")) == []


def test_the_lineage_names_data_run_service_and_the_scores_of_this_version_alone(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    registry = Registry(open_store(store), "digits")
    version = publish_directory(registry, bundles.quick(tmp_path / "one", b"1"), run="run-7").version
    registry.ledger.append(Record(action="deployed", version=version, strategy="quality", actor="ann"))
    unnamed = f"store/scores/digits/{version}-0123abcd"
    (tmp_path / "store" / "scores" / "digits" / f"{version}-goes-on").mkdir(parents=True)
    for folder, by in (("mine", version), ("other", "20260101-000000-000000000000"), (unnamed, version)):
        (tmp_path / folder).mkdir()
        content = {
            "plan": "p",
            "model": {"name": "digits", "version": by},
            "input": "in",
            "files": {},
            "rows": {"a": 1797},
        }
        (tmp_path / folder / "manifest.json").write_text(json.dumps(content))
    options = ["--scores", str(tmp_path / "mine"), "--scores", str(tmp_path / "other"), "--store", store]
    found = json.loads(CliRunner().invoke(app, ["models", "lineage", "champion", *options, "--json"]).stdout)
    assert (found["dataset_digest"], found["run"], found["version"]) == ("0" * 64, "run-7", version)
    assert [(record["action"], record["actor"]) for record in found["decisions"]] == [("deployed", "ann")]
    assert [period["until"] for period in found["served"]] == [""]
    assert [(output["output"], output["rows"]) for output in found["scores"]] == [
        (str(tmp_path / place), 1797) for place in (unnamed, "mine")
    ]
    assert "1,797 rows of in" in CliRunner().invoke(app, ["models", "lineage", version, *options], env={"COLUMNS": "400"}).stdout


def test_a_changed_evaluation_is_not_told(tmp_path: Path) -> None:
    store = tmp_path / "store"
    version = publish_directory(Registry(open_store(str(store)), "digits"), bundles.evaluated(tmp_path / "one")).version
    path = store / "models" / "digits" / version / "evaluation.json"
    path.write_text(path.read_text().replace("digits", "FORGED"))
    told = CliRunner().invoke(app, ["models", "lineage", version, "--store", str(store)])
    assert isinstance(told.exception, IntegrityError)
    assert "FORGED" not in told.output


def test_a_folder_without_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no complete output of scoring"):
        read_scores(str(tmp_path))


def test_an_output_of_release_0_1_is_read_though_it_counts_no_rows() -> None:
    found = read_scores(str(Path(__file__).parents[1] / "fixtures" / "release_0_1" / "scored"))
    assert (found.version, found.rows) == ("20260202-030405-a8462a9d1fc6", None)
