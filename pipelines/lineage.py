"""Where a model version comes from and what came of it, from the files that are there: its manifest, the ledger, outputs of scoring."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from components.bundle.config import Variant
from components.classifier.errors import DataError
from components.registry import Record
from components.registry.manifest import Manifest
from components.storage import Store


@dataclass(frozen=True)
class Period:
    """A time in which the version was the champion, UTC, ISO 8601; `until` is empty while it goes on."""

    since: str
    until: str
    target: str
    run: str
    actor: str


@dataclass(frozen=True)
class Scores:
    """One output of scoring: the version that made it, what it read, and its rows; None of release 0.1, which did not count them."""

    output: str
    version: str
    input: str
    rows: int | None
    plan: str


@dataclass(frozen=True)
class Lineage:
    """Data, run, version, decisions, service and scores, in this order."""

    dataset_digest: str
    source: str
    run: str
    trained_at: str
    code_version: str
    model: str
    version: str
    content_digest: str
    made: Variant | None
    """Of which versions it was made, and how; None for one that was trained."""
    decisions: list[dict[str, Any]]
    """All records of the ledger about the version: sequence, action, time, actor, reason."""
    served: list[Period]
    scores: list[Scores]


def trace(manifest: Manifest, source: str, records: Iterable[Record], scores: Iterable[Scores]) -> Lineage:
    """Put a version's lineage together; outputs that other versions made are left out."""
    known = list(records)
    fields = ("sequence", "action", "time", "actor", "reason")
    return Lineage(
        dataset_digest=manifest.dataset_digest,
        source=source,
        run=manifest.run,
        trained_at=manifest.trained_at,
        code_version=manifest.code_version,
        model=manifest.name,
        version=manifest.version,
        content_digest=manifest.content_digest,
        made=Variant.of(manifest.parameters),
        decisions=[{field: getattr(record, field) for field in fields} for record in known if record.version == manifest.version],
        served=periods(manifest.version, known),
        scores=[output for output in scores if output.version == manifest.version],
    )


def periods(version: str, records: Iterable[Record]) -> list[Period]:
    """When a version was the champion, oldest first; a record that keeps the champion does not end a period."""
    return [
        Period(record.time, until, record.target, record.run, record.actor)
        for record, until in serving_periods(records)
        if record.champion == version
    ]


def serving_periods(records: Iterable[Record]) -> list[tuple[Record, str]]:
    """The records that made another version the champion, oldest first, each with the time at which it ceased to serve, "" for the last."""
    changes = [record for record in records if record.champion != record.previous]
    return list(zip(changes, [*(record.time for record in changes[1:]), ""], strict=False))


def scores_in(store: Store, model: str, version: str) -> list[Scores]:
    """The outputs of a version's scorings that named none: they lie in the model store. Those that are not complete are left out."""
    folder = f"scores/{model}/"
    places = [f"{folder}{name}" for name in store.names(folder) if name.startswith(f"{version}-")]
    return [read_scores(f"{store.url.rstrip('/')}/{place}") for place in places if store.exists(f"{place}/manifest.json")]


def read_scores(output: str) -> Scores:
    """Read the manifest of an output of scoring; raises DataError where there is none or it is not complete."""
    from components.score.output import Output

    try:
        manifest = Output(output).manifest()
        if manifest is None:
            raise DataError(f"{output} holds no complete output of scoring; name the `output` of a run that ended")
        rows = sum(manifest["rows"].values()) if "rows" in manifest else None
        return Scores(output, manifest["model"]["version"], manifest["input"], rows, manifest["plan"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"manifest.json in {output} cannot be read ({error!r}); score again") from error
