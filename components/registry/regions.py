"""Which version serves in which region, and which regions lag: each region has a store, and in it a ledger, of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from components.registry.record import Record


@dataclass(frozen=True)
class Region:
    """What serves in a region, beside the newest champion of all regions."""

    name: str
    champion: str
    """Empty while nothing serves."""
    since: str
    """When it came to serve, UTC, ISO 8601; empty while nothing does."""
    behind: int
    """Versions that served where the newest champion does, and are newer than this one, up to the newest champion."""
    lag: timedelta
    """For how long the newest champion has served elsewhere; zero where it serves."""


def compare_regions(ledgers: Mapping[str, Sequence[Record]], now: datetime) -> list[Region]:
    """Return what serves in each region, from the records of its ledger, in the order given.

    The newest champion is the one that was trained last; where several regions have it, the one in which it served first counts.
    """
    serving = {name: _serving(records) for name, records in ledgers.items()}
    leading = {name: record for name, record in serving.items() if record}
    if not leading:
        return [Region(name, "", "", 0, timedelta()) for name in ledgers]
    newest = max(record.champion for record in leading.values())
    leader = min((name for name in leading if leading[name].champion == newest), key=lambda name: leading[name].time)
    champions = {record.champion for record in ledgers[leader] if record.action in {"deployed", "rolled_back"}}
    served = {version for version in champions if version <= newest}  # a later one was rolled back
    waiting = now - datetime.fromisoformat(leading[leader].time)
    return [_region(name, serving[name], newest, served, waiting) for name in ledgers]


def _serving(records: Sequence[Record]) -> Record | None:
    """The record by which the champion came to serve: the first of those that name it since another version served."""
    found: Record | None = None
    for record in records:
        if record.champion and (found is None or record.champion != found.champion):
            found = record
    return found


def _region(name: str, serving: Record | None, newest: str, served: set[str], waiting: timedelta) -> Region:
    champion = serving.champion if serving else ""
    behind = len({version for version in served if version > champion})
    return Region(name, champion, serving.time if serving else "", behind, timedelta() if champion == newest else waiting)
