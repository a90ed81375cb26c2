"""`penstock export`: a version in the format of another runtime."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from components.bundle.files import ExportFormat
from pipelines.cli.output import DEFAULT_STORE, JsonOption, NameOption, StoreOption, VersionArgument, console, print_json, written_to
from pipelines.cli.project import open_registry


def export(
    version: VersionArgument,
    chosen: Annotated[
        ExportFormat, typer.Option("--format", "-f", help="For which runtime; docs/export.md shows how to use each.")
    ] = ExportFormat.ONNX,
    output: Annotated[
        str, typer.Option("--output", "-o", help="A new folder, or a store's address; without it, NAME-FORMAT in this folder.")
    ] = "",
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    as_json: JsonOption = False,
) -> None:
    """Write a version in another format, with its class names and what is done to pictures before, checked by its golden requests.

    Example: `penstock export champion --format torchscript --output pets-torchscript`
    """
    from components.train.convert import export_version

    registry = open_registry(store, name)
    destination = output or f"{registry.name}-{chosen.value}"
    with written_to(destination, new=True) as path:
        exported = export_version(registry, registry.select(version), chosen, path)
    if as_json:
        print_json({"output": destination, **asdict(exported)})
        return
    written = f"{', '.join(exported.files)}, labels.json, export.json, golden.npz"
    console.print(Text.assemble((exported.version, "bold"), f" is in {destination}: {written}"), soft_wrap=True)
    console.print(
        f"It gives {' and '.join(exported.outputs)}; {exported.golden_pictures} golden pictures agree with the evaluation "
        f"to {exported.largest_difference:.1e} ({exported.made_with}).",
        soft_wrap=True,
    )
