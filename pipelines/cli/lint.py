"""`penstock lint`: traps of compiled pipelines and manifests, before anything runs."""

import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from components.classifier.errors import UsageError
from components.lint.registry import Level
from pipelines.cli.output import print_json


class Format(StrEnum):
    """What is printed."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    MARKDOWN = "markdown"


def lint(
    paths: Annotated[list[str] | None, typer.Argument(metavar="FILE…", help="Files, folders, or - for standard input.")] = None,
    ignore: Annotated[list[str] | None, typer.Option("--ignore", help="Rules to leave out, by id; commas or several times.")] = None,
    level: Annotated[Level, typer.Option("--level", help="The least that is reported.")] = Level.NOTE,
    output_format: Annotated[Format, typer.Option("--format", "-f", help="What to print; markdown is for --rules.")] = Format.TEXT,
    fix: Annotated[bool, typer.Option("--fix", help="Mend in the files what is mechanical.")] = False,
    rules: Annotated[bool, typer.Option("--rules", help="List all rules.")] = False,
) -> None:
    """Report the traps in compiled Kubeflow pipelines and in KServe and Kubernetes manifests.

    Exit code 0: nothing, or notes only. 1: an error, a warning, or a file that is no YAML. 2: wrong use.

    Example: `kustomize build overlays/prod | penstock lint - build/pipelines`
    """
    from components.lint import linter, output
    from components.storage.files import write_file

    if rules:
        print_rules(output_format)
        return
    if not paths:
        raise UsageError("nothing to read; name files or folders, or - for standard input")
    if output_format == Format.MARKDOWN:
        raise UsageError("--format markdown is for --rules; use text, json or sarif")
    ignored = [*_project_ignores(Path("pyproject.toml")), *(it.strip() for names in ignore or [] for it in names.split(",") if it.strip())]
    report = linter.lint(paths, ignored, level)
    if fix and (changed := linter.fix(report)):
        for file, text in changed.items():
            write_file(Path(file), [text.encode()])
        report = linter.lint(paths, ignored, level)
    if output_format == Format.JSON:
        print_json(output.as_json(report))
    elif output_format == Format.SARIF:
        print_json(output.as_sarif(report))
    else:
        print(output.as_text(report))
    raise typer.Exit(1 if report.failed else 0)


def print_rules(output_format: Format) -> None:
    """List all rules."""
    from components.lint import output

    if output_format == Format.MARKDOWN:
        print(rules_page(), end="")
    elif output_format == Format.TEXT:
        print(output.rules_as_text())
    else:
        print_json(output.rules_as_json())


def rules_page() -> str:
    """docs/rules.md: what lint and doctor look for."""
    from components.doctor.report import checks_page
    from components.lint import output

    return f"{output.rules_page()}\n{checks_page()}"


def _project_ignores(file: Path) -> list[str]:
    """`ignore` of [tool.penstock.lint] in this folder's pyproject.toml."""
    try:
        settings = tomllib.loads(file.read_text("utf-8")).get("tool", {}).get("penstock", {}).get("lint", {})
    except FileNotFoundError:
        return []
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"cannot read {file} ({error}); mend it, or run the command in another folder") from error
    ignored = settings.get("ignore", [])
    if not isinstance(ignored, list) or not all(isinstance(it, str) for it in ignored):
        raise UsageError(f"{file}: ignore in [tool.penstock.lint] must be a list of rules")
    return ignored
