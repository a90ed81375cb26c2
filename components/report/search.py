"""The trials of a search as one self-contained HTML file: a table, and a picture with one line per trial."""

import math
from collections.abc import Sequence
from typing import Any

from components.bundle.search import SearchRecord, TrialResult, shown
from components.classifier.intervals import proportion_interval
from components.report import plots
from components.report.html import template
from components.report.plots import Axis


def render_search(record: SearchRecord) -> str:
    """Render the report of a search."""
    from markupsafe import Markup

    last = record.last_results()
    names = list(last[0].settings)
    winner = record.winner
    return template("search.html.jinja").render(
        record=record,
        winner=winner,
        names=names,
        shown=shown,
        rows=table_rows(record),
        close=within_chance(winner, last),
        # matplotlib's own markup, in which it escapes what is written
        picture=Markup(plots.trials_plot(axes_of(last), [it.trial == record.best for it in last])),
    )


def table_rows(record: SearchRecord) -> list[TrialResult]:
    """Return the last result of each trial, best first: who came farther, then by validation accuracy, then by the lower loss."""
    worst = float("inf")

    def order(it: TrialResult) -> tuple[bool, bool, int, float, float, int]:
        loss = worst if it.validation_loss is None else it.validation_loss
        return it.trial != record.best, bool(it.error), -it.rung, -(it.validation_accuracy or 0), loss, it.trial

    return sorted(record.last_results(), key=order)


def within_chance(winner: TrialResult, others: Sequence[TrialResult]) -> list[TrialResult]:
    """Return the trials that trained as long as the winner and whose accuracy lies in the 95% interval of the winner's.

    The interval is Wilson's for one proportion; since both saw the same pictures, that is careful.
    """
    low, _ = proportion_interval(round((winner.validation_accuracy or 0) * winner.validation_pictures), winner.validation_pictures)
    rivals = (it for it in others if it.trial != winner.trial and not it.error and it.until == winner.until)
    return [it for it in rivals if (it.validation_accuracy or 0) >= low]


def axes_of(trials: Sequence[TrialResult]) -> list[Axis]:
    """Return the axes of the picture: one for each setting, then the epochs that a trial had, and its validation accuracy."""
    settings = [
        axis(name, [shown(None) if it.settings[name] is None else it.settings[name] for it in trials]) for name in trials[0].settings
    ]
    accuracy = [None if it.validation_accuracy is None else 100 * it.validation_accuracy for it in trials]
    return [*settings, axis("epochs", [it.epochs for it in trials]), axis("accuracy, %", accuracy)]


def axis(title: str, values: Sequence[Any]) -> Axis:
    """Place values on an axis: numbers by size (by their logarithm where they are spread over a factor of ten), others evenly.

    None has no place. Every value gets a tick where there are at most six, otherwise only the ends.
    """
    known = list(dict.fromkeys(value for value in values if value is not None))
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        known.sort()
        scale = math.log if known and known[0] > 0 and known[-1] / known[0] >= 10 else float
        sizes = [scale(value) for value in known]
    else:
        sizes = [float(place) for place in range(len(known))]
    span = sizes[-1] - sizes[0] if known else 0.0
    places = {value: (size - sizes[0]) / span if span else 0.5 for value, size in zip(known, sizes, strict=True)}
    ticks = known if len(known) <= 6 else [known[0], known[-1]]
    return Axis(title, [places.get(value) for value in values], [(places[value], shown(value)) for value in ticks])
