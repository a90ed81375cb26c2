"""What a version that was made of other versions says of itself: in config.json, under `parameters.variant`, which every release reads."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from components.bundle.formats import Strict
from components.classifier.errors import IntegrityError, validation_problems

KEY = "variant"
"""The name among the parameters of config.json and manifest.json."""

Kind = Literal["int8", "ensemble", "average"]


class Parent(Strict):
    """A version that a variant was made of: its name, and the digest of its content (64 hexadecimal digits)."""

    version: str
    sha256: str


class Variant(Strict):
    """Of which versions a version was made, and how."""

    kind: Kind
    parents: list[Parent] = Field(min_length=1)
    how: str
    """In words: how it was quantised or averaged, and with which pictures."""

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self | None:
        """Read it from a version's parameters; None for a version that was trained. Raises IntegrityError for another form."""
        if not isinstance(parameters.get(KEY), Mapping):
            return None
        try:
            return cls.model_validate(parameters[KEY])
        except ValidationError as error:
            raise IntegrityError(f"parameters.{KEY} is not what this release writes ({validation_problems(error)[0]})") from error

    def __str__(self) -> str:
        return f"{self.kind} of {', '.join(parent.version for parent in self.parents)}: {self.how}"
