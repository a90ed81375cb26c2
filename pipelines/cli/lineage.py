"""`penstock models lineage`: from data to scores, by way of one version."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli import models_view as view
from pipelines.cli.output import DEFAULT_STORE, JsonOption, NameOption, StoreOption, VersionArgument, print_json
from pipelines.cli.project import open_registry

if TYPE_CHECKING:
    from components.registry import Registry
    from components.registry.manifest import Manifest


def lineage(
    version: VersionArgument,
    scores: Annotated[list[str] | None, typer.Option("--scores", metavar="OUTPUT", help="Output of scoring; may be given again.")] = None,
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    as_json: JsonOption = False,
) -> None:
    """Tell where a version comes from and what came of it: data, run, decisions, when it served, and the scores that it made.

    Outputs of scoring in the model store are found; name others by --scores, and those that another version made are left out.

    Example: `penstock models lineage champion --scores s3://data/scores`
    """
    from pipelines.lineage import read_scores, scores_in, trace

    registry = open_registry(store, name)
    manifest = registry.get(registry.select(version)).manifest
    outputs = scores_in(registry.store, registry.name, manifest.version) + [read_scores(output) for output in scores or []]
    found = trace(manifest, _source(registry, manifest), registry.ledger.records(), outputs)
    if as_json:
        print_json(asdict(found) | {"made": found.made.model_dump() if found.made else None})
        return
    rows = [("data", f"{found.source or 'unknown source'}  sha256:{found.dataset_digest}"), ("run", found.run or "unknown")]
    rows += [("version", f"{found.model} {found.version}  trained {view.when(found.trained_at)}  sha256:{found.content_digest}")]
    if found.made:
        rows += [("made as", f"{found.made.kind}: {found.made.how}")]
        rows += [("made of", f"{parent.version}  sha256:{parent.sha256}") for parent in found.made.parents]
    rows += [("ledger", f"{r['sequence']}  {view.when(r['time'])}  {r['action']}  {r['reason']}".rstrip()) for r in found.decisions]
    rows += [
        ("served", f"{view.when(period.since)} to {view.when(period.until) if period.until else 'now'} on {period.target}")
        for period in found.served
    ] or [("served", "never")]
    for output in found.scores:
        counted = "scores" if output.rows is None else f"{output.rows:,} rows"
        rows += [("scores", f"{output.output}: {counted} of {output.input}")]
    view.say_facts(rows)


def _source(registry: "Registry", manifest: "Manifest") -> str:
    """The address of the data as the evaluation tells it; empty where the version has none. Raises IntegrityError for a changed file."""
    from components.bundle.files import EVALUATION
    from components.bundle.headline import Headline

    if EVALUATION not in manifest.files:
        return ""
    with registry.opened(manifest.version, [EVALUATION]) as folder:
        return Headline.read(folder / EVALUATION).source or ""
