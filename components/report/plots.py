"""The report's plots, as inline SVG whose colours follow the page's theme."""

import io
import math
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.bundle.evaluation import Calibration, CoveragePoint, ReliabilityBin, Tradeoff
from components.bundle.training import LearningCurves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, LINE, ACCENT, GOOD, BAD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
"""Stand-ins for the page's colours: matplotlib knows no CSS variables."""

_ROLES = {"this model": (ACCENT, "o"), "parent": (MUTED, "s"), "champion": (GOOD, "D"), "parent and champion": (GOOD, "s")}
"""Colour and mark of a model in a plot of several."""

_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", ACCENT: "accent", GOOD: "good", BAD: "bad"}


def reliability_plot(calibration: Calibration) -> str:
    """Accuracy over confidence, before and after temperature scaling, above the number of pictures in each bin."""
    figure = _figure(5.4, 4.4)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
    top.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    top.text(0.035, 0.075, "perfectly calibrated", color=MUTED, fontsize=9, rotation=36, rotation_mode="anchor")
    before, after = _points(calibration.bins_before), _points(calibration.bins)
    top.plot(
        *before,
        clip_on=False,
        color=MUTED,
        linewidth=1.3,
        marker="o",
        markersize=4,
        label=f"before scaling, ECE {calibration.ece_before:.4f}",
    )
    top.plot(
        *after, clip_on=False, color=ACCENT, linewidth=2, marker="o", markersize=5, label=f"as shipped, ECE {calibration.ece_after:.4f}"
    )
    top.set(xlim=(0, 1), ylim=(0, 1.03), ylabel="accuracy")
    figure.legend(loc="upper left", bbox_to_anchor=(0.12, 1.0), frameon=False, fontsize=10, labelcolor=INK)
    bins = calibration.bins
    width = bins[0].high - bins[0].low
    bottom.bar([b.low for b in bins], [b.n for b in bins], width=width * 0.86, align="edge", color=ACCENT, alpha=0.75)
    bottom.set(xlabel="confidence", ylabel="pictures")
    largest = max(b.n for b in bins)
    if largest > 50 * max(1, sorted(b.n for b in bins)[-2]):
        bottom.set_yscale("symlog")
        power = int(math.log10(largest))
        bottom.set_yticks([10 ** (power // 2), 10**power], [f"{10 ** (power // 2):,}", f"{10**power:,}"], minor=False)
        bottom.minorticks_off()
    return _svg(figure, "reliability", [top, bottom])


def coverage_plot(points: list[CoveragePoint]) -> str:
    """Accuracy of what is answered, over the share that is answered, as the review threshold rises."""
    figure = _figure(5.4, 4.4)
    axes = figure.subplots()
    known = [point for point in points if point.accuracy is not None]
    shares, accuracies = [100 * p.coverage for p in known], [100 * (p.accuracy or 0) for p in known]
    axes.plot(shares, accuracies, color=ACCENT, linewidth=2, marker="o", markersize=5)
    drawn: list[tuple[float, float]] = []
    span_x = max(shares, default=0) - min(shares, default=0) or 1
    span_y = max(accuracies, default=0) - min(accuracies, default=0) or 1
    for point, x, y in zip(known, shares, accuracies, strict=True):
        far = all(abs(x - u) / span_x > 0.1 or abs(y - v) / span_y > 0.07 for u, v in drawn)
        if far and point.threshold:
            axes.annotate(f"{point.threshold:g}", (x, y), xytext=(6, 6), textcoords="offset points", color=MUTED, fontsize=9)
            drawn.append((x, y))
    axes.margins(0.09, 0.12)
    axes.set(xlabel="answered without a person, % of pictures", ylabel="accuracy of the answers, %")
    if axes.get_ylim()[1] > 100:
        axes.set_ylim(top=100.5)
    axes.ticklabel_format(useOffset=False)
    return _svg(figure, "coverage", [axes])


def learning_plot(curves: LearningCurves) -> str:
    """Loss, validation accuracy and learning rate over the epochs, one above the other; the epoch whose weights were kept is marked."""
    figure = _figure(5.4, 5.4)
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=[2.2, 1.6, 0.9])
    history = curves.history
    epochs = [epoch.epoch for epoch in history]
    loss.plot(epochs, [e.train_loss for e in history], color=MUTED, linewidth=1.3, marker="o", markersize=3, label="training")
    known = [(e.epoch, e.validation_loss, e.validation_accuracy) for e in history if e.validation_loss is not None]
    if known:
        x, losses, accuracies = zip(*known, strict=True)
        loss.plot(x, losses, color=ACCENT, linewidth=2, marker="o", markersize=4, label="validation")
        accuracy.plot(x, [100 * (value or 0) for value in accuracies], color=ACCENT, linewidth=2, marker="o", markersize=4)
    if min(e.train_loss for e in history) > 0:
        loss.set_yscale("log")
        loss.minorticks_off()
    rate.plot(epochs, [e.learning_rate for e in history], color=MUTED, linewidth=1.5)
    for axes in (loss, accuracy, rate):
        axes.axvline(curves.best_epoch, color=GOOD, linewidth=1, linestyle=(0, (3, 3)))
    loss.set(ylabel="loss")
    accuracy.set(ylabel="accuracy, %")
    if accuracy.get_ylim()[1] > 100:
        accuracy.set_ylim(top=100.5)
    accuracy.ticklabel_format(axis="y", useOffset=False)
    rate.set(ylabel="rate", xlabel="epoch")
    rate.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="upper left", bbox_to_anchor=(0.12, 1.0), frameon=False, fontsize=10, labelcolor=INK, ncols=2)
    return _svg(figure, "learning", [loss, accuracy, rate])


def tradeoff_plot(found: Tradeoff) -> str:
    """Accuracy with its 95% interval over the time for one picture, alone and in batches, of each model."""
    figure = _figure(7.6, 3.9)
    figure.subplots_adjust(left=0.1, wspace=0.14, top=0.87)
    panels = figure.subplots(1, 2, sharey=True)
    titles = ("one picture at a time", f"in batches of {found.batch}")
    for axes, title, batched in zip(panels, titles, (False, True), strict=True):
        for k, model in enumerate(found.models):
            x, y = (model.batch_ms if batched else model.one_ms), 100 * model.accuracy
            spread = [[y - 100 * model.low], [100 * model.high - y]]
            colour, mark = _ROLES[model.role]
            label = None if batched else f"{k + 1} {model.role}"
            axes.errorbar([x], [y], yerr=spread, color=colour, marker=mark, markersize=8, elinewidth=1, capsize=3, linewidth=0, label=label)
            apart = (-14, -13) if k % 2 else (8, 7)  # models that are nearly equal keep their numbers apart
            axes.annotate(str(k + 1), (x, y), xytext=apart, textcoords="offset points", color=INK, fontsize=10)
        axes.set(xlabel=f"ms per picture, {title}")
        axes.set_xlim(0, 1.18 * max(m.batch_ms if batched else m.one_ms for m in found.models))
        axes.locator_params(axis="x", nbins=4)
        axes.ticklabel_format(axis="y", useOffset=False)
    panels[0].set(ylabel="accuracy, %")
    columns = min(3, len(found.models))
    figure.legend(loc="upper left", bbox_to_anchor=(0.08, 1.0), frameon=False, fontsize=10, labelcolor=INK, ncols=columns)
    return _svg(figure, "tradeoff", list(panels))


def history_plot(
    name: str, times: Sequence[datetime], lines: Mapping[str, Sequence[float | None]], served: Sequence[bool], label: str
) -> str:
    """One or two figures of a model's versions over the time of their training; versions that served are filled green.

    `name` sets this plot apart from others of its page; `label` is the axis' name; None is left out.
    """
    import numpy as np
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    figure = _figure(5.4, 3.4)
    axes = figure.subplots()
    x = np.array([time.astimezone(UTC).replace(tzinfo=None) for time in times], "datetime64[s]")
    for (title, values), colour in zip(lines.items(), (ACCENT, MUTED), strict=False):
        y = np.array([np.nan if value is None else value for value in values])
        known, marked = ~np.isnan(y), ~np.isnan(y) & np.array(served)
        axes.plot(x[known], y[known], color=colour, linewidth=1.3, marker="o", markersize=4, label=title)
        axes.plot(x[marked], y[marked], color=GOOD, linewidth=0, marker="o", markersize=7)
    axes.set(ylabel=label)
    axes.margins(0.06, 0.14)
    axes.ticklabel_format(axis="y", useOffset=False)
    locator: Any = AutoDateLocator(minticks=2, maxticks=6)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    figure.legend(loc="upper left", bbox_to_anchor=(0.12, 1.0), frameon=False, fontsize=10, labelcolor=INK, ncols=2)
    return _svg(figure, name, [axes])


@dataclass(frozen=True)
class Axis:
    """One vertical axis of the picture: its title, where each trial lies on it (0 to 1, None: nowhere), and its ticks."""

    title: str
    places: list[float | None]
    ticks: list[tuple[float, str]]


def trials_plot(axes: Sequence[Axis], best: Sequence[bool]) -> str:
    """Parallel coordinates: one line per trial across the axes, `best` marks the one that won."""
    figure = _figure(9.0, 4.2)
    figure.subplots_adjust(left=0.06, right=0.94, bottom=0.05, top=0.87)
    drawn = figure.subplots()
    for number, won in sorted(enumerate(best), key=lambda it: it[1]):
        points = [(place, one.places[number]) for place, one in enumerate(axes) if one.places[number] is not None]
        colour = GOOD if won else BAD if axes[-1].places[number] is None else ACCENT
        width, size = (3.0, 5) if won else (1.3, 3)
        drawn.plot(
            *zip(*points, strict=True), color=colour, linewidth=width, alpha=1 if won else 0.55, marker="o", markersize=size, zorder=3
        )
    for place, one in enumerate(axes):
        drawn.axvline(place, color=LINE, linewidth=1.2, zorder=1)
        drawn.text(place, 1.11, one.title, color=INK, fontsize=10, ha="center", parse_math=False)
        for height, text in _apart(one.ticks):
            drawn.annotate(
                text, (place, height), (6, 3), textcoords="offset points", color=MUTED, fontsize=9, va="bottom", parse_math=False, zorder=4
            )
    drawn.set(xlim=(-0.05, len(axes) - 0.8), ylim=(-0.03, 1.08))
    drawn.set_axis_off()
    return _svg(figure, "trials", [drawn])


def _apart(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Leave out ticks whose texts would lie on one another; those at the ends of the axis come first."""
    kept: list[tuple[float, str]] = []
    for height, text in sorted(ticks, key=lambda tick: (tick[0] not in (0.0, 1.0), -tick[0])):
        if all(abs(height - other) >= 0.05 for other, _ in kept):
            kept.append((height, text))
    return kept


def _points(bins: list[ReliabilityBin]) -> tuple[list[float], list[float]]:
    filled = [(b.confidence, b.accuracy) for b in bins if b.confidence is not None and b.accuracy is not None]
    return [x for x, _ in filled], [y for _, y in filled]


def _figure(width: float, height: float) -> "Figure":
    _keep_caches_writable()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="none")
    # Fixed margins: working them out from the text costs as much time as the drawing.
    figure.subplots_adjust(left=0.14, right=0.975, bottom=0.115, top=0.87, hspace=0.12)
    return figure


def _keep_caches_writable() -> None:
    """Send matplotlib's cache to the temporary folder where there is no home to write to, as under a number without an account."""
    try:
        home: Path | None = Path.home()
    except RuntimeError:
        home = None
    if "MPLCONFIGDIR" not in os.environ and (home is None or not os.access(home, os.W_OK)):
        os.environ["MPLCONFIGDIR"] = str(Path(tempfile.gettempdir()) / f"penstock-matplotlib-{os.getuid()}")


def _svg(figure: "Figure", name: str, axes: list[Any]) -> str:
    import matplotlib

    for one in axes:
        one.set_facecolor("none")
        one.grid(color=LINE, linewidth=0.8, axis="y" if one.patches else "both")
        one.set_axisbelow(True)
        one.tick_params(colors=MUTED, length=0, labelsize=9)
        one.xaxis.label.set(color=MUTED, fontsize=10)
        one.yaxis.label.set(color=MUTED, fontsize=10)
        for side, spine in one.spines.items():
            spine.set(visible=side in {"left", "bottom"}, color=LINE)
    buffer = io.StringIO()
    # Text stays text, so that it is drawn in the page's font and can be read aloud; the salt makes the file repeatable.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for part in (r"<metadata>.*?</metadata>", r"<defs>\s*<style.*?</defs>", r' xmlns(:xlink)?="[^"]*"', r"font-family: [^;\"]*(; )?"):
        svg = re.sub(part, "", svg, flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[^"]*pt"', "", svg)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg).replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg
