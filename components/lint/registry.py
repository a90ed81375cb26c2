"""What a rule is, and how a function becomes one."""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from components.lint.documents import Place
from components.lint.manifest import Manifest
from components.lint.pipeline import Pipeline

Subject = Pipeline | Manifest
_Check = TypeVar("_Check", bound=Callable[[Any], Iterable["Hit"]])


class Level(StrEnum):
    """How bad it is. An error fails, or does something else than was asked; a warning may; a note is advice."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Hit:
    """One place where a rule holds: what was seen there, and the text to put in place of the value, if that is mechanical."""

    place: Place
    seen: str
    replacement: str | None = None


@dataclass(frozen=True)
class Rule:
    """A trap: `title` names it, `why` says what will be seen, `fix` what to do. `subjects`: what it reads."""

    id: str
    level: Level
    subjects: tuple[type, ...]
    title: str
    why: str
    fix: str
    check: Callable[[Any], Iterable[Hit]]


REGISTERED: dict[str, Rule] = {}


def rule(level: Level) -> Callable[[_Check], _Check]:
    """Register a function as a rule.

    Its name with dashes is the id; the type of its argument (Pipeline, Manifest, or both) says what it reads. Its docstring is a
    sentence that names the trap, a paragraph that says what will be seen, and one that begins with "Fix:". It yields Hits.
    """

    def register(check: _Check) -> _Check:
        paragraphs = [" ".join(it.split()) for it in textwrap.dedent(check.__doc__ or "").strip().split("\n\n")]
        title, why, fix = paragraphs
        subjects = tuple(
            {"Pipeline": Pipeline, "Manifest": Manifest}[it]
            for it in re.findall(r"Pipeline|Manifest", str(next(iter(inspect.signature(check).parameters.values())).annotation))
        )
        name = check.__name__.replace("_", "-")
        if name in REGISTERED or not subjects or not fix.startswith("Fix: "):
            raise ValueError(f"rule {name}: its name must be new, its argument a Pipeline or a Manifest, and its docstring end with Fix:")
        REGISTERED[name] = Rule(name, level, subjects, title.rstrip("."), why, fix.removeprefix("Fix: "), check)
        return check

    return register
