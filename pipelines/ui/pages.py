"""The pages as text: each method makes one, from what is stored; the server and the static site show the same."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from components.bundle.files import EVALUATION, REPORT
from components.classifier.errors import EvaluationError, PenstockError, one_line
from components.registry import differences
from components.registry.ledger import deployments
from components.registry.manifest import aware
from components.report.html import template
from components.review.accuracy import live_accuracy
from pipelines import local_runs
from pipelines.lineage import periods, serving_periods
from pipelines.ui import reviewing
from pipelines.ui.stored import MAX_VERSIONS, Row, Stored

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_PAGES = 16
"""Reports and comparisons that are kept as drawn: up to 5 MB each."""
MAX_QUEUED = 120
"""Pictures of the review queue that one page shows."""
PACKAGE = "pipelines.ui"


class Pages:
    """Makes the pages of a store; `static` ones have no forms, since nobody answers them. Every method raises PenstockErrors."""

    def __init__(self, stored: Stored, *, static: bool = False) -> None:
        self.stored, self.static = stored, static
        self._report = lru_cache(MAX_PAGES)(self._draw_report)
        self.comparison = lru_cache(MAX_PAGES)(self._comparison)
        self._plots = lru_cache(MAX_PAGES)(_plots)

    def models(self) -> str:
        """The models of the store."""
        return self._page("models", 0, "Models", models=self.stored.models())

    def model(self, name: str) -> str:
        """A model: its champion, its figures over time and its versions."""
        records = self.stored.registry(name).ledger.records()
        rows = self.stored.rows(name, records)
        served = {record.champion for record in records}
        measured = tuple(
            (row.manifest.trained_at, tuple(sorted(row.manifest.metrics.items())), row.version in served)
            for row in reversed(rows)
            if row.manifest and row.manifest.metrics
        )
        champion = next((row for row in rows if row.serves == "champion"), None)
        since = serving_periods(records)[-1][0].time if champion else ""
        older = max(0, len(self.stored.version_names(name)) - MAX_VERSIONS) if len(rows) >= MAX_VERSIONS else 0
        return self._page(
            "model", 1, name, model=name, here="versions", rows=rows, champion=champion, since=since, older=older,
            plots=self._plots(measured) if len(measured) > 1 else [], chosen=_two_to_compare(rows),
        )  # fmt: skip

    def timeline(self, name: str) -> str:
        """What served when, and why, and every record of the ledger."""
        records = self.stored.registry(name).ledger.records()
        there = set(self.stored.version_names(name))
        spans = [(record, until, _seconds(record.time, until)) for record, until in serving_periods(records)]
        return self._page(
            "timeline", 2, f"{name}: timeline", model=name, here="timeline", spans=spans, there=there, records=list(reversed(records)),
        )  # fmt: skip

    def live(self, name: str) -> str:
        """Accuracy on live pictures by the labels that people gave, and the drift that scoring found."""
        entries = self.stored.queue(name).entries()
        versions = sorted({entry.version for entry in entries}, reverse=True)
        accuracies = [live_accuracy(version, entries) for version in versions]
        there, scores = set(self.stored.version_names(name)), self.stored.scores(name)
        return self._page(
            "live", 2, f"{name}: drift and live accuracy", model=name, here="live", accuracies=accuracies, scores=scores, there=there
        )

    def version(self, name: str, version: str) -> str:
        """One version: where it comes from, its figures, when it served, and what the ledger says about it."""
        manifest = self.stored.manifest(name, version)
        records = self.stored.registry(name).ledger.records()
        stack = deployments(records)
        about = [it for it in reversed(records) if version == it.version or (version == it.champion != it.previous)]
        listed = self.stored.listed(name)
        run = next((run for run in local_runs.list_runs(self.stored.runs) if manifest.run and run.id == manifest.run), None)
        return self._page(
            "version", 2, f"{name} {version}", model=name, here="", m=manifest, run=run, reported=self.has_report(name, version),
            uri=self.stored.registry(name).uri(version), periods=periods(version, records), records=about,
            serves="champion" if stack[-1:] == [version] else "previous" if stack[-2:-1] == [version] else "",
            others=_others(version, listed, stack[-1] if stack else ""), every=[f"{name}/{it}" for it in listed if it != version],
        )  # fmt: skip

    def others(self, name: str, version: str) -> dict[str, str]:
        """The versions that a version's page offers to compare it with, and what they are to it."""
        return _others(version, self.stored.listed(name), self.stored.registry(name).ledger.champion() or "")

    def report(self, name: str, version: str) -> str:
        """The report of a version's evaluation, with the last decision that the ledger holds about it."""
        decided = [record.sequence for record in self.stored.registry(name).ledger.records() if record.version == version]
        return self._report(name, self.stored.manifest(name, version).version, tuple(decided))

    def has_report(self, name: str, version: str) -> bool:
        """Whether a version was published with an evaluation or a report."""
        return bool({EVALUATION, REPORT} & self.stored.manifest(name, version).files.keys())

    def _draw_report(self, name: str, version: str, _decided: tuple[int, ...]) -> str:
        from components.report.html import stored_report

        return stored_report(self.stored.registry(name), version, self._navigation(3, name))

    def _comparison(self, first: tuple[str, str], second: tuple[str, str]) -> str:
        """Two versions beside each other, each as (name, version); without evaluations, only what they were made of differs."""
        from components.evaluate.comparison import compare_versions
        from components.report.comparison import render_comparison

        a, b = (self.stored.manifest(*side) for side in (first, second))
        found = differences(a, b)
        try:
            compared = compare_versions(self.stored.evaluated(*first), self.stored.evaluated(*second))
        except EvaluationError as error:
            title = f"{a.version} and {b.version}"
            return self._page("differences", 4, title, model=b.name, here="", a=a, b=b, problem=str(error), differences=found)
        return render_comparison(compared, found, self._navigation(4, b.name))

    def runs(self) -> str:
        """The runs of this folder."""
        return self._page("runs", 0, "Runs", here="runs", runs=local_runs.list_runs(self.stored.runs), folder=self.stored.runs.resolve())

    def run(self, identity: str) -> str:
        """One run: parameters, steps, outcome."""
        run = local_runs.find_run(identity, self.stored.runs)
        return self._page("run", 1, f"Run {run.id}", here="runs", run=run, log=(self.stored.runs / run.id / "run.log").is_file())

    def review(self, name: str, chosen: reviewing.Chosen = reviewing.EVERYTHING) -> str:
        """The review queue, least confident first."""
        entries = self.stored.queue(name).entries()
        found = reviewing.select(entries, chosen)
        return self._page(
            "review", 1, f"{name}: review queue", model=name, here="review", chosen=chosen, entries=found[:MAX_QUEUED], found=len(found),
            versions=sorted({entry.version for entry in entries}, reverse=True), counts=reviewing.counts(entries),
            states=reviewing.STATES, reasons=reviewing.REASONS,
        )  # fmt: skip

    def label(self, name: str, chosen: reviewing.Chosen, *, picture: str, after: str, last: tuple[str, str] | None) -> str:
        """One picture of the queue to label: `picture`, or the next one after another; `last` is what `u` takes back."""
        entries = self.stored.queue(name).entries()
        entry, left = reviewing.next_entry(entries, chosen, picture=picture, after=after)
        choices = reviewing.choices(entry.id, entries) if entry else []
        return self._page(
            "label", 2, f"{name}: label pictures", model=name, here="review", chosen=chosen, entry=entry, left=left, choices=choices,
            likely=reviewing.likely(entry, choices) if entry else [], last=last, after=after,
        )  # fmt: skip

    def error(self, depth: int, error: PenstockError | str) -> str:
        """What went wrong, in one line."""
        return self._page("error", depth, "Not possible", problem=one_line(error, None))

    def _page(self, page: str, depth: int, title: str, **values: Any) -> str:
        found = {"here": "models", "model": "", **values}
        return template(f"{page}.html.jinja", PACKAGE).render(
            root="../" * depth, title=title, store=self.stored.store.url, static=self.static, max_versions=MAX_VERSIONS, **found
        )

    def _navigation(self, depth: int, name: str) -> "Markup":
        from markupsafe import Markup

        found = {"root": "../" * depth, "here": "", "model": name, "store": self.stored.store.url}
        return Markup(template("navigation.html.jinja", PACKAGE).render(**found))  # a template of ours, which escapes


def _others(version: str, names: Sequence[str], champion: str) -> dict[str, str]:
    before = next((other for other in names if other < version), "")
    found = {before: "the version before it", champion: "the champion"}
    return {other: title for other, title in found.items() if other in names and other != version}


def _two_to_compare(rows: Sequence[Row]) -> tuple[str, str]:
    """The versions that are chosen when a list is opened: the champion and the newest, or else the two newest."""
    names = [row.version for row in rows if row.manifest]
    champion = next((row.version for row in rows if row.serves == "champion"), "")
    newest = next((name for name in names if name != champion), "")
    first, second = sorted((champion or next((name for name in names if name != newest), newest), newest))
    return first, second


def _seconds(since: str, until: str) -> float:
    end = datetime.fromisoformat(until) if until else datetime.now(UTC)
    return max(0.0, (end - datetime.fromisoformat(since)).total_seconds())


def _plots(measured: tuple[tuple[str, tuple[tuple[str, float], ...], bool], ...]) -> "list[Markup]":
    """The figures of versions over the time of their training: accuracy and macro F1, and calibration error."""
    from markupsafe import Markup

    from components.report.plots import history_plot

    times = [aware(trained_at).astimezone(UTC) for trained_at, _, _ in measured]
    served = [mark for _, _, mark in measured]
    figures = [dict(metrics) for _, metrics, _ in measured]
    shown = [
        ("quality", {"accuracy": "accuracy", "macro F1": "macro_f1"}, "share"),
        ("calibration", {"calibration error": "ece"}, "ECE"),
    ]
    drawn = []
    for name, lines, label in shown:
        values = {title: [it.get(key) for it in figures] for title, key in lines.items()}
        if any(value is not None for line in values.values() for value in line):
            drawn.append(Markup(history_plot(name, times, values, served, label)))  # numbers only: no name of the data gets there
    return drawn
