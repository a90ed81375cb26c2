"""What is printed after a run: after a hold, the commands that go on from it."""

import shlex

import pytest

from pipelines.cli.summary import print_after_hold
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
