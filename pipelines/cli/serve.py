"""`penstock serve`: the predictor on this machine, always with the champion."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.output import DEFAULT_STORE, NameOption, StoreOption, console, url_of
from pipelines.cli.project import open_registry

CACHE = Path(".penstock/cache")


def serve(
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on; :: lets other machines in, by IPv6 and IPv4.")] = "127.0.0.1",
    review: Annotated[bool, typer.Option("--review", help="Queue uncertain pictures in the store, for `penstock review`.")] = False,
) -> None:
    """Serve the champion over KServe's protocols, and switch to each new champion without dropping a request.

    Example: `penstock serve --name digits --port 8080`
    """
    from pydantic import ValidationError

    from components.classifier.errors import UsageError, VersionNotFound, validation_problems
    from components.predictor.settings import PredictorSettings

    registry = open_registry(store, name)
    name = registry.name
    try:
        settings = PredictorSettings(model_name=name, host=host, http_port=port)
    except ValidationError as error:
        raise UsageError(f"{validation_problems(error)[0]}; see `penstock serve --help`") from error
    if not registry.ledger.champion():  # checked before the server starts, which takes seconds
        raise VersionNotFound(f"no version of {name!r} is deployed in {store} yet; train and deploy one with `penstock run training`")
    from components.predictor.follow import Follower
    from components.predictor.server import PredictorServer

    def tell(port: int) -> None:
        address = url_of(settings.host, port)
        console.print(f"Serving {name} on {address}; {address}/docs shows how to ask. Ctrl-C ends it.", soft_wrap=True)

    chosen = settings.model_copy(update={"review_store": store}) if review else settings
    sys.exit(PredictorServer(chosen, console=sys.stderr.isatty()).run(Follower(store, name, CACHE), tell))
