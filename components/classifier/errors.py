"""Every error that Penstock raises on purpose; each message names the cause and the remedy in one line.

PenstockError                      exit code 1
├── UsageError                     exit code 2: a wrong option, parameter or combination of them
├── DataError                      a dataset or an input that cannot be used
│   ├── ImageError                 one picture that cannot be read
│   ├── CutArchiveError            an archive that ends too early, of which the beginning is good
│   └── UnsafeArchiveError         an archive that would write outside, link, or grow without bound
├── TrainingError                  training or export cannot start or go on
├── EvaluationError                an evaluation that would not mean anything
├── PolicyError                    exit code 2: a gate policy that cannot be applied
├── StoreError                     the model store cannot do what was asked
│   ├── ObjectNotFound             no object under that key
│   ├── ObjectExists               a create-only write met an object that was there before
│   ├── AccessDenied               credentials missing, wrong, or without the right
│   ├── StoreUnavailable           no answer within the deadline; trying again later may help
│   ├── DiskError                  a disk of this machine does not take what is written: full, or read-only
│   └── StoreUnsuitable            the server ignores or lacks what the registry stands on
├── RegistryError                  model versions and the deployment ledger
│   ├── VersionNotFound            no such model version
│   ├── IntegrityError             bytes differ from the manifest's digests
│   └── LedgerConflict             another writer was first, again and again
├── ServingError                   a published version that does not serve as it was evaluated
│   └── InferenceError             a predictor that gave no usable response
├── RequestError                   what a client sent cannot be answered; carries the HTTP status (4xx)
└── RolloutError                   a deployment that did not end with the new version answering
    └── RolloutConflict            another deployer changed what serves
"""

import difflib
import re
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, at most 200 characters; the name of its class where it has no text."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def described(error: BaseException) -> str:
    """Return the class and the first line of an error that somebody else's code raised, whose text alone may be `'head'`."""
    return f"{type(error).__name__}: {first_line(error)}"


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""What a terminal may take for an order: an error may hold what a server answered."""


def one_line(told: object, limit: int | None = 200) -> str:
    """Return an error's text, or another, in one line of at most `limit` characters; an error without text gives its class' name."""
    text = _CONTROL.sub(lambda found: repr(found[0])[1:-1], " ".join(str(told).split()))[:limit]
    return text or (type(told).__name__ if isinstance(told, BaseException) else "")


def listed(names: Iterable[str], most: int = 4) -> str:
    """Return names for a message: the first `most`, and how many more there are."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def near(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return ` (did you mean 'epochs'?)` for a misspelt name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f" (did you mean {close[0]!r}?)" if close else ""


def did_you_mean(name: str, known: Iterable[str], otherwise: str, prefix: str = "", cutoff: float = 0.5) -> str:
    """Return `did you mean A or B?` with the known names that are near, each behind the prefix, or `otherwise`."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=cutoff)
    return f"did you mean {' or '.join(prefix + other for other in near)}?" if near else otherwise


class PenstockError(Exception):
    """Base of all errors that are told to the user without a traceback."""

    exit_code = 1


class UsageError(PenstockError):
    """A wrong option, an unknown parameter, or values that do not go together."""

    exit_code = 2


class DataError(PenstockError):
    """A dataset or an input that cannot be used as it is."""


class ImageError(DataError):
    """One picture that cannot be read; the message says why, the caller adds which."""


class CutArchiveError(DataError):
    """An archive that ends too early; `member` is the picture within which it ends, "" where it is none."""

    def __init__(self, message: str, member: str = "") -> None:
        super().__init__(message)
        self.member = member


class UnsafeArchiveError(DataError):
    """An archive that would write outside its folder, holds links, or grows beyond the caps."""


class TrainingError(PenstockError):
    """Training or export cannot start, or cannot go on."""


class EvaluationError(PenstockError):
    """An evaluation whose numbers would not mean anything."""


class PolicyError(PenstockError):
    """A gate policy that names an unknown rule or an impossible bound."""

    exit_code = 2


class StoreError(PenstockError):
    """The model store cannot do what was asked."""


class ObjectNotFound(StoreError):
    """No object lies under that key."""


class ObjectExists(StoreError):
    """A create-only write met an object that was there before."""


class AccessDenied(StoreError):
    """Credentials are missing or wrong, or lack the right."""


class StoreUnavailable(StoreError):
    """The store gave no usable answer within the deadline."""


class DiskError(StoreError):
    """A disk of this machine does not take what is written: it is full, read-only or broken."""


class StoreUnsuitable(StoreError):
    """The server ignores or lacks a feature that the registry stands on."""


class RegistryError(PenstockError):
    """A model version or the deployment ledger cannot be used."""


class VersionNotFound(RegistryError):
    """No model version of that name is complete in the registry."""


class IntegrityError(RegistryError):
    """Bytes differ from what the manifest says; the message names each file."""


class LedgerConflict(RegistryError):
    """Other writers appended first, again and again."""


class ServingError(PenstockError):
    """A published version does not serve as it was evaluated."""


class InferenceError(ServingError):
    """A predictor gave no usable response.

    `status` is the HTTP status, 0 when no response came; `detail` is the predictor's own message, empty when it gave none.
    """

    def __init__(self, message: str, status: int = 0, detail: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail


class RolloutError(PenstockError):
    """A deployment did not end with the new version answering."""


class RolloutConflict(RolloutError):
    """Another deployer changed what serves; this one left it alone."""


class RequestError(PenstockError):
    """A client's request cannot be answered as it is.

    `status` is the HTTP status, always 4xx.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def validation_problems(error: "ValidationError") -> list[str]:
    """What pydantic found, one `field: message` each; without the field where the whole is meant."""
    lines = []
    for found in error.errors():
        where, message = ".".join(str(part) for part in found["loc"]), found["msg"].removeprefix("Value error, ")
        lines.append(f"{where}: {message}" if where else message)
    return lines


def remedy_for(error: "ValidationError", remedy: str) -> str:
    """The remedy for a stored file that is not of its form: the release that wrote it, where all that is wrong are fields unknown here."""
    unknown = [".".join(str(part) for part in found["loc"]) for found in error.errors() if found["type"] == "extra_forbidden"]
    return f"use the release that wrote it: this one does not know {', '.join(unknown)}" if len(unknown) == len(error.errors()) else remedy


def exit_code_of(work: Callable[[], None]) -> int:
    """Do the work of a process that another one follows; returns its exit code. An error is the last line of its log."""
    try:
        work()
    except PenstockError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0
