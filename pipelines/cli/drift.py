"""`penstock drift`: whether the pictures that running predictors see still look like those of the evaluation."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from components.classifier.errors import InferenceError, UsageError, one_line
from pipelines.cli.output import DEFAULT_STORE, JsonOption, NameOption, StoreOption, console, print_json
from pipelines.cli.project import open_registry

if TYPE_CHECKING:
    from components.bundle.reference import Reference
    from components.registry import Registry
    from components.score.live_drift import Counts, LiveDrift

_SECONDS = 10.0


def drift(
    predictors: Annotated[list[str], typer.Argument(metavar="URL…", help="Every replica's address, or files of their /metrics.")],
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    version: Annotated[str, typer.Option("--version", help="champion, previous or a version.")] = "champion",
    since: Annotated[Path | None, typer.Option(help="Leave out what was counted when this file was saved.")] = None,
    save: Annotated[Path | None, typer.Option(help="Save what was counted until now, for --since.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare what running predictors count of a version with its evaluation, and estimate its accuracy without labels.

    Example: `penstock drift localhost:8080 --save today.json`
    """
    from components.score.live_drift import live_drift
    from components.storage.files import write_file

    registry = open_registry(store, name)
    resolved = registry.select(version)
    reference = reference_of(registry, resolved)
    counts = counted(predictors, resolved)
    seen = counts.copy()  # not `-` and `+=`: they drop buckets without a count, which a histogram needs
    if since:
        seen.subtract(_saved(since, resolved))
        if any(n < 0 for n in seen.values()):
            raise UsageError(
                f"{since} counts more than these predictors do: they were started again, or are others; save a new one with --save"
            )
    if save:
        write_file(save, [json.dumps({"version": resolved, "counts": [[*key, n] for key, n in sorted(counts.items())]}).encode() + b"\n"])
    found = live_drift(resolved, reference, seen)
    if as_json:
        print_json(asdict(found))
    else:
        _show(found)


def counted(predictors: list[str], version: str) -> "Counts":
    """What running predictors counted of a version since they started, from all of them together.

    Raises InferenceError where one does not answer, and UsageError where what answers is not a predictor.
    """
    from components.score.live_drift import read_counts

    counts: Counts = Counter()
    for predictor in predictors:
        try:
            counts.update(read_counts(_metrics(predictor), version))
        except ValueError as error:
            raise UsageError(f"{predictor} gives no metrics of a predictor ({error}); name its address, such as localhost:8080") from error
    return counts


def reference_of(registry: "Registry", version: str) -> "Reference":
    """What a version's evaluation saw; raises UsageError for a version without it."""
    from components.bundle.files import REFERENCE
    from components.bundle.reference import Reference

    if REFERENCE not in registry.get(version).manifest.files:
        raise UsageError(f"version {version} has no {REFERENCE}, which its evaluation writes; nothing to compare with")
    with registry.opened(version, [REFERENCE]) as folder:
        return Reference.load(folder)


def _metrics(predictor: str) -> str:
    import urllib3

    if Path(predictor).is_file():
        return Path(predictor).read_text("utf-8")
    address = predictor if "://" in predictor else f"http://{predictor}"
    url = address if address.endswith("/metrics") else f"{address.rstrip('/')}/metrics"
    try:
        answer = urllib3.request("GET", url, retries=False, timeout=_SECONDS)
    except urllib3.exceptions.HTTPError as error:
        raise InferenceError(f"{url} does not answer ({one_line(error, 120)}); name a running predictor") from error
    if answer.status != 200:
        raise InferenceError(f"{url} answers with status {answer.status}; name a running predictor")
    return answer.data.decode("utf-8", "replace")


def _saved(path: Path, version: str) -> "Counts":
    try:
        raw = json.loads(path.read_text("utf-8"))
        counts = Counter({(sample, label): int(n) for sample, label, n in raw["counts"]})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read ({error}); give a file that --save wrote") from error
    if raw.get("version") != version:
        raise UsageError(f"{path} is about version {raw.get('version')}, not {version}; save a new one with --save")
    return counts


def _show(found: "LiveDrift") -> None:
    from components.score.drift import accuracy_line, drift_lines

    console.print(f"version {found.version}: {found.pictures:,} pictures, {found.watched:,} of them measured", markup=False)
    if not found.pictures:
        console.print("these predictors have not answered with this version yet: nothing to compare")
        return
    table = Table("feature", "PSI", "moved", "adjusted p", "", box=SIMPLE_HEAD, padding=(0, 1))
    for row in found.drift:
        moved = "" if row.moved is None else f"{row.moved:+.3f}"
        table.add_row(row.feature, f"{row.psi:.3f}", moved, f"{row.adjusted:.2g}", "drifted" if row.drifted else "")
    console.print(table)
    for line in drift_lines(found.drift, found.expected_accuracy) or ["no drift"]:
        console.print(line, markup=False, soft_wrap=True)
    if found.expected_accuracy and not any(row.drifted for row in found.drift):
        console.print(accuracy_line(found.expected_accuracy), markup=False, soft_wrap=True)
