"""The result of a finished run: the table per class, the gate's decision with its reasons, and where to look next."""

import json
import shlex
import shutil
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from pipelines.cli.output import console, hanging
from pipelines.local import RunResult

if TYPE_CHECKING:
    from components.bundle.search import SearchRecord
    from components.registry import Registry

_OUTCOMES = {"pass": ("✓", "green"), "fail": ("✗", "red"), "insufficient": ("?", "yellow"), "skipped": ("–", "dim")}
MAX_CLASSES = 20
"""Rows of the per-class table; the report has them all."""


def print_summary(pipeline: str, result: RunResult, arguments: dict[str, Any]) -> None:
    """Print the result of a run."""
    if pipeline == "search":
        from components.bundle.search import SearchRecord

        print_search(SearchRecord.load(result.artifact("choose-best", "record")))
        page = result.directory / "search.html"  # the artifact has no suffix, and browsers show it as text
        shutil.copyfile(result.artifact("choose-best", "report"), page)
        console.print(Text(f"trials    {page}  (penstock searches show {result.directory.name})"), soft_wrap=True)
    if pipeline in {"training", "search", "retraining", "variant"}:
        print_training(result, arguments)
        return
    if pipeline == "scoring":
        print_scoring(result)
        return
    for key, value in result.outputs.items():
        console.print(Text(f"{key}: {value}"), soft_wrap=True)
    console.print(f"log: {result.log}", soft_wrap=True)


def print_training(result: RunResult, arguments: dict[str, Any]) -> None:
    """Print a run that made a challenger: the evaluation per class, the decision, and what serves now."""
    from components.registry import Registry
    from components.storage import open_store

    registry = Registry(open_store(arguments["store"]), arguments["name"])
    version = result.returned("publish-model")
    if version is None:
        serves = registry.ledger.champion() or "nothing"
        said = f"Nothing was trained: data, settings and code are those of the last run. {serves} serves."
        console.print(Text(said), soft_wrap=True)
        return
    console.print()
    print_evaluation(registry, version)
    print_decision(result)
    champion = registry.ledger.champion()
    if result.returned("gate-model") == "hold":
        print_after_hold(version, arguments)
    if result.returned("deploy-model") == "held":
        print_overtaken(registry, version)
    console.print(Text.assemble("version   ", (version, "bold"), f"  in {arguments['store']}"), soft_wrap=True)
    console.print(Text.assemble("champion  ", (champion or "none yet", "bold"), "" if result.skipped != ["deploy"] else "  (unchanged)"))
    report = result.directory / "report.html"  # the artifact has no suffix, and browsers show it as text
    shutil.copyfile(result.artifact("gate-model", "report"), report)
    console.print(Text(f"report    {report}"), soft_wrap=True)
    console.print(Text(f"run       {result.directory.name}  (penstock runs show {result.directory.name})"), soft_wrap=True)


def print_overtaken(registry: "Registry", version: str) -> None:
    """Print why a version that the gate let through was not deployed, as the ledger says it: another one came to serve meanwhile."""
    last = next(record for record in reversed(registry.ledger.records()) if record.version == version)
    console.print(Text.assemble((f"{last.action}: ", "bold yellow"), last.reason), soft_wrap=True)


def print_search(record: "SearchRecord") -> None:
    """Print the trials of a search, best first, and the command that trains the winner alone."""
    from components.bundle.search import shown
    from components.report.search import table_rows, within_chance

    names = list(record.winner.settings)
    table = Table(
        title=f"{len(record.last_results())} trials, by {record.winner.validation_pictures} validation pictures", header_style="bold"
    )
    table.title_justify = "left"
    for heading in ("trial", *names, "epochs", "accuracy", "loss", "seconds"):
        table.add_column(heading, justify="right")
    rows = table_rows(record)
    for it in rows:
        figures = (_share(it.validation_accuracy), _share(it.validation_loss)) if not it.error else ("failed", "–")
        cells = [str(it.trial), *(shown(it.settings[name]) for name in names), str(it.epochs), *figures, f"{it.seconds:.1f}"]
        table.add_row(*map(Text, cells), style="bold green" if it.trial == record.best else "")
    console.print()
    console.print(table)
    for it in (row for row in rows if row.error):
        console.print(Text(f"trial {it.trial} failed: {it.error}", style="yellow"), soft_wrap=True)
    if close := within_chance(record.winner, record.last_results()):
        numbers = ", ".join(str(it.trial) for it in close)
        console.print(Text(f"within chance of trial {record.best} (95%): {numbers}"), soft_wrap=True)
    console.print(Text.assemble(("the winner again, alone: ", "dim"), record.command), soft_wrap=True)


def print_after_hold(version: str, arguments: dict[str, Any]) -> None:
    """Print the commands that explain a hold, say how many test pictures it takes, and deploy despite it where that is allowed."""
    from components.bundle.environment import load_environment

    environment = arguments["environment"]
    model = f"--store {shlex.quote(arguments['store'])} --name {arguments['name']}"
    commands = [("why", f"penstock gate explain {version} --env {environment} {model}")]
    commands.append(("what it takes", f"penstock gate plan --policy {environment}"))
    rules = load_environment(environment).deployment
    if "manual" in rules.strategies and rules.held != "refuse":
        override = f"penstock run deployment --env {environment} {model} --set version={version} --set actor=YOU --set reason=WHY"
        commands.append(("deploy it anyway", override))
    for purpose, command in commands:
        console.print(Text.assemble((f"  {purpose:<18}", "dim"), command), soft_wrap=True)
    console.print()


def print_scoring(result: RunResult) -> None:
    """Print a scoring run: how many pictures were answered, which answers, and what was set aside."""
    written = ("plan-shards", "plan") if result.skipped else ("merge-scores", "predictions")
    summary = json.loads((result.artifact(*written) / "summary.json").read_text("utf-8"))
    console.print()
    table = Table(header_style="bold")
    table.add_column("class")
    table.add_column("answers", justify="right")
    for name, count in sorted(summary["classes"].items(), key=lambda item: -item[1])[:MAX_CLASSES]:
        table.add_row(Text(name), str(count))
    console.print(table)
    aside = f"{summary['errors']} unreadable, {summary['passed_over']} passed over"
    console.print(f"{summary['rows']} rows: {summary['scored']} scored, {summary['needs_review']} need review, {aside}")
    for example in summary["error_examples"]:
        console.print(Text("  " + "  ".join(str(value) for value in example.values() if value is not None), style="yellow"), soft_wrap=True)
    for warning in summary["warnings"]:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)
    console.print(Text(f"version   {summary['version']}"), soft_wrap=True)
    console.print(Text(f"output    {summary['output']}"), soft_wrap=True)


def print_evaluation(registry: Any, version: str) -> None:
    """Print precision, recall and F1 of each class on the sealed test split."""
    from components.bundle.evaluation import Evaluation
    from components.bundle.files import EVALUATION

    with registry.opened(version, [EVALUATION]) as folder:
        evaluation = Evaluation.load(folder)
    table = Table(title=f"{evaluation.n} test pictures that training never saw", title_justify="left", header_style="bold")
    table.add_column("class")
    for heading in ("precision", "recall", "F1", "pictures"):
        table.add_column(heading, justify="right")
    weakest = sorted(evaluation.per_class, key=lambda c: (c.f1 is None, c.f1))[:MAX_CLASSES]
    shown = evaluation.per_class if len(evaluation.per_class) <= MAX_CLASSES else weakest
    for entry in shown:
        table.add_row(Text(entry.name), *(_share(v) for v in (entry.precision, entry.recall, entry.f1)), str(entry.support))
    table.add_section()
    accuracy = evaluation.accuracy
    table.add_row("macro F1", "", "", _share(evaluation.macro_f1), str(evaluation.n))
    table.add_row("accuracy", "", "", _share(accuracy.value), f"95%: {accuracy.low:.4f}-{accuracy.high:.4f}")
    console.print(table)
    if len(shown) < len(evaluation.per_class):
        console.print(f"the {MAX_CLASSES} weakest of {len(evaluation.per_class)} classes; the report has all")


def print_decision(result: RunResult) -> None:
    """Print the gate's verdict and one line per rule."""
    from components.bundle.decision import DECISION_KEY, Decision

    metadata = result.metadata("gate-model", "decision")
    decision = Decision.model_validate_json(metadata[DECISION_KEY])
    outcome = str(result.returned("gate-model"))
    colour = "green" if outcome == "deploy" else "yellow"
    console.print(Text.assemble(("gate: ", "bold"), (outcome, f"bold {colour}"), f"  {decision.summary}"))
    for rule in decision.rules:
        mark, style = _OUTCOMES[rule.outcome]
        hanging(console, Text(f"  {mark}", style=style), Text.assemble((f"{rule.rule}: ", "bold"), rule.reason))
    console.print()


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
