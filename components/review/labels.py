"""What people said about a picture, and what follows from it: pure functions over label records."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

UNUSABLE = "-"
"""The label of a picture that shows none of the classes, or of which nobody can tell: it is never trained on."""

State = Literal["unlabelled", "labelled", "contrary"]


class LabelRecord(BaseModel):
    """One person's label for one picture; `settles` ends a disagreement."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    label: str = Field(min_length=1)
    reviewer: str = Field(min_length=1)
    settles: bool = False
    time: str


@dataclass(frozen=True)
class Verdict:
    """Where a picture's labels stand: `label` is None until somebody labelled it, and while people disagree."""

    state: State
    label: str | None
    opinions: dict[str, str]
    """The last label of each person that still counts."""
    records: tuple[LabelRecord, ...]
    """All that was ever said, oldest first."""

    @property
    def first_labelled(self) -> str | None:
        """UTC time of the first label (ISO 8601): from then on the picture may have been trained on."""
        return min((record.time for record in self.records), default=None)


def judge(records: Sequence[LabelRecord]) -> Verdict:
    """Sum up the records of one picture, oldest first.

    Each person's last label counts, from the last settling record on. They agree: labelled; they differ: contrary.
    """
    start = max((index for index, record in enumerate(records) if record.settles), default=0)
    opinions = {record.reviewer: record.label for record in records[start:]}
    said = set(opinions.values())
    if not said:
        return Verdict("unlabelled", None, {}, ())
    if len(said) > 1:
        return Verdict("contrary", None, opinions, tuple(records))
    return Verdict("labelled", said.pop(), opinions, tuple(records))
