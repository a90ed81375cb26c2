"""`penstock watch`: a training is started when the model that serves has become worse, or its pictures others."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from components.classifier.errors import PenstockError, UsageError
from pipelines.cli.drift import counted, reference_of
from pipelines.cli.output import DEFAULT_STORE, JsonOption, NameOption, SettingsOption, StoreOption, console, fail, print_json
from pipelines.cli.project import open_registry
from pipelines.cli.submit import AccountOption, CaOption, ExperimentOption, NamespaceOption, TokenOption, run_arguments

if TYPE_CHECKING:
    from components.registry import Registry
    from pipelines.submit import Server
    from pipelines.watching import ObservedDrift

Launch = Callable[[Callable[[str], None]], None]


def watch(
    predictors: Annotated[
        list[str] | None, typer.Argument(metavar="[URL…]", help="Every replica's address, or files of their /metrics.")
    ] = None,
    settings: SettingsOption = None,
    scores: Annotated[list[str] | None, typer.Option("--scores", metavar="OUTPUT", help="Output of scoring; may be given again.")] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(min=0, max=1, help="Live accuracy to keep.", show_default="minimum_accuracy of the environment's policy")
    ] = None,
    max_drop: Annotated[float, typer.Option(min=0, max=1, help="By how much the accuracy estimated without labels may drop.")] = 0.02,
    min_pictures: Annotated[int, typer.Option(min=1, help="With fewer pictures, or labels, nothing is decided.")] = 100,
    cool_down: Annotated[str, typer.Option(help="After a start none for so long: 12h, 1d.")] = "1d",
    every: Annotated[str, typer.Option(help="Look again and again, with so much time between: 15m.", show_default="look once")] = "",
    once: Annotated[bool, typer.Option("--once", help="Look once, as a CronJob does; that is how it is without --every.")] = False,
    always: Annotated[bool, typer.Option("--always", help="Train even if data, settings and code have not changed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; start and record nothing.")] = False,
    env: Annotated[str, typer.Option("--env", help="Whose policy holds: dev, staging, prod, or a YAML file.")] = "dev",
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    host: Annotated[
        str, typer.Option("--host", envvar="KFP_HOST", help="Train on this Kubeflow Pipelines.", show_default="on this machine")
    ] = "",
    namespace: NamespaceOption = "",
    token: TokenOption = "",
    ca: CaOption = "",
    experiment: ExperimentOption = "penstock",
    service_account: AccountOption = "",
    as_json: JsonOption = False,
) -> None:
    """Start a gated training when the champion's live accuracy or drift is beyond its bounds; what is started is recorded in the store.

    Live accuracy is known from the review queue's labels, drift from what predictors count and from scores. `--set` says what to train on.

    Example: `penstock watch localhost:8080 --set source=s3://data/pets --min-accuracy 0.93 --every 15m`
    """
    from components.bundle.environment import load_environment
    from pipelines.cli.project import project_settings
    from pipelines.cli.run import prepare
    from pipelines.schedules import read_duration
    from pipelines.submit import Server
    from pipelines.watching import Bounds

    if once and every:
        raise UsageError("--once and --every exclude each other; give one of them")
    pause = read_duration(every, "--every") if every else 0
    registry = open_registry(store, name)
    pipeline = "training" if always else "retraining"
    given = [f"name={registry.name}", f"store={store}", f"environment={env}", *(settings or [])]
    if not any(setting.startswith("source=") for setting in [*project_settings(pipeline), *given]):
        raise UsageError("say what to train on: --set source=s3://data/pets, or `parameters: {training: {source: …}}` in penstock.yaml")
    arguments = run_arguments(pipeline, given) if host else prepare(pipeline, given, env="", store="", name="")
    floor = min_accuracy if min_accuracy is not None else load_environment(arguments["environment"]).policy.minimum_accuracy
    bounds = Bounds(floor or 0.0, max_drop, min_pictures, timedelta(seconds=read_duration(cool_down, "--cool-down")))
    server = Server(host, namespace, token, ca) if host else None
    launch = None if dry_run else _launch(pipeline, arguments, server, experiment, service_account, quiet=as_json)

    def look() -> None:
        from components.review.accuracy import live_accuracy
        from components.review.queue import ReviewQueue
        from pipelines.watching import Watches, known_by, reasons, start_once

        version = registry.resolve("champion")
        live = live_accuracy(version, ReviewQueue(registry.store, registry.name).entries(version))
        observed = _observed(registry, version, predictors or [], scores or [])
        why, known = reasons(live, observed, bounds), known_by(live, observed, bounds)
        if not as_json:
            for line in (known, *why):
                console.print(Text(line), soft_wrap=True)
        watches = Watches(registry.store, registry.name)
        done = start_once(
            watches,
            why,
            version,
            pipeline=pipeline,
            where=host,
            cool_down=bounds.cool_down,
            is_active=lambda run: _is_active(run, server),
            launch=launch,
        )
        if as_json:
            print_json({"version": version, "known": known, "reasons": why, "done": done})
        else:
            console.print(Text(f"{version}: {done}"), soft_wrap=True)

    if not pause:
        look()
        return
    from pipelines.cli.run import Interrupted

    while True:
        try:
            look()
        except (UsageError, Interrupted):
            raise
        except PenstockError as error:  # a predictor that restarts, or a store that is away, may be back at the next look
            fail(error)
        time.sleep(pause)


def _observed(registry: "Registry", version: str, predictors: list[str], scores: list[str]) -> list["ObservedDrift"]:
    """What predictors and outputs of scoring have seen of a version; outputs of other versions are left out."""
    from components.score.live_drift import live_drift
    from components.score.output import SUMMARY
    from components.score.summary import read_summary
    from components.storage import open_store
    from pipelines.lineage import read_scores
    from pipelines.watching import ObservedDrift

    observed = []
    if predictors:
        live = live_drift(version, reference_of(registry, version), counted(predictors, version))
        observed.append(ObservedDrift("the predictors", live.watched, live.drift, live.expected_accuracy))
    for output in scores:
        read_scores(output)  # raises for what is not an output of scoring
        summary = read_summary(open_store(output).read(SUMMARY))
        if summary.version == version:
            observed.append(ObservedDrift(output, summary.scored, summary.drift, summary.expected_accuracy))
    return observed


def _launch(pipeline: str, arguments: dict[str, Any], server: "Server | None", experiment: str, account: str, *, quiet: bool) -> Launch:
    """How a training starts: on Kubeflow, or here, where it is followed to its end."""

    def on_kubeflow(started: Callable[[str], None]) -> None:
        from pipelines.submit import submit

        assert server is not None
        started(submit(pipeline, arguments, server, experiment=experiment, service_account=account).run_id)

    def here(started: Callable[[str], None]) -> None:
        from pipelines.cli.run import check, execute
        from pipelines.local import new_run_directory
        from pipelines.local_runs import RUNS

        directory = new_run_directory(RUNS)
        started(directory.name)
        check(execute(pipeline, arguments, quiet=quiet, directory=directory), arguments)

    return on_kubeflow if server else here


def _is_active(run: str, server: "Server | None") -> bool:
    if server:
        from pipelines.submit import is_active

        return is_active(run, server)
    from pipelines.local_runs import list_runs

    return any(it.id == run and it.status == "running" for it in list_runs())
