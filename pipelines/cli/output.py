"""What all commands share: consoles, `--json`, and the options that name a store and a model."""

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from components.classifier.errors import PenstockError, UsageError, one_line
from pipelines.cli.project import DEFAULT_STORE as DEFAULT_STORE
from pipelines.cli.project import complete_name, complete_pipeline, complete_setting, complete_version

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)
_printed: list[bool] = []
"""Whether JSON was printed: standard output holds one document."""

StoreOption = Annotated[
    str, typer.Option("--store", envvar="PENSTOCK_STORE", help="Where model versions lie: a directory or s3://bucket/prefix.")
]
NameOption = Annotated[
    str,
    typer.Option(
        "--name",
        envvar="PENSTOCK_NAME",
        help="The model's name.",
        show_default="the store's only model, or digits",
        autocompletion=complete_name,
    ),
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A run parameter; may be given again.", autocompletion=complete_setting),
]
PipelineArgument = Annotated[
    str,
    typer.Argument(
        help="training, search, retraining, scoring, deployment, approval or variant.",
        metavar="PIPELINE",
        autocompletion=complete_pipeline,
    ),
]
VersionArgument = Annotated[
    str,
    typer.Argument(
        help="A version's name or its beginning, or `champion` or `previous`.", show_default=False, autocompletion=complete_version
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


def print_json(value: Any) -> None:
    """Print strict JSON (no NaN) on standard output, keys as given."""
    _printed.append(True)
    print(json.dumps(value, indent=1, allow_nan=False, default=str))


def hanging(shown: Console, mark: Text, text: Text) -> None:
    """Print a mark and a text; on a terminal that is too narrow the text goes on below itself, not below the mark."""
    if not shown.is_terminal:
        shown.print(Text.assemble(mark, " ", text), soft_wrap=True)
        return
    table = Table.grid(Column(width=max(1, mark.cell_len)), Column(overflow="fold"), padding=(0, 1, 0, 0))
    table.add_row(mark, text)
    shown.print(table)


@contextmanager
def written_to(address: str, *, new: bool = False) -> Iterator[Path]:
    """Give a path on this machine to write to; what lies there at the end is copied to a store's address, such as s3://bucket/prefix.

    `new`: the address must be empty. Raises UsageError where it is not, or is not an address, and StoreError.
    """
    if not address:
        raise UsageError("--output is empty; name a path, or a store's address")
    if "://" not in address:
        yield Path(address)
        return
    from components.storage import open_store

    parent, _, last = address.rstrip("/").rpartition("/")
    if parent.endswith(":/"):
        raise UsageError(f"{address} is a whole bucket; name a prefix in it, such as {address.rstrip('/')}/out")
    store = open_store(parent)
    if new and next(iter(store.names(f"{last}/")), None) is not None:
        raise UsageError(f"{address} holds something already; name a new folder")
    with tempfile.TemporaryDirectory(prefix="penstock-out-") as folder:
        yield Path(folder) / last
        for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            store.upload(path, path.relative_to(folder).as_posix())


def url_of(host: str, port: int) -> str:
    """The address by which this machine reaches a server that listens on a host; IPv6 in brackets."""
    name = "localhost" if host in {"0.0.0.0", "::"} else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"


def local_only(path: Path) -> Path:
    """Return a path on this machine; raises UsageError for a store's address."""
    if re.match(r"[a-z][a-z0-9+.-]*:/", str(path)):
        raise UsageError(
            f"{str(path).replace(':/', '://', 1)} is an address, and this command reads files of this machine; copy it here first"
        )
    return path


def warn_of_default_image() -> None:
    """Say on standard error that no cluster can pull the image that the steps have when PENSTOCK_IMAGE names none."""
    from components.step_image import IMAGE, IMAGE_VARIABLE

    if IMAGE_VARIABLE not in os.environ:
        text = f"warning: PENSTOCK_IMAGE is not set, and a cluster that does not have {IMAGE} cannot pull it; name one in a registry"
        errors.print(Text(text, style="yellow"), soft_wrap=True)


def fail(error: PenstockError) -> None:
    """Print an error of ours on standard error: one line, cause and remedy; with --json also as JSON, unless the command printed some."""
    if "--json" in sys.argv[1:] and not _printed:
        print_json({"error": one_line(error, None), "exit_code": error.exit_code})
    errors.print(Text.assemble(("error: ", "bold red"), one_line(error, None)), soft_wrap=True)
