"""How `penstock models` shows versions: rows, tables, numbers."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from components.classifier.errors import IntegrityError, StoreError
from pipelines.cli.output import console

if TYPE_CHECKING:
    from components.bundle.mistakes import WrongPicture
    from components.bundle.training import LearningCurves
    from components.registry import Manifest, Registry
    from components.report.comparison import Comparison

MAX_EPOCHS = 20
"""Rows of the table of a training."""


_WHOLE = {
    *("run", "pipeline", "status", "ended", "starts", "version", "champion", "serves", "since", "added", "size", "SHA-256"),
    *("name", "model", "region", "newest there", "file", "picture", "ID"),
}
"""Columns of tables that are never broken, however narrow the terminal is: what they hold is copied into other commands."""
_ANY_WIDTH = 1_000_000


def row(registry: "Registry", version: str, serves: str) -> dict[str, Any] | None:
    """Return a version's row of the list; where its manifest is damaged, `problem` instead of its facts.

    None for a version that has just been deleted.
    """
    try:
        found = registry.find(version)
    except (IntegrityError, StoreError) as error:
        return {"version": version, "serves": serves, "problem": str(error)}
    if found is None:
        return None
    manifest = found.manifest
    return {
        "version": version,
        "serves": serves,
        "uri": found.uri,
        "architecture": manifest.architecture,
        "accuracy": manifest.metrics.get("accuracy"),
        "metrics": manifest.metrics,
        "classes": len(manifest.classes),
        "size": sum(entry.size for entry in manifest.files.values()),
        "trained_at": manifest.trained_at,
        "created": manifest.created,
        "dataset_digest": manifest.dataset_digest,
        "run": manifest.run,
        "signed": manifest.signature is not None,
    }


def facts(uri: str, manifest: "Manifest") -> list[tuple[str, str]]:
    """Return what `show` says of a version but its files: field and value."""
    from components.bundle.config import VARIANT, Variant

    numbers = ", ".join(f"{name} {value:.4f}" for name, value in manifest.metrics.items())
    parameters = ", ".join(f"{name}={value}" for name, value in manifest.parameters.items() if name != VARIANT)
    variant = Variant.of(manifest.parameters)
    return [
        ("version", manifest.version),
        ("address", uri),
        ("architecture", manifest.architecture),
        *([("made as", str(variant))] if variant else []),
        ("classes", f"{len(manifest.classes)}: {', '.join(manifest.classes)}"),
        ("trained at", manifest.trained_at),
        ("published at", manifest.created),
        ("run", manifest.run or "-"),
        ("dataset", manifest.dataset_digest),
        ("code version", manifest.code_version),
        ("numbers", numbers or "none: published without an evaluation"),
        ("parameters", parameters or "-"),
        ("signature", "signed" if manifest.signature else "not signed"),
    ]


def learning_curves(registry: "Registry", manifest: "Manifest") -> "LearningCurves | None":
    """Return the epochs of a version's training, None where it has none."""
    from components.bundle.files import TRAINING
    from components.bundle.training import LearningCurves

    if TRAINING not in manifest.files:
        return None
    with registry.opened(manifest.version, [TRAINING]) as folder:
        return LearningCurves.of(folder)


def curves_table(curves: "LearningCurves") -> Table:
    """Make a table of at most MAX_EPOCHS epochs, evenly chosen, with the best one marked."""
    shown = table("epoch", "training loss", "validation loss", "accuracy", "rate", "seconds")
    every = math.ceil(len(curves.history) / MAX_EPOCHS)
    for epoch in curves.history:
        best = epoch.epoch == curves.best_epoch
        if best or epoch.epoch % every == 0:
            figures = (epoch.train_loss, epoch.validation_loss, epoch.validation_accuracy)
            rest = (f"{epoch.learning_rate:.1e}", f"{epoch.seconds:.1f}")
            shown.add_row(f"[green]{epoch.epoch}[/]" if best else str(epoch.epoch), *(number(figure) for figure in figures), *rest)
    return shown


def mistakes_table(wrong: "list[WrongPicture]") -> Table:
    """Make a table of wrong pictures; file names are whole."""
    shown = table("label", "predicted", "confidence", "familiarity", "label quality", "file")
    for picture in wrong:
        figures = number(picture.confidence), number(picture.familiarity), number(picture.label_quality)
        shown.add_row(escape(picture.label), escape(picture.predicted), *figures, escape(picture.file or f"row {picture.row}"))
    return shown


def comparison_json(c: "Comparison") -> dict[str, Any]:
    """A comparison for other programs, without the pictures themselves."""
    changed = {
        kind: [{"row": p.row, "file": p.file, "label": p.label, "first": p.first, "second": p.second} for p in pictures]
        for kind, pictures in (("mended", c.mended), ("broken", c.broken))
    }
    paired = c.paired.model_dump(mode="json") if c.paired else None
    return {"standing": c.standing[1], "reason": c.reason, "paired": paired, **changed}


def print_comparison(c: "Comparison") -> None:
    """Print whether the second version is better, by class, and how many pictures changed."""
    if c.paired is None:
        say(f"\nnot compared picture by picture: {escape(c.reason)}")
        return
    p, (tone, words) = c.paired, c.standing
    colour = {"good": "green", "bad": "red"}.get(tone, "bold")
    say(
        f"\nthe second is [{colour}]{words}[/] on the same {p.n} test pictures: accuracy {100 * p.difference:+.2f} points, 95% interval "
        f"{100 * p.difference_low:+.2f} to {100 * p.difference_high:+.2f}, exact McNemar test p {p.mcnemar_p:.2g}"
    )
    say(f"{len(c.mended)} pictures became right, {len(c.broken)} became wrong (--html FILE shows them, --json lists them)")
    moved = [k for k in p.per_class if k.only_challenger or k.only_champion]
    if moved:
        shown = table("class", "pictures", "won", "lost")
        for k in sorted(moved, key=lambda k: -k.only_champion):
            shown.add_row(escape(k.name), str(k.support), str(k.only_challenger), str(k.only_champion))
        show(shown)


def table(*columns: str, heads: bool = True) -> Table:
    """Make a table without lines, whose versions are never cut."""
    table = Table(box=None, show_header=heads, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column,
            overflow="fold",
            no_wrap=column in _WHOLE,
            justify="right" if column in {"size", "#", "accuracy", "seconds", "trials"} else "left",
        )
    return table


def show(table: Table) -> None:
    """Print a table without breaking a word, or a cell of a whole column; into a pipe, without breaking any cell."""
    wide = console.options.update(max_width=_ANY_WIDTH)
    for column in table.columns:
        if column.no_wrap:
            column.min_width = max(Measurement.get(console, wide, cell).maximum for cell in [column.header, *column.cells])
    needed = Measurement.get(console, wide, table)
    if needed.maximum > console.width:
        table.width = max(console.width, needed.minimum) if console.is_terminal else needed.maximum
    console.print(table, crop=False)


def say(text: str) -> None:
    """Print a line that no pipe or narrow terminal breaks apart."""
    console.print(text, soft_wrap=True)


def say_facts(facts: Iterable[tuple[str, str | Text]]) -> None:
    """Print fields with their values, each in one line that no pipe or narrow terminal breaks apart."""
    facts = list(facts)
    width = max(len(field) for field, _ in facts)
    for field, value in facts:
        console.print(Text.assemble((field.ljust(width), "bold"), "  ", value), soft_wrap=True)


def number(value: float | None) -> str:
    """Return a share with four digits, or a dash."""
    return "-" if value is None else f"{value:.4f}"


def value(section: str, value: Any) -> str:
    """Return one side of a difference."""
    if value is None:
        return "[dim]-[/]"
    if section == "files":
        return str(value)[:12]
    if section == "metrics":
        return f"{value:.4f}"
    return escape(str(value))


def change(first: Any, second: Any) -> str:
    """Return by how much a number differs, or nothing."""
    numbers = [
        value for value in (first, second) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    ]
    return f"{numbers[1] - numbers[0]:+.4g}" if len(numbers) == 2 else ""


def when(time: str) -> str:
    """Return a time of the store, ISO 8601 in UTC, for people: 2026-11-29 14:22 UTC."""
    return f"{time[:16].replace('T', ' ')} UTC"


def size_text(size: int) -> str:
    """Return a size for people; powers of 1,000."""
    if size < 1000:
        return f"{size} B"
    power = min(3, (len(str(size)) - 1) // 3)
    return f"{size / 1000**power:.1f} {('', 'kB', 'MB', 'GB')[power]}"
