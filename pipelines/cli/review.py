"""`penstock review`: the pictures that people should look at, their labels, and the accuracy that follows."""

import getpass
import tempfile
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from components.classifier.errors import UsageError
from pipelines.cli import models_view as view
from pipelines.cli.output import DEFAULT_STORE, JsonOption, NameOption, StoreOption, console, print_json, written_to
from pipelines.cli.project import chosen_name, open_registry

if TYPE_CHECKING:
    from components.review.accuracy import LiveAccuracy, Proportion
    from components.review.labels import LabelSummary
    from components.review.queue import QueuedPicture, ReviewQueue

app = typer.Typer(no_args_is_help=True, help="Look at uncertain and audited predictions, label them, train on them.")

_ID_SHOWN = 12
"""Digits of an ID that are shown; any unique beginning names a picture to `label`."""


class State(StrEnum):
    """State of a picture's labels; `any` selects all."""

    any = "any"
    unlabelled = "unlabelled"
    labelled = "labelled"
    conflicting = "conflicting"
    contrary = "contrary"
    """The older name of `conflicting`."""


class Why(StrEnum):
    """Why a picture is in the queue; `any` selects all."""

    any = "any"
    low_confidence = "low_confidence"
    unfamiliar = "unfamiliar"
    audit = "audit"


VersionOption = Annotated[str, typer.Option("--version", help="Entries of one model version only.")]
StateOption = Annotated[State, typer.Option(help="Entries whose labels are in this state (contrary: the older name of conflicting).")]
WhyOption = Annotated[Why, typer.Option("--reason", help="Entries queued for this reason.")]
ReviewerOption = Annotated[str, typer.Option(envvar="PENSTOCK_REVIEWER", help="Who labels. Default: the account's name.")]


@app.command("list")
def list_entries(
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    version: VersionOption = "",
    state: StateOption = State.any,
    reason: WhyOption = Why.any,
    limit: Annotated[int, typer.Option(min=1, help="Rows shown, least confident first; --json gives all.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the queue, least confident first.

    Example: `penstock review list --state unlabelled`
    """
    entries = _chosen(_queue(store, name), version, state, reason)
    if as_json:
        print_json([_row(entry) for entry in entries])
        return
    table = view.table("picture", "predicted", "reason", "label", "version")
    for entry in entries[:limit]:
        predicted = f"{entry.prediction.label} {entry.prediction.confidence:.4f}"
        reasons = " ".join(sorted(reason.removesuffix("_confidence") for reason in entry.reasons))
        table.add_row(Text(entry.id[:_ID_SHOWN]), Text(predicted), reasons, Text(_labels(entry.labels)), Text(entry.version))
    if entries:
        view.show(table)
    shown = f"{min(limit, len(entries))} of {len(entries)} entries shown"
    conflicting = len({entry.id for entry in entries if entry.labels.state == "conflicting"})
    _say(shown + (f"; {conflicting} with conflicting labels: resolve them with `penstock review label … --resolve`" if conflicting else ""))


@app.command()
def export(
    directory: Annotated[str, typer.Argument(help="A new folder, or a store's address for one.")],
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    labelled: Annotated[
        bool, typer.Option("--labelled", help="Export what people agree on, as train/CLASS/…: a source for training only.")
    ] = False,
    suspect: Annotated[
        bool, typer.Option("--suspect", help="In place of the queue: test pictures of --version (champion) whose label may be wrong.")
    ] = False,
    version: VersionOption = "",
    state: StateOption = State.unlabelled,
    reason: WhyOption = Why.any,
    limit: Annotated[
        int, typer.Option(min=0, help="At most this many, least confident first (--reason audit: at random); 0: all, of suspects 50.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write pictures into a folder to be labelled: open its index.html, or fill in labels.csv.

    Example: `penstock review export to-label`
    """
    from components.review.export import PAGE, newest_by_picture, write_for_review, write_labelled

    if suspect:
        if labelled:
            raise UsageError("--suspect is for pictures that are to be labelled, --labelled for those that are; use one of them")
        _export_suspects(directory, store, name, version or "champion", limit, as_json)
        return
    name = chosen_name(store, name)
    queue = _queue(store, name)
    entries = newest_by_picture(_chosen(queue, version, State.labelled if labelled else state, reason))
    entries = entries[:limit] if limit else entries
    if not entries:
        raise UsageError(f"nothing to export: no such entries in the review queue of {name!r}; `penstock review list` shows what there is")
    with written_to(directory, new=True) as folder:
        report = (write_labelled if labelled else write_for_review)(queue, entries, folder)
    if as_json:
        print_json({"directory": directory, **asdict(report)})
        return
    if labelled:
        _say(f"{report.pictures} labelled pictures of {len(report.classes)} classes in {directory}, for training only")
    else:
        page = f"{directory.rstrip('/')}/{PAGE}"
        _say(f"{report.pictures} pictures in {directory}: label them in {page}, then `penstock review import {directory}`")
    if report.missing:
        _say(f"{len(report.missing)} left out, whose pictures were removed from the store: {', '.join(report.missing)}")


def _export_suspects(directory: str, store: str, name: str, selector: str, limit: int, as_json: bool) -> None:
    from components.bundle.mistakes import MAX_SUSPECT
    from components.registry.evaluated import read_evaluated
    from components.review.export import PAGE, write_suspects

    registry = open_registry(store, name)
    found = read_evaluated(registry, registry.select(selector))
    with written_to(directory, new=True) as folder:
        report = write_suspects(found.version, found.evaluation, found.predictions, folder, limit or MAX_SUSPECT)
    if as_json:
        print_json({"directory": directory, "version": found.version, **asdict(report)})
        return
    page = f"{directory.rstrip('/')}/{PAGE}"
    _say(f"{report.pictures} test pictures of {found.version} in {directory}: label them in {page}, and save its labels.csv")
    _say("then correct the source where label differs from label_so_far, and ingest it again")
    if report.missing:
        _say(f"{len(report.missing)} left out, of which the version keeps no picture: {', '.join(report.missing)}")


@app.command()
def label(
    picture: Annotated[str, typer.Argument(help="A picture's ID, or its beginning.")],
    label: Annotated[str, typer.Argument(help="The class it shows; '-' for none of them or unclear.")],
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    reviewer: ReviewerOption = "",
    resolve: Annotated[bool, typer.Option("--resolve", "--settle", help="End a disagreement: replace all earlier labels.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Label one picture, correct your own label, or resolve conflicting ones.

    Example: `penstock review label 3b3352 7`
    """
    from components.review.export import classes_of
    from components.review.labels import UNUSABLE

    queue = _queue(store, name)
    entries = queue.get(picture)
    identity = entries[0].id
    classes = classes_of(identity, entries)
    if label not in {*classes, UNUSABLE}:
        known = ", ".join(classes)
        raise UsageError(f"{label!r} is not a class of the model that predicted {identity}; use one of {known}, or {UNUSABLE!r}")
    changed = queue.label(identity, label, reviewer or account(), resolves=resolve)
    entry = queue.get(identity)[0]
    if as_json:
        print_json({**_row(entry), "changed": changed})
        return
    _say(f"{identity}: {label}" + ("" if changed else " (as before)"))
    if entry.labels.state == "conflicting":
        _say(f"labels are conflicting ({_labels(entry.labels)}); the picture is left out until somebody resolves it with --resolve")


@app.command()
def withdraw(
    picture: Annotated[str, typer.Argument(help="A picture's ID, or its beginning.")],
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    reviewer: ReviewerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take back your last label of a picture; what counted before it counts again, and both stay in the store.

    Example: `penstock review withdraw 3b3352`
    """
    queue = _queue(store, name)
    identity = queue.get(picture)[0].id
    label = queue.withdraw(identity, reviewer or account())
    entry = queue.get(identity)[0]
    if as_json:
        print_json({**_row(entry), "withdrawn": label})
        return
    _say(f"{identity}: {label} is withdrawn; now {_labels(entry.labels) or 'without a label'}")


@app.command("import")
def import_(
    path: Annotated[str, typer.Argument(help="A labels.csv, or the folder that holds it; or a store's address of one.")],
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    reviewer: ReviewerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Read labels back from a labels.csv; importing it again changes nothing.

    Example: `penstock review import to-label --reviewer ann`
    """
    from components.review.export import import_labels

    report = import_labels(_queue(store, name), _read_labels(path), reviewer or account())
    if as_json:
        print_json(asdict(report))
        return
    _say(f"{report.recorded} labels recorded, {report.unchanged} known before, {report.empty} rows without a label")
    if report.superseded:
        _say(
            f"{len(report.superseded)} not applied, since you corrected or withdrew it, or it was resolved otherwise since; "
            f"label it by `penstock review label`: {', '.join(report.superseded)}"
        )
    if report.conflicting:
        _say(
            f"{len(report.conflicting)} with conflicting labels, left out until resolved with "
            f"`penstock review label … --resolve`: {', '.join(report.conflicting)}"
        )


@app.command()
def accuracy(
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    version: Annotated[str, typer.Option("--version", help="champion, previous or a version.")] = "champion",
    as_json: JsonOption = False,
) -> None:
    """Give the accuracy on live pictures, with its 95% interval, from the labels that people gave.

    Example: `penstock review accuracy`
    """
    from components.review.accuracy import live_accuracy

    resolved = open_registry(store, name).select(version)
    result = live_accuracy(resolved, _queue(store, name).entries(resolved))
    if as_json:
        print_json(asdict(result))
        return
    _print_accuracy(result)


def _print_accuracy(result: "LiveAccuracy") -> None:
    _say(f"version {result.version}")
    _say(f"live accuracy  {_estimate(result)}")
    if result.method == "stratified":
        counted, share = result.needing_review, result.others / (result.others + result.needing_review.n)
        doubtful = f", {counted.doubtful} counted both ways" if counted.doubtful else ""
        _say(f"need review    {counted.n} pictures, all counted: {counted.correct} right{doubtful}")
        _say(f"the others     about {result.others:,.0f} pictures ({share:.1%}), known by the audit sample")
    elif result.why:
        _say(f"by the audit sample alone: {result.why}")
    left_out = {
        "not labelled": result.unlabelled,
        "conflicting": result.conflicting,
        "unusable": result.unusable,
        "perhaps trained on": result.possibly_trained_on,
    }
    reasons = ", ".join(f"{count} {why}" for why, count in left_out.items() if count)
    reasons = reasons or ("all labelled" if result.audited else "none drawn yet")
    _say(f"audit sample   {result.audited} pictures: {reasons}")
    _say(f"by itself      {_with_interval(result.audit)}")
    _say(f"low confidence {_with_interval(result.low_confidence)} (selected by the model: not an estimate of live accuracy)")


def _estimate(result: "LiveAccuracy") -> str:
    found = result.accuracy
    if found is None:
        return "unknown: no usable label yet"
    estimate = f"{found.low_estimate:.4f}"
    if found.high_estimate > found.low_estimate:
        estimate += f" to {found.high_estimate:.4f}, as doubtful labels are wrong or right"
    return f"{estimate}, 95% interval {found.low:.4f} to {found.high:.4f}"


def _with_interval(share: "Proportion") -> str:
    if share.estimate is None:
        return "unknown: no usable label yet"
    doubtful = f", {share.doubtful} counted both ways" if share.doubtful else ""
    return f"{share.estimate:.4f}, 95% interval {share.low:.4f} to {share.high:.4f} ({share.correct} of {share.labelled} right{doubtful})"


def _queue(store: str, name: str) -> "ReviewQueue":
    from components.review.queue import ReviewQueue
    from components.storage import open_store

    return ReviewQueue(open_store(store), chosen_name(store, name))


def _chosen(queue: "ReviewQueue", version: str, state: State, reason: Why) -> "list[QueuedPicture]":
    entries = queue.entries(version or None)
    entries = [entry for entry in entries if reason is Why.any or reason.value in entry.reasons]
    wanted = "conflicting" if state is State.contrary else state.value
    return [entry for entry in entries if wanted in {"any", entry.labels.state}]


def _row(entry: "QueuedPicture") -> dict[str, Any]:
    prediction, labels = entry.prediction, entry.labels
    return {
        "picture": entry.id,
        "version": entry.version,
        "predicted": prediction.label,
        "confidence": prediction.confidence,
        "reasons": sorted(entry.reasons),
        "state": labels.state,
        "label": labels.label or "",
        "opinions": labels.opinions,
        "request_id": prediction.request_id,
        "time": prediction.time,
    }


def _say(text: str) -> None:
    """Print a line unchanged: class names may contain brackets, and commands must not be wrapped."""
    console.print(text, markup=False, soft_wrap=True)


def _labels(labels: "LabelSummary") -> str:
    if labels.state == "conflicting":
        return ", ".join(f"{reviewer}: {label}" for reviewer, label in labels.opinions.items())
    return labels.label or ""


def account() -> str:
    """The name of who runs the command; raises UsageError where the account has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:  # a user id without an account, as in containers
        raise UsageError("this account has no name; say who labels with --reviewer NAME") from error


def _read_labels(path: str) -> list[tuple[str, str]]:
    from components.review.export import LABELS, read_labels
    from components.storage import open_store

    if "://" not in path:
        return read_labels(Path(path))
    parent, _, last = path.rstrip("/").rpartition("/")
    with tempfile.TemporaryDirectory() as folder:
        open_store(parent).download(last if last.endswith(".csv") else f"{last}/{LABELS}", Path(folder) / LABELS)
        return read_labels(Path(folder))
