"""A group of settings: a frozen model that reads a mapping and tells every mistake in one line; the types and names that groups share."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from components.classifier.errors import UsageError, near

MAX_LABEL = 63
"""Characters of one part of a host name, and of most names in Kubernetes."""

_MODEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")

_ABOUT_NUMBERS = ("int_", "float_", "finite_number", "greater_than", "less_than")
_UNITS = {"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, **{unit: 1000.0 ** (power + 2) for power, unit in enumerate("MGTPE")}}
_UNITS |= {f"{unit}i": 1024.0 ** (power + 1) for power, unit in enumerate("KMGTPE")}
_QUANTITY = re.compile(rf"(\d*\.?\d+(?:[eE][+-]?\d+)?)({'|'.join(_UNITS)})")
_MEMORY = re.compile(r"[1-9]\d*([EPTGM]i?|Ki)?")


def _encoding(value: str) -> str:
    """Return the name of an encoding, or ""; raises UsageError for one that is not known, or that does not write `/` as ASCII does."""
    try:
        if not value or "a/b.1".encode(value) == b"a/b.1":
            return value
    except LookupError:
        pass
    raise UsageError(f"names={value!r} is not an encoding of file names; use cp932 (Japanese), gbk (Chinese), cp949 (Korean), cp437 …")


NameEncoding = Annotated[str, AfterValidator(_encoding)]
"""The encoding of file names in archives that do not say theirs."""


def _memory(value: str) -> str:
    if value and not _MEMORY.fullmatch(value):
        raise ValueError(f"memory {value!r} is not an amount; use 2Gi, or 512Mi")
    return value


Memory = Annotated[str, AfterValidator(_memory)]
"""An amount of memory as Kubernetes writes it, such as 2Gi, or nothing."""


def quantity(value: object) -> float | None:
    """Return a quantity of Kubernetes, such as 500m, 2Gi or 3, as a number; None for what is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    return float(match[1]) * _UNITS[match[2]] if match else None


def amount(value: object) -> float:
    """Return a quantity of Kubernetes as a number; 0 for none or a damaged one."""
    return quantity(value) or 0.0


class Settings(BaseModel):
    """Settings that belong together; a text below a field is its description in forms, help and docs.

    Raises UsageError for a value that does not fit, in one line.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=(), use_attribute_docstrings=True
    )
    group: ClassVar[str] = ""
    """The name of the pipelines' parameter that carries these settings as a mapping."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UsageError(explain(error, type(self).model_fields)) from error

    @field_validator("*", mode="before")
    @classmethod
    def _whole(cls, value: Any, info: ValidationInfo) -> Any:
        """Read 6.0 as 6 and "" as none: Kubeflow keeps numbers inside a mapping as floats, and no null. 6.5 stays, and is refused."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if value == "" and kind in (int | None, float | None):
            return None
        return int(value) if kind in (int, int | None) and isinstance(value, float) and value.is_integer() else value

    @classmethod
    def read(cls, values: Mapping[str, Any], **own: Any) -> Self:
        """Read the mapping of a run; `own` are settings of this group that are run parameters of their own.

        Raises UsageError for unknown names, saying which is near, and for values out of bounds.
        """
        refuse_unknown(cls.group, values, cls.model_fields)
        if doubled := sorted(set(values) & set(own)):
            raise UsageError(f"{doubled[0]} is a run parameter of its own; set {doubled[0]}, not {cls.group}.{doubled[0]}")
        return cls(**values, **own)


def refuse_unknown(group: str, values: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise UsageError for a value that is not a mapping, or holds a name that the group does not know."""
    if not isinstance(values, Mapping):
        raise UsageError(f"{group} takes a mapping of settings, not {values!r}")
    names = list(known)
    for name in sorted(str(name) for name in values if name not in names):
        raise UsageError(f"{group} has no setting {name!r}{near(name, names)}; it takes {', '.join(names)}")


def explain(error: ValidationError, fields: Mapping[str, FieldInfo]) -> str:
    """Tell what pydantic found in one line: the setting, its bounds and the value."""
    return "; ".join(_explain(found, fields) for found in error.errors())


def _explain(found: Any, fields: Mapping[str, FieldInfo]) -> str:
    name = str(found["loc"][0]) if found["loc"] else ""
    kind, value, message = str(found["type"]), found["input"], str(found["msg"]).removeprefix("Value error, ")
    if kind.startswith(_ABOUT_NUMBERS) and name in fields:
        return _number(name, fields[name], value)
    if kind == "bool_type":
        return f"{name} must be true or false, not {value!r}"
    if kind == "string_type":
        return f"{name} must be text, not {value!r}"
    if kind == "literal_error":
        return f"unknown {name} {value!r}; use {found['ctx']['expected'].replace(chr(39), '').replace(' or ', ', ')}"
    where = ".".join(str(part) for part in found["loc"])
    return message if not where or name in message else f"{where}: {message}"


def _number(name: str, field: FieldInfo, value: Any) -> str:
    whole = field.annotation is int
    misfit = isinstance(value, bool) or not isinstance(value, int | float) or value - value != 0 or (whole and value != int(value))
    kind = ("a whole number " if whole else "a number ") if misfit else ""
    return f"{name} must be {kind}{bounds(field)}, not {value!r}"


def bounds(field: FieldInfo) -> str:
    """Return the bounds of a number in words, such as `from 1 to 10000`; "" where it has none."""
    found = {key: getattr(bound, key) for bound in field.metadata for key in ("ge", "le", "gt", "lt") if hasattr(bound, key)}
    shown = {key: str(bound) if isinstance(bound, int) else f"{bound:g}" for key, bound in found.items()}
    if "ge" in shown and "le" in shown:
        return f"from {shown['ge']} to {shown['le']}"
    words = {"ge": "at least", "le": "at most", "gt": "above", "lt": "below"}
    return " and ".join(f"{words[key]} {bound}" for key, bound in shown.items())


def is_model_name(name: str) -> bool:
    """Say whether an InferenceService could have this name."""
    return _MODEL.fullmatch(name) is not None and len(name) <= MAX_LABEL


def check_model_name(name: str) -> str:
    """Return the name of a model; raises UsageError where no InferenceService could have it."""
    if not is_model_name(name):
        raise UsageError(
            f"name {name!r} cannot name an InferenceService; take small letters, digits and hyphens, a letter first, {MAX_LABEL} at most"
        )
    return name


def check_namespace(namespace: str) -> str:
    """Return the name of a namespace; raises UsageError where Kubernetes would refuse it."""
    if not _NAMESPACE.fullmatch(namespace) or len(namespace) > MAX_LABEL:
        raise UsageError(f"namespace {namespace!r} is not possible; take small letters, digits and hyphens, {MAX_LABEL} at most")
    return namespace


def check_service_name(service: str, namespace: str, canary: bool = False) -> str:
    """Return the name of an InferenceService.

    Raises UsageError where KServe would refuse it: KServe makes Services called NAME-predictor (and tries a version as
    NAME-canary), and host names whose first part is NAME-predictor-NAMESPACE.
    """
    longest = MAX_LABEL - len("-canary-predictor")
    if not _MODEL.fullmatch(service) or len(service) > longest:
        raise UsageError(
            f"an InferenceService cannot be called {service!r}: small letters, digits and '-', a letter first, "
            f"{longest} at most; name one by serving.service"
        )
    host = f"{service}{'-canary' if canary else ''}-predictor-{namespace}"
    if len(host) > MAX_LABEL:
        raise UsageError(
            f"an InferenceService {service!r} in namespace {namespace!r} needs the host name {host!r}, which has {len(host)} characters "
            f"of {MAX_LABEL} at most; name a shorter one by serving.service"
        )
    return service
