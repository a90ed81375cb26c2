"""`penstock models`: what is in the registry, what served when, and the ways to change it."""

import itertools
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from components.classifier.errors import IntegrityError
from pipelines.cli import models_view as view
from pipelines.cli.lineage import lineage
from pipelines.cli.models_compare import diff, mistakes
from pipelines.cli.models_copy import copy, regions
from pipelines.cli.models_push import image, push_hub
from pipelines.cli.output import DEFAULT_STORE, JsonOption, NameOption, StoreOption, VersionArgument, console, local_only, print_json
from pipelines.cli.project import chosen_name, model_names, open_registry

app = typer.Typer(no_args_is_help=True, help="List, inspect, verify, compare, publish, approve, copy, delete and roll back model versions.")
MORE_COMMANDS: tuple[Callable[..., None], ...] = (lineage, push_hub, diff, mistakes, copy, regions, image)
for command in MORE_COMMANDS:
    app.command()(command)

ActorOption = Annotated[
    str, typer.Option("--actor", envvar="PENSTOCK_ACTOR", help="Who does it, for the ledger.", show_default="this user")
]


_COLOURS = {"deployed": "green", "approved": "green", "held": "yellow", "awaiting": "yellow", "rolled_back": "yellow", "failed": "red"}

_WIDE = 75
"""Columns from which on a list of versions has room for more than accuracy and who serves."""


@app.command("list")
def list_versions(
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    limit: Annotated[int, typer.Option("--limit", min=0, help="How many versions at most; 0 for all.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List the model versions, newest first, and say which one serves; without a name, the models of a store that has several.

    Example: `penstock models list --limit 5`
    """
    names = [] if name else model_names(store)
    if len(names) > 1:
        _list_models(store, names, as_json)
        return
    registry = open_registry(store, name)
    champion, previous = registry.ledger.champion(), registry.ledger.previous()
    marks = {previous: "previous", champion: "champion"}
    found = (view.row(registry, version, marks.get(version, "")) for version in registry.newest())
    rows = list(itertools.islice((row for row in found if row is not None), limit or None))
    if as_json:
        print_json(rows)
        return
    if not rows:
        view.say(f"No version of {escape(registry.name)} in {escape(registry.store.url)} yet: run `penstock run training` first.")
        return
    wide = console.width >= _WIDE
    table = view.table("version", *(["architecture"] if wide else []), "accuracy", *(["classes", "size"] if wide else []), "serves")
    for row in rows:
        serves = f"[green]{row['serves']}[/]" if row["serves"] == "champion" else row["serves"]
        if "problem" in row:
            problem = [f"[red]{escape(row['problem'])}[/]", *[""] * (3 if wide else 0)]
            table.add_row(row["version"], *problem, serves)
            continue
        architecture = [escape(row["architecture"])] if wide else []
        more = [str(row["classes"]), view.size_text(row["size"])] if wide else []
        table.add_row(row["version"], *architecture, view.number(row["accuracy"]), *more, serves)
    view.show(table)


def _list_models(store: str, names: list[str], as_json: bool) -> None:
    registries = [open_registry(store, name) for name in names]
    rows = [{"name": it.name, "versions": len(list(it.newest())), "champion": it.ledger.champion()} for it in registries]
    if as_json:
        print_json(rows)
        return
    table = view.table("model", "versions", "champion")
    for row in rows:
        table.add_row(escape(str(row["name"])), str(row["versions"]), str(row["champion"] or "none yet"))
    view.show(table)
    view.say("The versions of one: penstock models list --name NAME")


@app.command()
def show(version: VersionArgument, store: StoreOption = DEFAULT_STORE, name: NameOption = "", as_json: JsonOption = False) -> None:
    """Show a version: where it came from, its numbers and parameters, its files and their digests.

    Example: `penstock models show champion`
    """
    registry = open_registry(store, name)
    found = registry.get(registry.select(version))
    manifest = found.manifest
    curves = view.learning_curves(registry, found.manifest)
    if as_json:
        training = curves.model_dump(mode="json") if curves else None
        print_json({"uri": found.uri, **manifest.model_dump(mode="json"), "training": training})
        return
    view.say_facts(view.facts(found.uri, manifest))
    if curves:
        view.say("\n[bold]training[/]")
        view.show(view.curves_table(curves))
        view.say(escape(f"{curves.stop_reason}{f'; {curves.advice}' if curves.advice else ''}"))
    view.say("\n[bold]files, by SHA-256[/]")
    for file, entry in manifest.files.items():
        view.say(f"{entry.sha256}  {view.size_text(entry.size):>8}  {escape(file)}")


@app.command()
def verify(version: VersionArgument, store: StoreOption = DEFAULT_STORE, name: NameOption = "", as_json: JsonOption = False) -> None:
    """Hash a version's files again and name each that is missing, changed or extra; the exit code is 1 if there is one.

    Example: `penstock models verify previous`
    """
    registry = open_registry(store, name)
    version = registry.match(version)
    problems = registry.verify(version)
    if as_json:
        print_json({"version": version, "intact": not problems, "problems": problems})
    elif not problems:
        view.say(f"{version} is intact: all {len(registry.get(version).manifest.files)} files have the digests of its manifest.")
    if problems and not as_json:
        raise IntegrityError(f"version {version} is damaged: {'; '.join(problems)}; do not serve it, and publish it again")
    if problems:
        raise typer.Exit(1)


@app.command()
def history(
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    limit: Annotated[int, typer.Option("--limit", min=0, help="How many records at most, the newest; 0 for all.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show the ledger: what was deployed, held, rolled back or failed, when, by whom and why.

    Example: `penstock models history --json`
    """
    registry = open_registry(store, name)
    records = registry.ledger.records()
    shown = records[-limit:] if limit else records
    if as_json:
        print_json([record.model_dump(mode="json") for record in shown])
        return
    if not records:
        view.say(f"Nothing of {escape(registry.name)} has been deployed in {escape(registry.store.url)} yet.")
        return
    for record in shown:
        colour = _COLOURS[record.action]
        by = f"by {record.actor} ({record.strategy})" if record.actor else f"({record.strategy})"
        view.say(f"{record.sequence:>4}  {view.when(record.time)}  [{colour}]{record.action:<11}[/]  {record.version}  {escape(by)}")
        if record.champion != record.version:
            view.say(f"      [bold]{record.champion or 'nothing'}[/] goes on serving" if record.champion else "      nothing serves")
        if record.reason:
            view.say(f"      {escape(' '.join(record.reason.split()))}")


@app.command()
def rollback(
    to: Annotated[str, typer.Option("--to", help="The version to go back to; else the one that served before.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why, for the ledger.")] = "",
    actor: ActorOption = "",
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make the version that served before serve again, or another one by `--to`; its files are checked first.

    Rolling back is undo: each call takes one deployment off. Held and failed deployments do not count.

    Example: `penstock models rollback --reason "wrong on night pictures"`
    """
    from components.deploy.local import rollback as roll_back

    registry = open_registry(store, name)
    before = registry.ledger.champion()
    record = roll_back(registry, to=registry.match(to) if to else "", actor=actor or _user(), reason=reason)
    if as_json:
        print_json({"changed": record.champion != before, **record.model_dump(mode="json")})
    elif record.champion == before:
        view.say(f"{record.champion} serves already; nothing was changed.")
    else:
        view.say(f"[green]{record.champion}[/] serves now, in place of {record.previous} (record {record.sequence}).")


@app.command()
def approve(
    version: Annotated[str, typer.Argument(help="A version that awaits approval.", show_default=False)],
    env: Annotated[str, typer.Option("--env", help="For which environment.", show_default="the one in which it awaits approval")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why, for the ledger.")] = "",
    actor: ActorOption = "",
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    as_json: JsonOption = False,
) -> None:
    """Approve a version that the gate let through, in an environment that asks for approval; the deployment pipeline goes on from it.

    The record is about the version's content and the evidence that the gate judged, and is signed where PENSTOCK_SIGNING_KEY is set.

    Example: `penstock models approve 20260102-030405-0123456789ab --reason "looked at its mistakes"`
    """
    from components.deploy.permission import approve as give_approval

    registry = open_registry(store, name)
    record = give_approval(registry, registry.match(version), environment=env, actor=actor or _user(), reason=reason)
    if as_json:
        print_json(record.model_dump(mode="json"))
        return
    view.say(
        f"[green]{record.version}[/] is approved for {escape(record.environment)} by {escape(record.actor)} (record {record.sequence})."
    )
    where = escape(f"--env {record.environment} --store {shlex.quote(store)} --name {registry.name}")
    manual = " --set actor=YOU --set reason=WHY" if record.strategy == "manual" else ""
    view.say(f"Deploy it: penstock run deployment {where} --set version={record.version}{manual}")


@app.command()
def delete(
    version: VersionArgument,
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a version for good; the champion is never deleted.

    Example: `penstock models delete 20260102-030405-0123456789ab --yes`
    """
    registry = open_registry(store, name)
    version = registry.match(version)
    registry.refuse_champion(version)
    if not registry.sizes(version):
        registry.get(version)  # which says what versions there are
    if version == registry.ledger.previous():
        view.say(f"[yellow]{version} served before the champion: without it `penstock models rollback` has nothing to bring back.[/]")
    if not yes:
        typer.confirm(f"Delete version {version} of {registry.name} from {registry.store.url} for good?", abort=True)
    registry.delete(version)
    view.say(f"{version} is deleted.")


@app.command()
def publish(
    directory: Annotated[Path, typer.Argument(help="A training run's folder, or one with all files of a model.", show_default=False)],
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    as_json: JsonOption = False,
) -> None:
    """Publish a model that a run has trained and evaluated, or that was trained elsewhere, as the publish step does.

    The same files give the same version, however often. Nothing is deployed: `penstock run deployment` does that.

    Example: `penstock models publish .penstock/runs/20260102-030405-1a2b`
    """
    from components.publish.publishing import publish as publish_files
    from pipelines.local import trained_files

    name = chosen_name(store, name)
    trained = trained_files(local_only(directory))
    model, evaluation = trained or (directory, directory)
    version = publish_files(model, evaluation, store=store, name=name, run=directory.resolve().name if trained else "")
    if as_json:
        print_json({"version": version, "uri": open_registry(store, name).uri(version)})
        return
    view.say(f"[green]{version}[/] is in {escape(open_registry(store, name).uri(version))}.")
    view.say(f"What the gate says of it: penstock gate explain {version} --store {escape(store)} --name {escape(name)}")


def _user() -> str:
    import getpass
    import os

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container under a number without an account
        return f"uid {os.getuid()}"
