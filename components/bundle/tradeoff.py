"""What a variant gains and costs: accuracy on the same test pictures beside the time for one, of it, its parents and the champion."""

from typing import Annotated, Literal

from pydantic import Field

from components.bundle.formats import Amount, Share, Strict

Role = Literal["this model", "parent", "champion", "parent and champion"]


class Measured(Strict):
    """One model: its accuracy with the 95% interval, and the median time per picture, alone and in a batch."""

    version: str
    """Empty for the model that is evaluated: it has no version yet."""
    role: Role
    made: str
    """Its architecture, as config.json says it."""
    accuracy: Share
    low: Share
    high: Share
    size_bytes: Annotated[int, Field(ge=1)]
    """Of model.onnx."""
    one_ms: Amount
    batch_ms: Amount
    """Per picture, in batches of `Tradeoff.batch`."""


class Tradeoff(Strict):
    """Models measured in turns, on the machine that evaluated, picture to probabilities; no rule of the gate reads it."""

    models: Annotated[list[Measured], Field(min_length=1)]
    batch: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]
    runs: Annotated[int, Field(ge=1)]
    """Of which each median is."""
    hardware: str
