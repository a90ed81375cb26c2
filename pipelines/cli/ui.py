"""`penstock ui`: the store and the runs of this folder as pages, for a browser on this machine or as a static site."""

import ipaddress
import socket
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress
from rich.text import Text

from components.classifier.errors import UsageError
from pipelines.cli.output import DEFAULT_STORE, StoreOption, console, errors, url_of, written_to
from pipelines.cli.review import ReviewerOption, account

if TYPE_CHECKING:
    from fastapi import FastAPI


def ui(
    store: StoreOption = DEFAULT_STORE,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8008,
    host: Annotated[
        str, typer.Option(help="Address to listen on. There are no accounts: whoever reaches it reads all, and labels.")
    ] = "127.0.0.1",
    reviewer: ReviewerOption = "",
    export: Annotated[
        str, typer.Option("--export", help="Write the pages into this new folder, or a store's address for one, and serve nothing.")
    ] = "",
) -> None:
    """Show models, versions, what served when and why, runs, reports, comparisons and the review queue in a browser.

    It changes nothing but labels, which you give by keyboard.

    Example: `penstock ui --store s3://models/penstock`
    """
    from pipelines.ui.app import create_app
    from pipelines.ui.export import write_site
    from pipelines.ui.stored import Stored

    if export:
        with written_to(export, new=True) as folder, Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("pages")
            count = write_site(Stored(store), folder, lambda done, total: bar.update(task, completed=done, total=total))
        console.print(Text(f"{count} pages in {export}; begin with {export.rstrip('/')}/index.html"), soft_wrap=True)
        return
    if not _is_loopback(host):
        text = f"warning: there are no accounts: whoever reaches {host} can read this store and label in it; 127.0.0.1 is for you alone"
        errors.print(Text(text, style="yellow"), soft_wrap=True)
    _serve(create_app(Stored(store), reviewer or account(), {host}), host, port)


def _serve(app: "FastAPI", host: str, port: int) -> None:
    import uvicorn

    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}, port {port} ({error.strerror}); choose another --host or --port") from error
    with listener:
        console.print(f"{url_of(host, listener.getsockname()[1])} shows the store; Ctrl-C ends it.", soft_wrap=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
