"""`penstock models`: what is in the registry."""

import typer

app = typer.Typer(no_args_is_help=True, help="List, inspect, verify and roll back model versions.")
