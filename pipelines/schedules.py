"""Schedules: recurring runs of Kubeflow Pipelines, one at a time and without catching up."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from components.classifier.errors import UsageError
from pipelines.kfp_inside import add_plugins
from pipelines.submit import Server, compiled, connected, mlflow_plugin

_DURATION = re.compile(r"(\d{1,12})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MAX_DAYS = 3650
_CRON_FIELDS = 5
_PAGE = 100


@dataclass(frozen=True)
class Trigger:
    """When a schedule starts a run: at the times of a cron expression with seconds, in UTC, or every `seconds` seconds."""

    cron: str | None = None
    seconds: int | None = None

    def __str__(self) -> str:
        return f"cron {self.cron}" if self.cron else f"every {duration_text(self.seconds or 0)}"


@dataclass(frozen=True)
class Schedule:
    """A recurring run as the server tells it; `state` is active, paused or what else the server says."""

    id: str
    name: str
    state: str
    trigger: Trigger
    created: str = ""
    """When it was made, as text that sorts by time."""


def read_trigger(cron: str, every: str) -> Trigger:
    """Read a standard cron expression of five fields, one of six with seconds first, `@daily` and its kin, or a duration such as 6h.

    Kubeflow reads six fields: of a standard expression it would take the minutes for seconds. So five fields get a second of 0.

    Raises UsageError unless exactly one of both is given, and for another form; what the fields hold is checked by the server.
    """
    if bool(cron) == bool(every):
        raise UsageError(f'say when it runs{", by one of the two" if cron else ""}: --cron "0 6 * * 1", or --every 6h')
    if every:
        return Trigger(seconds=read_duration(every, "--every"))
    fields = cron.split()
    if fields and "=" in fields[0]:
        raise UsageError(f"--cron {cron!r} names a time zone; give the time in UTC, or set Kubeflow's CRON_SCHEDULE_TIMEZONE")
    if cron.startswith("@") or len(fields) == _CRON_FIELDS + 1:
        return Trigger(cron=" ".join(fields))
    if len(fields) != _CRON_FIELDS:
        raise UsageError(f"--cron {cron!r} has {len(fields)} fields; a cron expression has five: minute, hour, day, month, weekday")
    return Trigger(cron=" ".join(["0", *fields]))


def read_duration(text: str, option: str) -> int:
    """Read a duration such as 30m, 6h or 1d in seconds; raises UsageError naming the option for another form, none or over ten years."""
    found = _DURATION.fullmatch(text)
    if not found or int(found[1]) == 0:
        raise UsageError(f"{option} {text!r} is not a duration; use one such as 30m, 6h or 1d")
    if (seconds := int(found[1]) * _SECONDS[found[2]]) > _MAX_DAYS * _SECONDS["d"]:
        raise UsageError(f"{option} {text!r} is too long; use {_MAX_DAYS}d at most")
    return seconds


def duration_text(seconds: int) -> str:
    """Seconds in the largest unit that divides them: 21600 gives 6h."""
    unit = next((unit for unit in "dhm" if seconds and seconds % _SECONDS[unit] == 0), "s")
    return f"{seconds // _SECONDS[unit]}{unit}"


def create_schedule(
    pipeline: str,
    arguments: dict[str, Any],
    server: Server,
    trigger: Trigger,
    *,
    name: str,
    experiment: str,
    service_account: str = "",
    mlflow: str = "",
) -> Schedule:
    """Compile a pipeline and have the server start it again and again, never two runs at a time, none for times that were missed.

    `mlflow`: as `submit` takes it, for each run.

    Raises UsageError when a schedule has this name already, also one that somebody made at the same time, and what `submit` raises.
    """
    taken = UsageError(f"there is a schedule {name} already; delete it by `penstock schedule delete {name}`, or give another --as")
    with compiled(pipeline) as package, connected(server) as client:
        if _called(name, client, server):
            raise taken
        if mlflow:
            add_plugins(client, mlflow_plugin(mlflow))
        made = client.create_recurring_run(
            experiment_id=client.create_experiment(experiment, namespace=server.namespace or None).experiment_id,
            job_name=name,
            pipeline_package_path=package,
            params=arguments,
            cron_expression=trigger.cron,
            interval_second=trigger.seconds,
            max_concurrency=1,
            no_catchup=True,
            service_account=service_account or None,
        )
        first = next(iter(_called(name, client, server)), None)
        if first is not None and first.id != made.recurring_run_id:  # Kubeflow takes a name twice
            client.delete_recurring_run(made.recurring_run_id)
            raise taken
    return Schedule(made.recurring_run_id, name, "active", trigger)


def list_schedules(server: Server) -> list[Schedule]:
    """All recurring runs of the namespace, also those that others made; raises what `connected` raises."""
    with connected(server) as client:
        return _all(client, server)


def change_schedule(server: Server, schedule: str, action: str) -> Schedule:
    """Pause, resume or delete a schedule by its ID or name; a run that is going on ends by itself.

    Raises UsageError when there is none or several of that name, and what `connected` raises.
    """
    with connected(server) as client:
        found = find_schedule(_all(client, server), schedule)
        {"pause": client.disable_recurring_run, "resume": client.enable_recurring_run, "delete": client.delete_recurring_run}[action](
            found.id
        )
    return found


def find_schedule(schedules: Iterable[Schedule], wanted: str) -> Schedule:
    """The schedule of an ID or name; raises UsageError when there is none, or several have the name."""
    known = list(schedules)
    found = [schedule for schedule in known if schedule.id == wanted] or [schedule for schedule in known if schedule.name == wanted]
    if not found:
        raise UsageError(f"no schedule {wanted!r}; there are {', '.join(schedule.name for schedule in known) or 'none'}")
    if len(found) > 1:
        raise UsageError(f"several schedules are called {wanted}; name one by its ID: {', '.join(schedule.id for schedule in found)}")
    return found[0]


def _called(name: str, client: Any, server: Server) -> list[Schedule]:
    """Return the schedules of a name, the one that was made first in front."""
    return sorted((one for one in _all(client, server) if one.name == name), key=lambda one: (one.created, one.id))


def _all(client: Any, server: Server) -> list[Schedule]:
    found: list[Schedule] = []
    token = ""
    while True:
        page = client.list_recurring_runs(page_token=token, page_size=_PAGE, namespace=server.namespace or None)
        found += [_schedule(run) for run in page.recurring_runs or []]
        token = page.next_page_token or ""
        if not token:
            return found


def _schedule(run: Any) -> Schedule:
    cron = run.trigger and run.trigger.cron_schedule
    periodic = run.trigger and run.trigger.periodic_schedule
    trigger = Trigger(cron=cron.cron) if cron else Trigger(seconds=int(periodic.interval_second) if periodic else 0)
    states = {"ENABLED": "active", "DISABLED": "paused"}
    status = str(run.status or "")
    created = str(run.created_at or "")
    return Schedule(run.recurring_run_id, run.display_name or "", states.get(status, status.lower()), trigger, created)
