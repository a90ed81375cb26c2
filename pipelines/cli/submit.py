"""`penstock submit`: a run on Kubeflow."""

from typing import Annotated

import typer

from pipelines.cli.output import JsonOption, console, print_json


def submit(
    pipeline: Annotated[str, typer.Argument(help="training, scoring, deployment or approval.", metavar="PIPELINE")],
    host: Annotated[str, typer.Option("--host", envvar="KFP_HOST", help="Address of Kubeflow Pipelines.")],
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A run parameter; may be given again.")] = None,
    namespace: Annotated[str, typer.Option("--namespace", envvar="KFP_NAMESPACE", help="The profile, on a multi-user Kubeflow.")] = "",
    token: Annotated[str, typer.Option("--token", envvar="KFP_TOKEN", help="A bearer token.")] = "",
    ca: Annotated[str, typer.Option("--ca", help="Certificates of a private CA.")] = "",
    experiment: Annotated[str, typer.Option("--experiment", help="The experiment that the run belongs to.")] = "penstock",
    service_account: Annotated[str, typer.Option("--service-account", help="Who the steps run as.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Compile a pipeline and start a run of it on Kubeflow.

    The steps' image is taken from PENSTOCK_IMAGE, and the predictor's from PENSTOCK_PREDICTOR_IMAGE, or by the first one's
    name. The cluster must be able to pull both. PENSTOCK_RESOURCES names a file that says what single steps ask of the cluster.
    `penstock params PIPELINE` lists what can be set.

    Example: `penstock submit training --host http://localhost:8080 --set store=s3://models/penstock --set gpus=1`
    """
    from pipelines.catalogue import load_pipeline
    from pipelines.parameters import check_groups, parse_settings
    from pipelines.submit import Server
    from pipelines.submit import submit as send

    arguments = parse_settings(load_pipeline(pipeline), settings or [])
    check_groups(arguments)
    sent = send(pipeline, arguments, Server(host, namespace, token, ca), experiment=experiment, service_account=service_account)
    if as_json:
        print_json({"run_id": sent.run_id, "url": sent.url})
    else:
        console.print(f"started run {sent.run_id}\nwatch it at {sent.url}", soft_wrap=True)
