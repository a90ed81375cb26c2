"""`penstock models copy` and `regions`: versions in several stores, and what serves in each."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from components.classifier.errors import PenstockError, RegistryError, StoreError, UsageError, one_line
from pipelines.cli import models_view as view
from pipelines.cli.output import DEFAULT_STORE, JsonOption, NameOption, StoreOption, VersionArgument, console, print_json
from pipelines.cli.project import DEFAULT_NAME, chosen_name, model_names, open_registry, read_project

if TYPE_CHECKING:
    from components.registry import ModelVersion, Registry
    from components.registry.regions import Region

_WIDE = 110
"""Columns from which on the table of regions has room for the newest version of each."""
MAX_AT_ONCE = 4
"""Stores that a version is copied to at the same time."""


def copy(
    version: VersionArgument,
    to: Annotated[
        list[str],
        typer.Option("--to", help="The other store: a directory or s3://bucket/prefix; may be given again.", show_default=False),
    ],
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    as_json: JsonOption = False,
) -> None:
    """Copy a version to other stores, checked by digest; run it again after a break, and what arrived intact is kept.

    Each store has the whole version in the end, or does not have it. One that fails does not stop the others; the exit code is 1 then.

    Example: `penstock models copy champion --to s3://models-eu/penstock --to s3://models-us/penstock`
    """
    if len(set(to)) < len(to):
        raise UsageError("--to names a store twice; name each once")
    source = open_registry(store, name)
    version = source.select(version)
    total = sum(entry.size for entry in source.get(version).manifest.files.values())
    copied, failed = _copies(source, version, {address: open_registry(address, source.name) for address in to}, total, quiet=as_json)
    if as_json:
        results = {address: {"uri": found.uri} for address, found in copied.items()}
        failures = {address: {"error": str(error)} for address, error in failed.items()}
        print_json({"version": version, "stores": {address: {**results, **failures}[address] for address in to}})
    else:
        for found in copied.values():
            files = len(found.manifest.files)
            said = f"{version} is in {escape(found.uri)}: {files} files, {view.size_text(total)}, all digests checked."
            console.print(said, soft_wrap=True)
    if failed and len(to) == 1:
        raise failed[to[0]]
    if failed:
        told = "; ".join(f"{address}: {error}" for address, error in failed.items())
        raise RegistryError(f"{version} did not get to {len(failed)} of {len(to)} stores ({told}); copy it to these again")


def _copies(
    source: "Registry", version: str, targets: Mapping[str, "Registry"], total: int, *, quiet: bool
) -> tuple[dict[str, "ModelVersion"], dict[str, PenstockError]]:
    """Copy to all stores at once; returns what arrived, and why it did not, by the stores' addresses."""
    from components.registry.publication import copy_version

    copied: dict[str, ModelVersion] = {}
    failed: dict[str, PenstockError] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bars,
        ThreadPoolExecutor(MAX_AT_ONCE) as pool,
    ):
        running: dict[str, Future[ModelVersion]] = {}
        for address, target in targets.items():
            task = bars.add_task(escape(address), total=total)
            running[address] = pool.submit(copy_version, source, target, version, partial(bars.advance, task))
        for address, future in running.items():
            try:
                copied[address] = future.result()
            except PenstockError as error:
                failed[address] = error
    return copied, failed


def regions(
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at", metavar="[NAME=]STORE", help="A region's store; may be given again.", show_default="`regions` of penstock.yaml"
        ),
    ] = None,
    name: NameOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show which version serves in which region, since when, and by how much each lags behind the newest champion.

    A region is a store with a ledger of its own. The exit code is 1 when one of them cannot be read.

    Example: `penstock models regions --at eu=s3://models-eu/penstock --at us=s3://models-us/penstock`
    """
    from components.registry.regions import compare_regions

    stores = _stores(at or [])
    ledgers, unread, newest, registries = {}, dict[str, str](), {}, dict[str, "Registry"]()
    name = name or _only_name(stores, unread)
    for region, address in stores.items():
        if region in unread:
            continue
        try:
            registry = open_registry(address, name)
            ledgers[region], newest[region] = registry.ledger.records(), next(registry.newest(), "")
            registries[region] = registry
        except (StoreError, RegistryError) as error:
            unread[region] = one_line(error, None)
    found = {region.name: region for region in compare_regions(ledgers, datetime.now(UTC))}
    if as_json:
        print_json([_row(region, stores[region], found.get(region), newest.get(region, ""), unread.get(region, "")) for region in stores])
    else:
        wide = console.width >= _WIDE
        table = view.table("region", "serves", "since", "behind", *(["newest there"] if wide else []))
        for region in stores:
            if region in unread:
                table.add_row(escape(region), "[red]cannot be read[/]")
                continue
            it = found[region]
            there = [newest[region] or "nothing"] if wide else []
            table.add_row(escape(region), it.champion or "nothing", view.when(it.since) if it.since else "–", _behind(it), *there)
        view.show(table)
        for region, problem in unread.items():
            view.say(f"[red]{escape(region)}: {escape(problem)}[/]")
        champion, home = max((it.champion, stores[region]) for region, it in found.items()) if found else ("", "")
        for region, it in found.items():
            if it.champion or not newest[region]:
                continue
            wanted, options = champion or newest[region], f"--store {stores[region]} --name {name}"
            advice = f"deploy one there: penstock run deployment {options} --set version={wanted}"
            if wanted not in registries[region].newest():
                advice = f"copy what serves elsewhere: penstock models copy {wanted} --store {home} --name {name} --to {stores[region]}"
            view.say(f"Nothing serves in {escape(region)}, which has versions; {escape(advice)}")
    if unread:
        raise RegistryError(
            f"{', '.join(unread)} cannot be read; what is said of the others holds without {'it' if len(unread) == 1 else 'them'}"
        )


def _only_name(stores: Mapping[str, str], unread: dict[str, str]) -> str:
    """The model that is meant in every store that holds any; those that cannot be read are added to `unread`, with the cause.

    Raises UsageError when the stores hold different models, which cannot be compared.
    """
    chosen = set[str]()
    for region, address in stores.items():
        try:
            chosen.update([chosen_name(address, "")] if model_names(address) else [])
        except StoreError as error:
            unread[region] = one_line(error, None)
    if len(chosen) > 1:
        raise UsageError(f"the stores hold different models ({', '.join(sorted(chosen))}); say which one by --name")
    return chosen.pop() if chosen else DEFAULT_NAME


def _stores(given: list[str]) -> dict[str, str]:
    """The stores by the regions' names: a store without a name is its own. Raises UsageError for none and for a name given twice."""
    named: dict[str, str] = {}
    for text in given:
        name, equals, address = text.partition("=")
        region, store = (name, address) if equals and "/" not in name else (text, text)
        if region in named:
            raise UsageError(f"--at names the region {region} twice; name each once")
        named[region] = store
    named = named or read_project().regions
    if not named:
        raise UsageError("say which stores: --at eu=s3://models-eu/penstock, or `regions: {eu: s3://models-eu/penstock}` in penstock.yaml")
    return named


def _row(name: str, store: str, region: "Region | None", newest: str, error: str) -> dict[str, object]:
    if region is None:
        return {"region": name, "store": store, "error": error}
    lag = int(region.lag.total_seconds())
    facts = {"champion": region.champion or None, "since": region.since or None, "newest": newest or None}
    return {"region": name, "store": store, **facts, "versions_behind": region.behind, "seconds_behind": lag}


def _behind(region: "Region") -> str:
    if not region.lag:
        return "0" if region.champion else "–"
    return f"{region.behind} {'version' if region.behind == 1 else 'versions'}, {_short(region.lag)}"


def _short(lag: timedelta) -> str:
    """A time in its two largest units: `3 d 4 h`, `2 h 5 min`, `7 min`."""
    minutes = int(lag.total_seconds()) // 60
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min"
