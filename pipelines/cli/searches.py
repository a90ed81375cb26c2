"""`penstock searches`: the searches that a store holds, and the trials of each."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from components.classifier.errors import UsageError
from pipelines.cli import models_view as view
from pipelines.cli.output import JsonOption, NameOption, StoreOption, console, local_only, print_json
from pipelines.cli.project import DEFAULT_STORE, chosen_name

app = typer.Typer(no_args_is_help=True, help="List and show searches over training settings, made here or on Kubeflow.")

SearchArgument = Annotated[
    str, typer.Argument(help="The ID of the run that searched, or the beginning of it, or `last`.", metavar="RUN", show_default=False)
]


@app.command("list")
def list_all(store: StoreOption = DEFAULT_STORE, name: NameOption = "", as_json: JsonOption = False) -> None:
    """List the searches of a model, newest first.

    Example: `penstock searches list`
    """
    from components.bundle.search import search_records, shown
    from components.storage import open_store

    records = search_records(open_store(store), chosen_name(store, name))
    if as_json:
        print_json([record.model_dump() for record in records])
        return
    if not records:
        console.print("No search yet: `penstock run search` makes one.")
        return
    table = view.table("run", "ended", "trials", "accuracy", "won")
    for record in records:
        won = ", ".join(f"{key} {shown(value)}" for key, value in record.winner.settings.items())
        accuracy = f"{record.winner.validation_accuracy:.4f}"
        table.add_row(Text(record.run), view.when(record.time), str(len(record.last_results())), accuracy, Text(won))
    view.show(table)


@app.command()
def show(
    run: SearchArgument,
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the report with the picture here, as HTML.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the trials of a search, best first.

    Example: `penstock searches show last --output search.html`
    """
    from components.bundle.search import search_records
    from components.report.search import render_search
    from components.storage import open_store
    from components.storage.files import write_file
    from pipelines.cli.summary import print_search

    if not run:
        raise UsageError("the run's ID is empty; give its beginning, or `last`")
    model = chosen_name(store, name)
    records = search_records(open_store(store), model)
    found = records[:1] if run == "last" else [record for record in records if record.run.startswith(run)]
    if len(found) != 1:
        meant = "several searches begin" if found else "no search begins"
        raise UsageError(
            f"{meant} with {run!r} in {store}; `penstock searches list --name {model}` shows the {len(records)} that there are"
        )
    if output:
        write_file(local_only(output), [render_search(found[0]).encode()])
    if as_json:
        print_json(found[0].model_dump())
    else:
        print_search(found[0])
