"""`penstock compile`: the files that Kubeflow takes."""

from typing import Annotated

import typer

from pipelines.cli.output import JsonOption, console, print_json, warn_of_default_image, written_to


def compile_(
    output: Annotated[str, typer.Option("--output", help="The folder to write to, or a store's address.")] = "build/pipelines",
    as_json: JsonOption = False,
) -> None:
    """Compile every pipeline to YAML for Kubeflow.

    The steps' image is taken from PENSTOCK_IMAGE, and the predictor's from PENSTOCK_PREDICTOR_IMAGE, or by the first one's name.
    PENSTOCK_RESOURCES names a file that says what single steps ask of the cluster.

    Example: `PENSTOCK_IMAGE=registry.example/penstock-pipeline:0.1.0 penstock compile --output build/pipelines`
    """
    from pipelines.compile import compile_pipelines

    with written_to(output) as folder:
        written = [f"{output.rstrip('/')}/{path.name}" for path in compile_pipelines(folder)]
    warn_of_default_image()
    if as_json:
        print_json(written)
        return
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True)
    console.print("Upload them in the Kubeflow UI (Upload pipeline), or use: penstock submit training --host URL", soft_wrap=True)
