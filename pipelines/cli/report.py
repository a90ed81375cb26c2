"""`penstock report`: a version's evaluation as one HTML file."""

from typing import Annotated

import typer
from rich.text import Text

from components.classifier.errors import StoreError, UsageError
from components.storage.files import write_file
from pipelines.cli.output import DEFAULT_STORE, JsonOption, NameOption, StoreOption, VersionArgument, console, print_json, written_to
from pipelines.cli.project import open_registry


def report(
    version: VersionArgument,
    output: Annotated[
        str, typer.Option("--output", "-o", help="The file to write, or a store's address; without it, report-VERSION.html in this folder.")
    ] = "",
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    as_json: JsonOption = False,
) -> None:
    """Write a version's evaluation report, with the gate's decision, as one HTML file.

    Example: `penstock report champion --output report.html`
    """
    from components.report.html import stored_report

    registry = open_registry(store, name)
    selected = registry.select(version)
    destination = output or f"report-{selected}.html"
    with written_to(destination) as path:
        if not path.parent.is_dir():
            raise UsageError(f"cannot write {path}: {path.parent} is not a folder; name a file in a folder that is there")
        page = stored_report(registry, selected)
        try:
            write_file(path, [page.encode()])
        except StoreError as error:
            raise UsageError(str(error)) from error
    if as_json:
        print_json({"version": selected, "report": destination})
    else:
        console.print(Text.assemble("report of ", (selected, "bold"), f": {destination}"), soft_wrap=True)
