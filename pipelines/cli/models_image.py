"""`penstock models image`: a version as an OCI image, which KServe mounts by an `oci://` address."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipelines.cli.output import DEFAULT_STORE, JsonOption, NameOption, StoreOption, VersionArgument, console, print_json, written_to
from pipelines.cli.project import open_registry


def image(
    version: VersionArgument,
    push: Annotated[
        str, typer.Option("--push", help="Push to this repository, as HOST/PATH; the tag is the version's name.", show_default=False)
    ] = "",
    output: Annotated[str, typer.Option("--output", "-o", help="Write a tar file, an OCI layout.", show_default=False)] = "",
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make an OCI image of a version for KServe's oci:// addresses, without Docker; the same version gives the same digest.

    Example: `penstock models image champion --push registry.example/team/pets`
    """
    from components.classifier.errors import UsageError
    from components.integrations.model_image import write_image

    if not push and not output:
        raise UsageError("say where the image goes: --push HOST/PATH, --output FILE.tar, or both")
    registry = open_registry(store, name)
    with tempfile.TemporaryDirectory(prefix="penstock-image-") as folder:
        layout = write_image(registry, registry.select(version), Path(folder))
        if output:
            with written_to(output) as path:
                layout.archive(path)
        reference = layout.push(push) if push else ""
    if as_json:
        print_json({"version": layout.version, "digest": layout.digest, "output": output, "reference": reference})
        return
    if output:
        console.print(f"[bold]{layout.version}[/] is in {escape(output)}, image {layout.digest}", soft_wrap=True)
    if reference:
        console.print(f"storageUri: oci://{escape(reference)}", soft_wrap=True)
