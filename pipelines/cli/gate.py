"""`penstock gate`: the gate's decision on a version, from what was stored when it was evaluated."""

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from components.classifier.errors import UsageError
from pipelines.cli import models_view as view
from pipelines.cli.output import DEFAULT_STORE, JsonOption, NameOption, StoreOption, VersionArgument, console, print_json
from pipelines.cli.project import open_registry

if TYPE_CHECKING:
    from components.bundle.decision import Decision
    from components.registry import Ledger

app = typer.Typer(no_args_is_help=True, help="Why a model version is promoted or held, and how many test pictures a policy needs.")

EnvironmentOption = Annotated[
    str, typer.Option("--env", envvar="PENSTOCK_ENV", help="Whose policy decides: dev, staging, prod, or the path of an environment file.")
]
PolicyOption = Annotated[
    str, typer.Option("--policy", help='Rules to replace, as JSON: `{"minimum_accuracy": 0.99}`; null turns a rule off.', metavar="JSON")
]

_STYLES = {"pass": "green", "fail": "bold red", "insufficient": "yellow", "skipped": "dim"}
_TABLE_WIDTH = 100
"""Columns that the table needs; on a narrower terminal the rules are listed."""
_VERDICTS = {"promote": "bold green", "hold": "bold red", "insufficient_data": "bold yellow"}


@app.callback()
def group() -> None:
    """Why a model version is promoted or held, and how many test pictures a policy needs."""


@app.command()
def explain(
    version: VersionArgument,
    env: EnvironmentOption = "dev",
    policy: PolicyOption = "{}",
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    as_json: JsonOption = False,
) -> None:
    """Run the gate's decision on a version again, from its stored evaluation.

    Nothing is changed, and a hold is not an error. The comparison is with the version that served when this one was evaluated.

    Example: `penstock gate explain champion --env prod`
    """
    from components.bundle.environment import load_environment
    from components.gate.step import explain as judge_again

    rules = load_environment(env).policy.override(_json(policy), "--policy")
    registry = open_registry(store, name)
    selected = registry.select(version)
    decision = judge_again(registry, selected, rules, env)
    history = _history(registry.ledger, decision)
    if as_json:
        print_json({**decision.model_dump(mode="json"), "history": history})
        return
    _show(decision, history)


@app.command()
def plan(
    policy: Annotated[str, typer.Option("--policy", help="Whose policy: dev, staging, prod, or the path of an environment file.")] = "dev",
    classes: Annotated[int, typer.Option(min=2, help="How many classes of about equal size the test split has.")] = 10,
    discordance: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="On which share of the pictures just one of champion and challenger is right.")
    ] = 0.05,
    group_size: Annotated[
        float, typer.Option(min=1, max=1e6, help="How many test pictures a group has, such as a patient; 1 without groups.")
    ] = 1,
    group_correlation: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="How far a group's pictures are right and wrong together: 0 not at all, 1 wholly.")
    ] = 0.5,
    slices: Annotated[int, typer.Option(min=1, help="How many values of about equal size a column has that slice_floors names.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Say how many test pictures each rule of a policy needs.

    An equally good retrain passes, and a bad model is held, in 80% of the cases. Simulated, so the numbers are right to about a fifth.

    Example: `penstock gate plan --policy prod --classes 10 --discordance 0.05`
    """
    from components.bundle.environment import load_environment
    from components.bundle.policy import bound_text
    from components.gate.scenarios import Setting
    from components.gate.scenarios import plan as plan_pictures

    setting = Setting(classes, discordance, group_size, group_correlation, slices)
    needs = plan_pictures(load_environment(policy).policy, setting)
    if as_json:
        print_json({"policy": policy, **asdict(setting), "rules": [asdict(need) for need in needs]})
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("rule", no_wrap=True)
    for heading in ("bound", "a good one passes with", "a bad one is held with"):
        table.add_column(heading, justify="right")
    for need in needs:
        table.add_row(need.rule, bound_text(need.bound), *("–" if n is None else f"{n:,}" for n in (need.passes, need.catches)))
    console.print(table)
    enough = [need.passes for need in needs]
    if None in enough:
        console.print(Text("– : no number up to 100,000 does"))
    else:
        pictures = max(n for n in enough if n is not None)
        of_groups = f" of {math.ceil(pictures / group_size):,} groups" if group_size > 1 else ""
        console.print(Text(f"a good model passes every rule with {pictures:,} test pictures{of_groups}"))


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"--policy {text!r} is not JSON ({error}); write it like '{{\"minimum_accuracy\": 0.99}}'") from error


def _show(decision: "Decision", history: list[str]) -> None:
    from components.bundle.decision import HEADINGS

    verdict = HEADINGS[decision.verdict]
    console.print(Text.assemble((verdict, _VERDICTS[decision.verdict]), f": {decision.summary}"), soft_wrap=True)
    console.print(Text(f"version {decision.version}, policy of {decision.environment}", "dim"), soft_wrap=True)
    if console.width < _TABLE_WIDTH:
        for rule in decision.rules:
            console.print(Text.assemble((rule.rule, "bold"), " ", (rule.outcome, _STYLES[rule.outcome]), f": {rule.reason}"))
    else:
        console.print(_table(decision))
    for line in decision.remedies:
        console.print(Text.assemble(("would change it: ", "bold"), line), soft_wrap=True)
    for line in history:
        console.print(Text(line), soft_wrap=True)


def _table(decision: "Decision") -> Table:
    from components.bundle.decision import SIGNS
    from components.bundle.policy import bound_text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("rule", no_wrap=True)
    table.add_column("")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("bound", justify="right", no_wrap=True)
    table.add_column("reason", ratio=1)
    for rule in decision.rules:
        outcome = Text(f"{SIGNS[rule.outcome]} {rule.outcome}", _STYLES[rule.outcome])
        table.add_row(rule.rule, outcome, rule.shown, bound_text(rule.bound), Text(rule.reason))
    return table


def _history(ledger: "Ledger", decision: "Decision") -> list[str]:
    """What the ledger says about the version, and whether the comparison is still with what serves."""
    records = ledger.records()
    lines = [
        f"record {record.sequence}: {record.action} by {record.strategy}{f' of {record.actor}' if record.actor else ''} at "
        f"{view.when(record.time)}"
        for record in records
        if record.version == decision.version
    ]
    serving = records[-1].champion if records else ""
    if serving == decision.version:
        lines.append("it serves now")
    elif serving != decision.champion:
        lines.append(
            f"{serving or 'no version'} serves now; the stored comparison is with {decision.champion or 'none'}: a new run compares anew"
        )
    return lines
