"""Every command explains itself."""

import typer
from typer.main import get_command

from pipelines.cli import app


def commands() -> dict[str, typer.core.TyperCommand]:
    """All commands by their full name."""
    found = {}

    def walk(prefix: str, group: typer.core.TyperGroup) -> None:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                walk(f"{prefix}{name} ", command)
            else:
                found[prefix + name] = command

    walk("", get_command(app))
    return found


def test_every_command_has_help_with_an_example() -> None:
    assert [name for name, command in commands().items() if "Example" not in (command.help or "")] == []


def test_every_option_is_described() -> None:
    missing = [
        f"{name} {parameter.name}"
        for name, command in commands().items()
        for parameter in command.params
        if parameter.name != "help" and not getattr(parameter, "help", None)
    ]
    assert missing == []


def test_every_command_is_named_in_the_readme() -> None:
    from pathlib import Path

    readme = (Path(__file__).parent.parent.parent / "README.md").read_text("utf-8")
    assert [name for name in commands() if f"penstock {name.split()[0]}" not in readme] == []
