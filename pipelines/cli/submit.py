"""`penstock submit`: a run on Kubeflow."""

from typing import Annotated, Any

import typer
from rich.text import Text

from components.classifier.errors import UsageError
from pipelines.cli.output import JsonOption, PipelineArgument, SettingsOption, console, errors, print_json, warn_of_default_image
from pipelines.cli.project import DEFAULT_NAME, name_of_source, project_settings, read_project

HostOption = Annotated[str, typer.Option("--host", envvar="KFP_HOST", help="Address of Kubeflow Pipelines.")]
NamespaceOption = Annotated[str, typer.Option("--namespace", envvar="KFP_NAMESPACE", help="The profile, on a multi-user Kubeflow.")]
TokenOption = Annotated[str, typer.Option("--token", envvar="KFP_TOKEN", help="A bearer token.")]
CaOption = Annotated[str, typer.Option("--ca", help="Certificates of a private CA.")]
ExperimentOption = Annotated[str, typer.Option("--experiment", help="The experiment that the run belongs to.")]
MlflowOption = Annotated[
    str, typer.Option("--mlflow-experiment", help="Where Kubeflow's own MLflow plugin keeps the run; none keeps it out of MLflow.")
]
AccountOption = Annotated[str, typer.Option("--service-account", help="Who the steps run as.")]


def submit(
    pipeline: PipelineArgument,
    host: HostOption,
    settings: SettingsOption = None,
    namespace: NamespaceOption = "",
    token: TokenOption = "",
    ca: CaOption = "",
    experiment: ExperimentOption = "penstock",
    service_account: AccountOption = "",
    mlflow: MlflowOption = "",
    follow: Annotated[bool, typer.Option("--watch", help="Follow the run to its end; exit code 1 unless it succeeds.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compile a pipeline and start a run of it on Kubeflow.

    The steps' image is taken from PENSTOCK_IMAGE, and the predictor's from PENSTOCK_PREDICTOR_IMAGE, or by the first one's
    name. The cluster must be able to pull both. PENSTOCK_RESOURCES names a file that says what single steps ask of the cluster.
    `penstock submit PIPELINE --help` lists what can be set.

    Example: `penstock submit training --host http://localhost:8080 --set store=s3://models/penstock --set gpus=1`
    """
    from pipelines.submit import NO_EXPERIMENT, Server, watch
    from pipelines.submit import submit as send

    arguments = run_arguments(pipeline, settings)
    server = Server(host, namespace, token, ca)
    sent = send(pipeline, arguments, server, experiment=experiment, service_account=service_account, mlflow=mlflow)
    warn_of_default_image()
    if as_json:
        print_json({"run_id": sent.run_id, "url": sent.url, **({"mlflow": sent.mlflow} if sent.mlflow else {})})
    else:
        console.print(f"started run {sent.run_id}\nwatch it at {sent.url}", soft_wrap=True)
        if sent.mlflow:
            console.print(f"in MLflow at {sent.mlflow}", soft_wrap=True)
    if mlflow and mlflow != NO_EXPERIMENT and not sent.mlflow:
        errors.print("note: the server started no MLflow run: it is older than 2.17, or its MLflow plugin is not set up", soft_wrap=True)
    if follow:
        watch(pipeline, sent.run_id, server, lambda step, state: errors.print(Text(f"{step:<24}{state}"), soft_wrap=True))


def run_arguments(pipeline: str, settings: list[str] | None) -> dict[str, Any]:
    """The arguments of a run on Kubeflow: what penstock.yaml says, and over it the `--set` of the command line.

    Raises UsageError for an unknown pipeline or parameter, and for values that the steps would refuse.
    """
    from pipelines.catalogue import load_pipeline
    from pipelines.parameters import check_groups, parameter_defaults, parse_settings

    loaded = load_pipeline(pipeline)
    project, known = read_project(), parameter_defaults(loaded)
    chosen = {"store": project.store, "name": project.name, "environment": project.environment}
    arguments = {key: value for key, value in chosen.items() if value and key in known}
    arguments |= parse_settings(loaded, [*project_settings(pipeline), *(settings or [])])
    if "name" not in arguments and arguments.get("source", DEFAULT_NAME) != DEFAULT_NAME:
        arguments["name"] = name_of_source(arguments["source"])
        errors.print(
            Text(f"The model is called {arguments['name']}, after its source; --set name=… gives it another name."), soft_wrap=True
        )
    if "://" not in arguments.get("store", "://"):
        raise UsageError(
            f"store {arguments['store']!r} is a folder of this machine, which no step on Kubeflow sees; give s3://bucket/prefix"
        )
    check_groups(arguments)
    return arguments
