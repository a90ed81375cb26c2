"""The members of an archive: which are pictures, which belong to one, and which are left over.

Each picture is one row, named `ARCHIVE/MEMBER`. In webdataset's form the members of a sample share their name up to the first
dot; they need not lie side by side. Labels take no part in scoring, but one without a picture is reported. Of two members
with the same name the first counts, the other is reported.
"""

from collections.abc import Iterator
from functools import partial
from typing import IO

from components.score.inputs.names import display, is_hidden, is_record
from components.score.inputs.records import Encoded, PassedOver, Record, Unreadable

MAX_MEMBER = 256 * 2**20
"""Largest member that is read, in bytes."""


class Members:
    """Sorts the members of one archive, in their order."""

    def __init__(self, archive: str) -> None:
        self._archive = archive
        self._next = 0
        self._seen: set[str] = set()
        self._pictures: set[str] = set()
        self._beside: dict[str, str] = {}

    def take(self, member: str, size: int, file: IO[bytes]) -> Iterator[Record]:
        """Yield what becomes of one member: a picture, a dead letter, something passed over, or nothing yet."""
        if is_hidden(member):
            yield self.passed(member, "hidden or a system file")
            return
        if member in self._seen:
            yield self.passed(member, "a second member of that name; the first one counts")
            return
        start = file.read(16)
        self._seen.add(member)
        if not is_record(member, start):
            self._beside.setdefault(_sample(member), member)
            return
        self._pictures.add(_sample(member))
        if size > MAX_MEMBER:
            yield self.unreadable(member, f"the member has {size} bytes, more than the limit of {MAX_MEMBER}")
            return
        data = start + file.read(MAX_MEMBER)
        yield Encoded(self._name(member), self._number(), partial(bytes, data), len(data))

    def orphans(self) -> Iterator[Record]:
        """Yield what belongs to no picture, once the whole archive was seen."""
        for sample, member in self._beside.items():
            if sample not in self._pictures:
                yield self.passed(member, "no picture of that name is in the archive")

    def passed(self, member: str, reason: str) -> PassedOver:
        """Report a member that is no record."""
        return PassedOver(self._name(member), reason)

    def unreadable(self, member: str, reason: str) -> Unreadable:
        """Give a member that cannot be read its place among the pictures."""
        return Unreadable(self._name(member), self._number(), reason)

    def _number(self) -> int:
        self._next += 1
        return self._next - 1

    def _name(self, member: str) -> str:
        return f"{self._archive}/{display(member)}"


def _sample(member: str) -> str:
    folder, _, base = member.removeprefix("./").rpartition("/")
    return f"{folder}/{base.partition('.')[0]}"
