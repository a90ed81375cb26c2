"""`penstock compile`: the files that Kubeflow takes."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.output import JsonOption, console, print_json, warn_of_default_image


def compile_(
    output: Annotated[Path, typer.Option("--output", help="The folder to write to.")] = Path("build/pipelines"),
    as_json: JsonOption = False,
) -> None:
    """Compile every pipeline to YAML for Kubeflow.

    The steps' image is taken from PENSTOCK_IMAGE, and the predictor's from PENSTOCK_PREDICTOR_IMAGE, or by the first one's name.
    PENSTOCK_RESOURCES names a file that says what single steps ask of the cluster.

    Example: `PENSTOCK_IMAGE=registry.example/penstock-pipeline:0.1.0 penstock compile --output build/pipelines`
    """
    from pipelines.compile import compile_pipelines

    written = compile_pipelines(output)
    warn_of_default_image()
    if as_json:
        print_json([str(path) for path in written])
        return
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True)
    console.print("Upload them in the Kubeflow UI (Upload pipeline), or use: penstock submit training --host URL", soft_wrap=True)
