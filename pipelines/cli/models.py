"""`penstock models`: what is in the registry."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipelines.cli.output import DEFAULT_NAME, DEFAULT_STORE, JsonOption, NameOption, StoreOption, console, print_json

if TYPE_CHECKING:
    from components.registry import Registry

app = typer.Typer(no_args_is_help=True, help="List, inspect, verify and roll back model versions.")

VersionArgument = Annotated[str, typer.Argument(help="A version's name, or `champion` or `previous`.")]


@app.command("list")
def list_versions(store: StoreOption = DEFAULT_STORE, name: NameOption = DEFAULT_NAME, as_json: JsonOption = False) -> None:
    """List the model versions, newest first, and say which one serves.

    Example: `penstock models list --name digits`
    """
    registry = _registry(store, name)
    champion = registry.ledger.champion()
    rows = [registry.get(version).manifest for version in reversed(list(registry.versions()))]
    if as_json:
        print_json(
            [{**row.model_dump(include={"version", "architecture", "metrics", "run"}), "champion": row.version == champion} for row in rows]
        )
        return
    table = Table("version", "architecture", "accuracy", "")
    for row in rows:
        table.add_row(
            row.version, row.architecture, f"{row.metrics.get('accuracy', float('nan')):.4f}", "champion" if row.version == champion else ""
        )
    console.print(table)


@app.command()
def show(
    version: VersionArgument, store: StoreOption = DEFAULT_STORE, name: NameOption = DEFAULT_NAME, as_json: JsonOption = False
) -> None:
    """Show a version's manifest: its files and their digests, its dataset, parameters and numbers.

    Example: `penstock models show champion --json`
    """
    registry = _registry(store, name)
    manifest = registry.get(registry.resolve(version)).manifest
    print_json(manifest.model_dump(mode="json"))


def _registry(store: str, name: str) -> "Registry":
    from components.registry import Registry
    from components.storage import open_store

    return Registry(open_store(store), name)
