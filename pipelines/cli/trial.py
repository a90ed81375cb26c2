"""`penstock trial`: one training that the validation split judges, for programs that search, such as Katib."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from components.classifier.errors import TrainingError, UsageError
from pipelines.cli.output import DEFAULT_STORE, SettingsOption
from pipelines.cli.project import name_of_source
from pipelines.cli.run import RunNameOption, checkpoints_here, prepare


def trial(
    source: Annotated[
        str, typer.Argument(help="A source of pictures, or a dataset version: a folder that ingest wrote, or the address of a kept one.")
    ],
    settings: SettingsOption = None,
    until: Annotated[
        int, typer.Option("--until", min=0, help="Pause after this many epochs; a later trial with the same settings goes on. 0: all.")
    ] = 0,
    store: Annotated[str, typer.Option("--store", envvar="PENSTOCK_STORE", help="Where checkpoints and weights lie.")] = DEFAULT_STORE,
    name: RunNameOption = "",
) -> None:
    """Train once, and print what the validation split says in the form that Katib reads. The test split is not opened.

    Settings are those of `penstock run training`. The last lines are `TIME validation_accuracy=0.9888` and the like. Exit code 1: the
    training failed, such as one that diverged.

    Example: `penstock trial digits --set learning_rate=0.003 --set epochs=6`
    """
    from components.train import prepare_environment

    prepare_environment()
    from components.bundle.dataset import Dataset
    from components.bundle.search import Trial
    from components.ingest.ingest import ingest
    from components.search.steps import remove_checkpoints
    from components.settings.ingest import IngestSettings
    from components.settings.search import settings_of_trial
    from components.train.trial import train_trial

    made = (Path(source) / "dataset.json").is_file()
    chosen = [*([] if made else [f"source={source}"]), *(settings or [])]
    called = name_of_source(Dataset.load(source).info.source) if made and not name else name
    arguments = prepare("training", chosen, env="", store=store, name=called)
    if made and arguments["ingest"]:
        raise UsageError(f"{source} is a dataset version, which is taken as it is; remove {', '.join(arguments['ingest'])}")
    here = {} if "://" in arguments["store"] else {"checkpoints": checkpoints_here()}  # otherwise they lie in the store
    options = settings_of_trial(here | arguments["training"], arguments, {})
    if until > int(options.epochs):
        raise UsageError(f"--until={until} is more than epochs={options.epochs}; raise epochs, which the learning rate follows")
    asked = Trial(trial=1, settings={}, rung=1, until=until or int(options.epochs))
    with tempfile.TemporaryDirectory(prefix="penstock-trial-") as folder:
        dataset = source if made else f"{folder}/dataset"
        if not made:
            ingest(source, dataset, IngestSettings.read(arguments["ingest"]), store=arguments["store"])
        result = train_trial(dataset, asked, options, arguments["store"])
    if result.error:
        raise TrainingError(result.error)
    if asked.until == options.epochs:
        remove_checkpoints([result])
    for figure, value in result.figures().items():
        print(f"{datetime.now(UTC).isoformat()} {figure}={value}")
