"""The inference graphs of `manifests/graphs` are what KServe takes, and have none of the traps that lint knows."""

import copy
from typing import Any

import pytest
import yaml

from components.lint import lint
from tests.manifests.building import MANIFESTS
from tests.manifests.schemas import problems

GRAPHS = sorted((MANIFESTS / "graphs").glob("*.yaml"))


def test_there_is_one_of_each_kind() -> None:
    kinds = [node["routerType"] for path in GRAPHS for node in yaml.safe_load(path.read_text())["spec"]["nodes"].values()]
    assert sorted(kinds) == ["Ensemble", "Splitter", "Switch"]


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_a_graph_is_taken_by_the_schema_and_by_lint(path: Any) -> None:
    graph = yaml.safe_load(path.read_text())
    assert problems(graph) == []
    wrong = copy.deepcopy(graph)
    wrong["spec"]["nodes"]["root"]["steps"][0]["serviceURL"] = "http://digits"
    assert problems(wrong) != []
    assert lint([str(path)]).findings == []


def test_a_graph_that_the_webhook_refuses_is_found(tmp_path: Any) -> None:
    (splitter,) = (path for path in GRAPHS if path.stem == "splitter")
    for old, new in (("weight: 20", "weight: 30"), ("weight: 20", "condition: b"), ("root:", "first:"), ("serviceUrl:", "data:")):
        (tmp_path / "graph.yaml").write_text(splitter.read_text().replace(old, new))
        found = {finding.rule.id for finding in lint([str(tmp_path / "graph.yaml")]).findings}
        assert found == {"graph-that-is-refused"}, (old, new)
