"""`observed`: a step's work that tells the integrations when it starts, and how it ends.

Which ones are configured, the environment variables of their own tools say.
"""

import functools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any, Literal, ParamSpec, TypeVar

from components.bundle.training import Epoch
from components.classifier.errors import first_line

RUN = "PENSTOCK_RUN"
"""The environment variable with the pipeline run's ID: set for local runs, and in a pod taken from its label."""
MODEL_REGISTRY = "PENSTOCK_MODEL_REGISTRY"
"""The environment variable with the address of the Kubeflow Model Registry."""

OPENLINEAGE, MLFLOW, REGISTRY = "OpenLineage", "MLflow", "Model Registry"
EXTRAS = {OPENLINEAGE: ("lineage", "openlineage"), MLFLOW: ("mlflow", "mlflow"), REGISTRY: ("model-registry", "model_registry")}
"""Integration -> the extra that it needs, and the module that the extra installs."""


def configured() -> list[str]:
    """Return the integrations that the environment asks for."""
    wanted = {OPENLINEAGE: _openlineage(), MLFLOW: bool(_value("MLFLOW_TRACKING_URI")), REGISTRY: bool(_value(MODEL_REGISTRY))}
    return [name for name, asked in wanted.items() if asked]


def active() -> list[str]:
    """Return the integrations that are configured and installed."""
    return [name for name in configured() if find_spec(EXTRAS[name][1])]


def missing() -> Iterator[str]:
    """Yield one line, with the remedy, for each integration that is configured and whose extra is not installed."""
    for name in configured():
        extra, module = EXTRAS[name]
        if not find_spec(module):
            remedy = f"pip install 'penstock[{extra}]', or build the image with EXTRAS={extra}"
            yield f"warning: {name} is configured but not installed; {remedy}"


def run_id() -> str:
    """Return the pipeline run's ID; empty outside of runs."""
    return _value(RUN)


def _openlineage() -> bool:
    """Look where the library itself looks, which would print events to the log if it found nothing."""
    if _value("OPENLINEAGE_DISABLED").lower() == "true":
        return False
    named = any(name == "OPENLINEAGE_URL" or name.startswith("OPENLINEAGE__TRANSPORT") for name, value in os.environ.items() if value)
    places = [Path("openlineage.yml"), Path("~/.openlineage/openlineage.yml").expanduser()]
    if config := _value("OPENLINEAGE_CONFIG"):
        places.insert(0, Path(config))
    return named or any(place.is_file() for place in places)


def _value(name: str) -> str:
    return os.environ.get(name, "").strip()


P = ParamSpec("P")
T = TypeVar("T")
State = Literal["START", "COMPLETE", "FAIL", "ABORT"]
SECONDS = 10.0
"""How long a step waits for an integration at most, each time that it tells it something without files."""
FILES_SECONDS = 120.0
"""How long a step waits at most where it sends files, such as a model, to a server that answered when it started."""
IMPORT_SECONDS = 60.0
"""How long a client library may take to be imported: two seconds on an idle machine, and many times that in a pod with little CPU."""
ABORT_SECONDS = 3.0
"""How long a step waits at most where it is being ended from outside."""
_given_up: set[str] = set()
_LISTENERS = {OPENLINEAGE: "open_lineage", MLFLOW: "mlflow_run", REGISTRY: "model_registry"}


@dataclass(frozen=True)
class Data:
    """Something that a step reads or writes: its address, and what is known of its content."""

    address: str
    """A URL, a path, or the name of a set that the world knows, such as `mnist`."""
    kind: Literal["DATASET", "MODEL", "REPORT", "TABLE", "SERVICE"] = "DATASET"
    version: str = ""
    """A digest, or the name of a model version."""
    rows: int | None = None
    classes: dict[str, int] = field(default_factory=dict)
    """Pictures per class."""
    checks: dict[str, bool] = field(default_factory=dict)
    """What was asserted of it, and whether it holds."""


@dataclass(frozen=True)
class Report:
    """What a step has to tell, at its start (what is known by then) and at its end."""

    step: str
    model: str = ""
    """The model's name; empty where the step does not know it."""
    inputs: list[Data] = field(default_factory=list)
    outputs: list[Data] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    files: dict[str, Callable[[], bytes] | Path] = field(default_factory=dict)
    """Name -> a file, or what reads its content, which is called only where somebody wants it."""
    registered: dict[str, str | float] = field(default_factory=dict)
    """What a registry of models keeps about the version that the step published: its name, and facts about it."""
    champion: str | None = None
    """Which version serves after the step, empty for none; None where the step does not change that."""
    run_ended: Literal["", "FINISHED", "FAILED"] = ""
    """How the whole run ended, where this step is its last."""


@dataclass(frozen=True)
class Event:
    """A step's report at one moment; `error` where it failed or was ended."""

    state: State
    report: Report
    error: BaseException | None = None


Listener = Callable[[Event], None]


def observed(describe: Callable[..., Report]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a step's work: `describe` is given its result (None while there is none) and its arguments, and returns what to tell.

    Where no integration is configured, the work is called and nothing else. What the work raises is told as a failure, and raised.
    """

    def decorate(work: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(work)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            told = _Listeners(active())
            if not told.names:
                return work(*args, **kwargs)
            begun = partial(describe, None, *args, **kwargs)
            told.tell("START", begun)
            try:
                result = work(*args, **kwargs)
            except BaseException as error:
                told.tell("FAIL" if isinstance(error, Exception) else "ABORT", begun, error)
                raise
            told.tell("COMPLETE", partial(describe, result, *args, **kwargs))
            return result

        return run

    return decorate


class _Listeners:
    """The listeners of one step, each made when it is told the first time: their libraries take a second to import."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self._listeners: dict[str, Listener] = {}

    def tell(self, state: State, describe: Callable[[], Report], error: BaseException | None = None) -> None:
        for name in self.names:
            if name not in self._listeners and not safely(name, partial(self._make, name), IMPORT_SECONDS):
                continue
            files = name == MLFLOW and state == "COMPLETE"
            seconds = ABORT_SECONDS if state == "ABORT" else FILES_SECONDS if files else SECONDS
            safely(name, partial(self._tell, name, state, describe, error), seconds)

    def _make(self, name: str) -> None:
        self._listeners[name] = import_module(f"components.integrations.{_LISTENERS[name]}").listener()

    def _tell(self, name: str, state: State, describe: Callable[[], Report], error: BaseException | None) -> None:
        self._listeners[name](Event(state, describe(), error))


def safely(integration: str, work: Callable[[], object], seconds: float = SECONDS) -> bool:
    """Call `work` in a thread of its own for at most `seconds`; returns whether it came to its end.

    Whatever it raises, or a deadline that passes, is printed in one line, and the integration is then left alone as long as this process
    lives: a server that is down costs a step one deadline, not one for each message.
    """
    if integration in _given_up:
        return False
    problems = [f"no answer within {seconds:g} s"]

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - other people's clients raise what they like, and none of it may end a step
            told = first_line(error)
            problems[0] = f"{type(error).__name__}: {'a header cannot be sent' if 'header' in told.lower() else told}"  # with its token
        else:
            problems.clear()

    thread = Thread(target=run, name=integration, daemon=True)  # the step's end does not wait for it
    thread.start()
    thread.join(seconds)
    if not problems:
        return True
    _given_up.add(integration)
    print(f"warning: {integration} is told nothing more in this step: {problems[0]}", file=sys.stderr, flush=True)
    return False
