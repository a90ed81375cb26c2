"""docs/tutorial.md: its commands for one machine are run as they stand, in a new folder, and lead to where the page says."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from components.registry import Registry
from components.storage import open_store
from tests.storage.servers import free_port

PAGE = (Path(__file__).parent.parent / "docs" / "tutorial.md").read_text("utf-8")
ONE_MACHINE = PAGE.partition("\n## The same on Kubernetes")[0]


def commands(port: int) -> str:
    """All blocks for the shell, one after the other, for a port that is free here; the first line of the page starts the environment."""
    activate, *lines = "\n".join(re.findall(r"^```bash\n(.*?)^```", ONE_MACHINE, re.MULTILINE | re.DOTALL)).splitlines()
    assert activate.startswith("source ")
    text = "\n".join(lines).replace("penstock serve ", "penstock serve --port 8080 ").replace("--url localhost:8080", "")
    return f"set -euo pipefail\nexport PENSTOCK_URL=localhost:8080\n{text}\nwait\n".replace("8080", str(port))


@pytest.mark.integration
@pytest.mark.timeout(1500)
def test_the_tutorial_leads_from_a_folder_to_a_rollback(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "100"}
    process = subprocess.Popen(
        ["bash", "-c", commands(free_port())], cwd=tmp_path, env=environment, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output = process.communicate(timeout=1400)[0]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the server, where a command failed before it was ended
    assert process.returncode == 0, output[-5000:]
    folder = tmp_path / "letters-tutorial"
    ledger = Registry(open_store(str(folder / ".penstock" / "store")), "letters").ledger.records()
    assert [record.action for record in ledger] == ["held", "deployed", "deployed", "rolled_back"]
    first, second = ledger[1].version, ledger[2].version
    before, after = ([*csv.DictReader((folder / name).open())] for name in ("today.csv", "better.csv"))
    assert {row["model_version"] for row in before} == {first}
    assert {row["model_version"] for row in after} == {second}
    unfamiliar = [sum(row["unfamiliar"] == "True" for row in rows) for rows in (before, after)]
    assert unfamiliar[0] > 120 > unfamiliar[1], "most of today's pictures are unfamiliar, and then familiar"
    (asked,) = json.loads(re.findall(r"^\[\n.*?^\]", output, re.MULTILINE | re.DOTALL)[-1])
    assert (asked["label"], asked["model_version"]) == ("A", first)
    assert "HARMFUL" in output
    assert "minimum_class_support: too few test pictures, 5 needed" in output
    assert {path.name for path in folder.iterdir()} >= {"report.html", "diff.html", "answers", "better", "reviewed", "letters-torchscript"}


def test_every_command_of_penstock_in_it_is_in_a_block_that_the_test_runs() -> None:
    prose = re.sub(r"^```bash\n.*?^```", "", ONE_MACHINE, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^ *\$? ?penstock .*$", prose, re.MULTILINE) == []
    assert "```console" not in ONE_MACHINE
