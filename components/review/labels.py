"""Labels that people gave a picture, and what follows from them: pure functions over label records."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

UNUSABLE = "-"
"""The label of a picture that shows none of the classes, or cannot be recognised: it is never trained on."""

LabelState = Literal["unlabelled", "labelled", "conflicting"]


class LabelRecord(BaseModel):
    """One person's label for one picture; `resolves` ends a disagreement, `withdrawn` takes back that person's last label."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    label: str = Field(min_length=1)
    reviewer: str = Field(min_length=1)
    resolves: bool = Field(default=False, validation_alias="settles", serialization_alias="settles")
    """Stored under its first name, so that older releases read it too."""
    withdrawn: bool = False
    """Stored only where it is true: older releases read all queues in which nobody has taken a label back."""
    time: str

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = serialize(self)
        return fields if self.withdrawn else {name: value for name, value in fields.items() if name != "withdrawn"}


@dataclass(frozen=True)
class LabelSummary:
    """A picture's labels summed up: `label` is None until somebody labels it, and while people disagree."""

    state: LabelState
    label: str | None
    opinions: dict[str, str]
    """Each person's last label that still counts."""
    records: tuple[LabelRecord, ...]
    """Every label ever given, and every withdrawal, oldest first."""

    @property
    def first_labelled(self) -> str | None:
        """UTC time of the first label (ISO 8601), withdrawn or not: from then on the picture may have been used for training."""
        return min((record.time for record in self.records), default=None)


def summarize(records: Sequence[LabelRecord]) -> LabelSummary:
    """Sum up the records of one picture, oldest first.

    Each person's last label counts, from the last resolving record on. If they agree the picture is labelled, else conflicting.
    A withdrawn label is as if it had never been given: that person's label before it counts again.
    """
    standing = without_withdrawn(records)
    start = max((index for index, record in enumerate(standing) if record.resolves), default=0)
    opinions = {record.reviewer: record.label for record in standing[start:]}
    labels = set(opinions.values())
    if not labels:
        return LabelSummary("unlabelled", None, {}, tuple(records))
    if len(labels) > 1:
        return LabelSummary("conflicting", None, opinions, tuple(records))
    return LabelSummary("labelled", labels.pop(), opinions, tuple(records))


def without_withdrawn(records: Sequence[LabelRecord]) -> list[LabelRecord]:
    """Return the labels that were not taken back, oldest first; each withdrawal takes off the last one of the same person."""
    standing: list[LabelRecord] = []
    for record in records:
        if not record.withdrawn:
            standing.append(record)
        elif own := [index for index, given in enumerate(standing) if given.reviewer == record.reviewer]:
            del standing[own[-1]]
    return standing
