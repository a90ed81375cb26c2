import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from components.predictor.metrics import Metrics

MONITORING = Path(__file__).parents[2] / "manifests" / "monitoring"
RULES = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
_SAMPLE = re.compile(r"\b(penstock_\w+|process_\w+)\b")
_GROUPED = re.compile(r"\bby \(([^)]*)\)(?=[^}]*?\b(penstock_\w+|process_\w+)\b)")
_SELECTED = re.compile(r"\b(penstock_\w+)\{([^}]*)\}")
_BY_MONITOR = {"namespace", "inferenceservice", "pod", "le"}
"""Labels that Prometheus and the PodMonitor add."""


def alert_expressions() -> list[str]:
    return [rule["expr"] for group in RULES["spec"]["groups"] for rule in group["rules"]]


def dashboard_expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    variables = [variable["definition"] for variable in DASHBOARD["templating"]["list"] if "definition" in variable]
    return [*panels, *variables, *(annotation["expr"] for annotation in DASHBOARD["annotations"]["list"])]


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """The samples that a predictor exports, with the labels of each."""
    registry = CollectorRegistry()
    Metrics(registry)
    found = {}
    for line in generate_latest(registry).decode().splitlines():
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split()
            names = [f"{name}_{part}" for part in ("bucket", "count", "sum")] if kind == "histogram" else [name]
            collector = registry._names_to_collectors[name]
            found |= {sample: set(collector._labelnames) for sample in names}  # type: ignore[attr-defined]
    return found


def test_every_metric_in_alerts_and_dashboard_is_one_that_the_predictor_exports(exported: dict[str, set[str]]) -> None:
    used = {name for expression in [*alert_expressions(), *dashboard_expressions()] for name in _SAMPLE.findall(expression)}
    assert used - {"process_resident_memory_bytes"} <= exported.keys()
    assert len(used) > 10


def test_every_label_that_is_grouped_or_selected_by_is_one_of_that_metric(exported: dict[str, set[str]]) -> None:
    found = 0
    for expression in [*alert_expressions(), *dashboard_expressions()]:
        asked = [(metric, {label.strip() for label in labels.split(",")}) for labels, metric in _GROUPED.findall(expression)]
        asked += [(metric, set(re.findall(r"(\w+)[=!]", labels))) for metric, labels in _SELECTED.findall(expression)]
        for metric, labels in asked:
            assert labels <= exported.get(metric, set()) | _BY_MONITOR, (metric, expression)
        found += len(asked)
    assert found > 50


def test_all_that_the_predictor_counts_is_on_the_dashboard(exported: dict[str, set[str]]) -> None:
    shown = " ".join(dashboard_expressions())
    ours = {
        re.sub(r"_(bucket|count|sum)$", "", name) for name in exported if name.startswith("penstock_") and not name.endswith("_created")
    }
    assert [name for name in sorted(ours) if name not in shown] == []


def test_panels_do_not_overlap_and_have_titles() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert panel["title"]
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_alerts_say_what_to_do() -> None:
    for group in RULES["spec"]["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in {"warning", "critical"}
            assert rule["annotations"].keys() == {"summary", "description"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_alerts_fire_in_trouble_and_only_then(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULES["spec"]))
    shutil.copy(Path(__file__).parent / "alerts.yaml", tmp_path)
    done = subprocess.run(["promtool", "test", "rules", "alerts.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
