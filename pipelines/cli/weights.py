"""`penstock weights`: pretrained weights in the store, for trainings that start from them where there is no internet."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipelines.cli import models_view as view
from pipelines.cli.output import DEFAULT_STORE, JsonOption, StoreOption, local_only, print_json

app = typer.Typer(no_args_is_help=True, help="Keep pretrained weights in the store, for trainings that start from them.")


@app.callback()
def group() -> None:
    """Keep pretrained weights in the store, for trainings that start from them."""


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="A safetensors file, or what torch.save wrote of a state dict.", show_default=False)],
    called: Annotated[str, typer.Option("--name", help="What they are called.", show_default="made of the file's name")] = "",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Add a file of weights to the store, where `--set weights=NAME` finds it; it is read first, and kept as it is, by its SHA-256.

    Example: `penstock weights add resnet18-f37072fd.pth --name resnet18-imagenet`
    """
    from components.classifier.weights import read_weights
    from components.registry.weights import Weights
    from components.storage import open_store

    tensors = len(read_weights(local_only(file)))
    record = Weights(open_store(store)).add(file, tensors, called)
    if as_json:
        print_json(record.model_dump(mode="json"))
        return
    view.say(
        f"[bold]{escape(record.name)}[/] is in {escape(store)}: {tensors} tensors, {view.size_text(record.size)}, SHA-256 {record.sha256}"
    )
    where = "" if store == DEFAULT_STORE else f"--store {shlex.quote(store)} "
    chosen = record.architecture or "NAME"
    view.say(f"Start from it: penstock run training {escape(where)}--set architecture={escape(chosen)} --set weights={escape(record.name)}")


@app.command("list")
def list_weights(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """List the weights that the store holds.

    Example: `penstock weights list`
    """
    from components.registry.weights import Weights
    from components.storage import open_store

    records = Weights(open_store(store)).list()
    if as_json:
        print_json([record.model_dump(mode="json") for record in records])
        return
    if not records:
        view.say(f"No weights in {escape(store)} yet: add some by `penstock weights add FILE`.")
        return
    table = view.table("name", "architecture", "size", "SHA-256", "added")
    for record in records:
        architecture, added = escape(record.architecture or "–"), view.when(record.added_at)
        table.add_row(escape(record.name), architecture, view.size_text(record.size), record.sha256[:12], added)
    view.show(table)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Their name, or the start of their SHA-256.", show_default=False)],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Remove weights from the store; versions that were trained from them stay as they are.

    Example: `penstock weights remove resnet18-imagenet`
    """
    from components.registry.weights import Weights
    from components.storage import open_store

    record = Weights(open_store(store)).remove(name)
    view.say(f"[bold]{escape(record.name)}[/] is removed from {escape(store)}.")
