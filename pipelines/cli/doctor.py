"""`penstock doctor`: what a cluster lacks, before something runs on it."""

import re
from typing import Annotated, Any

import typer

from pipelines.cli.output import JsonOption, NameOption, print_json


def doctor(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where models are served.")] = "penstock",
    run_namespace: Annotated[
        str, typer.Option("--run-namespace", help="Where Kubeflow's runs happen: kubeflow, or a profile.")
    ] = "kubeflow",
    service_account: Annotated[
        str, typer.Option("--service-account", help="Who deploys, as NAME or NAMESPACE:NAME; empty: the account that runs this command.")
    ] = "",
    store: Annotated[
        str, typer.Option("--store", envvar="PENSTOCK_STORE", help="The model store, s3://bucket/prefix; by AWS' variables.")
    ] = "",
    host: Annotated[str, typer.Option("--host", envvar="KFP_HOST", help="Kubeflow Pipelines' address.")] = "",
    name: NameOption = "digits",
    write: Annotated[bool, typer.Option("--write", help="Also write and delete one small object in the store.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Examine a cluster and a store: what is there, what that will break, and the command that mends it.

    Reads only, by KUBECONFIG or a pod's account; what the account may not read is said. Exit code 1: something will break.

    Example: `penstock doctor --namespace penstock --service-account kubeflow:pipeline-runner --store s3://models/penstock`
    """
    from components.doctor.gather import gather
    from components.doctor.registry import State
    from components.doctor.report import as_json as to_json
    from components.doctor.report import as_text, examine
    from components.doctor.seen import Scope
    from components.doctor.store import look_at_store
    from components.settings.serving import KServeSettings

    settings = KServeSettings.read({}, namespace)
    account = service_account if ":" in service_account or not service_account else f"{run_namespace}:{service_account}"
    scope = Scope.of(settings, settings.service_name(name), run_namespace, account=account, steps=requested_by_steps())
    results = examine(gather(scope, look_at_store(store, name, write) if store else None, host))
    if as_json:
        print_json(to_json(results))
    else:
        print(as_text(results))
    raise typer.Exit(1 if any(it.state == State.BROKEN for it in results) else 0)


def requested_by_steps() -> dict[str, dict[str, Any]]:
    """What each step of every pipeline asks of its node; where a run decides it, what it asks for by default."""
    from components.settings.resources import Resources, step_name
    from pipelines.catalogue import PIPELINES, load_pipeline

    defaults = Resources()
    limits = dict(zip(("cpu", "memory"), defaults.limits(busy=True), strict=True))
    found: dict[str, dict[str, Any]] = {}
    for pipeline in PIPELINES:
        for executor, it in load_pipeline(pipeline).pipeline_spec.deployment_spec["executors"].items():
            resources = dict(dict(it["container"]).get("resources", {}))
            step = found.setdefault(step_name(executor), {"requests": {}, "limits": {}})
            for key, value in resources.items():
                if match := re.fullmatch(r"resource(Cpu|Memory)(Request|Limit)", key):
                    resource, part = match[1].lower(), f"{match[2].lower()}s"
                    usual = limits[resource] if part == "limits" else getattr(defaults, resource)
                    step[part][resource] = usual if "{{" in str(value) else str(value)
    return found
