"""`penstock models push-hub` and `image`: a version on the Hugging Face Hub, or as an OCI image, which KServe mounts by `oci://`."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipelines.cli.output import DEFAULT_STORE, JsonOption, NameOption, StoreOption, VersionArgument, console, print_json, written_to
from pipelines.cli.project import open_registry


def push_hub(
    version: VersionArgument,
    repository: Annotated[str, typer.Argument(help="The repository, as OWNER/NAME.", metavar="REPO", show_default=False)] = "",
    output: Annotated[str, typer.Option("--output", "-o", help="Write the files into this new folder, and push nothing.")] = "",
    license_name: Annotated[str, typer.Option("--license", help="The licence, by the Hub's name, such as apache-2.0.")] = "",
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    as_json: JsonOption = False,
) -> None:
    """Push a version to the Hugging Face Hub: model.onnx, class names, preprocessing, and its card with the measured figures.

    Example: `penstock models push-hub champion team/pets --license apache-2.0 --private`
    """
    from components.classifier.errors import UsageError
    from components.integrations.hub import push, write_hub_folder
    from components.storage.files import new_directory

    if bool(repository) == bool(output):
        raise UsageError("name a repository to push to (OWNER/NAME), or a folder to write to by --output, not both")
    registry = open_registry(store, name)
    version = registry.select(version)
    if output:
        with written_to(output, new=True) as path, new_directory(path) as folder:
            files, address = write_hub_folder(registry, version, folder, license_name), output
    else:
        with tempfile.TemporaryDirectory(prefix="penstock-hub-") as temporary:
            files = write_hub_folder(registry, version, Path(temporary), license_name)
            address = push(Path(temporary), repository, f"{registry.name} {version}", private=private)
    if as_json:
        print_json({"version": version, "address": address, "files": files})
        return
    console.print(f"[bold]{version}[/] is in {escape(address)}: {', '.join(files)}", soft_wrap=True)


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
