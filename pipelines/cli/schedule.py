"""`penstock schedule`: runs on Kubeflow that start by themselves, at given times."""

from collections.abc import Callable
from typing import Annotated

import typer
from rich.text import Text

from pipelines.cli import models_view as view
from pipelines.cli.output import JsonOption, SettingsOption, console, print_json, warn_of_default_image
from pipelines.cli.project import DEFAULT_NAME
from pipelines.cli.submit import (
    AccountOption,
    CaOption,
    ExperimentOption,
    HostOption,
    MlflowOption,
    NamespaceOption,
    TokenOption,
    run_arguments,
)

app = typer.Typer(no_args_is_help=True, help="Start trainings and scorings on Kubeflow at given times; list, pause, resume, delete.")

CronOption = Annotated[str, typer.Option("--cron", help='When, in UTC: "minute hour day month weekday".')]
EveryOption = Annotated[str, typer.Option("--every", help="The time between two starts: 30m, 6h, 1d.")]
AsOption = Annotated[str, typer.Option("--as", help="The schedule's name.", show_default="PIPELINE-MODEL")]
ScheduleArgument = Annotated[str, typer.Argument(metavar="SCHEDULE", help="A schedule's name or ID.", show_default=False)]


def _starting(pipeline: str) -> Callable[..., None]:
    """Make the command that has a pipeline started again and again."""

    def start(
        host: HostOption,
        cron: CronOption = "",
        every: EveryOption = "",
        settings: SettingsOption = None,
        name: AsOption = "",
        namespace: NamespaceOption = "",
        token: TokenOption = "",
        ca: CaOption = "",
        experiment: ExperimentOption = "penstock",
        service_account: AccountOption = "",
        always: Annotated[
            bool, typer.Option("--always", help="Train even when nothing has changed.", hidden=pipeline != "training")
        ] = False,
        mlflow: MlflowOption = "",
        as_json: JsonOption = False,
    ) -> None:
        from pipelines.schedules import create_schedule, read_trigger
        from pipelines.submit import Server

        trigger = read_trigger(cron, every)
        arguments = run_arguments(pipeline, settings)
        if always and pipeline != "training":
            raise typer.BadParameter("--always is for trainings")
        made = create_schedule(
            "retraining" if pipeline == "training" and not always else pipeline,
            arguments,
            Server(host, namespace, token, ca),
            trigger,
            name=name or f"{pipeline}-{arguments.get('name', DEFAULT_NAME)}",
            experiment=experiment,
            service_account=service_account,
            mlflow=mlflow,
        )
        warn_of_default_image()
        if as_json:
            print_json({"id": made.id, "name": made.name, "trigger": str(made.trigger)})
        else:
            console.print(f"{made.name} starts {made.trigger}, one run at a time (ID {made.id})", soft_wrap=True, markup=False)

    return start


def _changing(action: str, done: str) -> Callable[..., None]:
    """Make the command that changes a schedule, and says what it is then: `done`."""

    def change(
        schedule: ScheduleArgument, host: HostOption, namespace: NamespaceOption = "", token: TokenOption = "", ca: CaOption = ""
    ) -> None:
        from pipelines.schedules import change_schedule
        from pipelines.submit import Server

        changed = change_schedule(Server(host, namespace, token, ca), schedule, action)
        console.print(f"{changed.name} is {done}", markup=False, soft_wrap=True)

    return change


app.command(
    "training",
    help="""Train again and again, one run at a time, whenever data, settings or code have changed; the gate decides about each.

    `penstock params training` lists what can be set.

    Example: `penstock schedule training --cron "0 6 * * 1" --set store=s3://models/penstock --set source=s3://data/pets`
    """,
)(_starting("training"))
app.command(
    "scoring",
    help="""Score again and again, one run at a time, by the champion of that time. `penstock params scoring` lists what can be set.

    Example: `penstock schedule scoring --every 6h --set store=s3://models/penstock --set input=s3://data/new --set output=s3://data/scores`
    """,
)(_starting("scoring"))


@app.command("list")
def list_all(
    host: HostOption, namespace: NamespaceOption = "", token: TokenOption = "", ca: CaOption = "", as_json: JsonOption = False
) -> None:
    """List the namespace's schedules, also those that were made in Kubeflow's UI.

    Example: `penstock schedule list`
    """
    from pipelines.schedules import list_schedules
    from pipelines.submit import Server

    found = list_schedules(Server(host, namespace, token, ca))
    if as_json:
        print_json([{"id": one.id, "name": one.name, "state": one.state, "trigger": str(one.trigger)} for one in found])
        return
    if not found:
        console.print('No schedule yet; `penstock schedule training --cron "0 6 * * 1"` makes one.', soft_wrap=True)
        return
    wide = max(len(f"{one.name} {one.trigger} {one.id}") for one in found) + len("active") + 6 <= console.width  # a name is enough
    table = view.table("name", "state", "starts", *(["ID"] if wide else []))
    for one in found:
        table.add_row(Text(one.name), one.state, Text(str(one.trigger)), *([Text(one.id)] if wide else []))
    view.show(table)


app.command(
    "pause",
    help="""Start no more runs until it is resumed; a run that goes on ends by itself.

    Example: `penstock schedule pause training-pets`
    """,
)(_changing("pause", "paused"))
app.command(
    "resume",
    help="""Start runs again; the ones that were missed are not made up for.

    Example: `penstock schedule resume training-pets`
    """,
)(_changing("resume", "active"))
app.command(
    "delete",
    help="""Delete a schedule; its runs and what they published stay.

    Example: `penstock schedule delete training-pets`
    """,
)(_changing("delete", "deleted"))
