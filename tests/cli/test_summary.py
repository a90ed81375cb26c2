"""What is printed after a run: after a hold, the commands that go on from it."""

import shlex
from pathlib import Path

import pytest

from components.registry import Record, Registry
from components.storage import open_store
from pipelines.cli.summary import print_after_hold, print_overtaken
from tests.test_documentation import problem

VERSION = "20260102-030405-0123456789ab"


@pytest.mark.parametrize(("environment", "override"), [("dev", True), ("prod", False)])
def test_a_hold_names_commands_that_exist_and_overrides_only_where_that_is_allowed(
    environment: str, override: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    print_after_hold(VERSION, {"environment": environment, "store": "/a store", "name": "pets"})
    commands = [line[line.index("penstock ") :] for line in capsys.readouterr().out.splitlines() if "penstock " in line]
    assert [problem(shlex.split(command)[1:]) for command in commands] == [""] * len(commands)
    assert shlex.split(commands[0])[1:4] == ["gate", "explain", VERSION]
    assert any("run deployment" in command for command in commands) == override


def test_of_two_trainings_at_once_the_one_that_was_overtaken_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = Registry(open_store(str(tmp_path)), "pets")
    registry.ledger.append(Record(action="held", version=VERSION, strategy="quality", reason="overtaken by another: run it again"))
    registry.ledger.append(Record(action="held", version=f"{VERSION[:-1]}0", strategy="quality", reason="too few test pictures"))
    print_overtaken(registry, VERSION)
    assert capsys.readouterr().out == "held: overtaken by another: run it again\n"
