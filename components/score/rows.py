"""The rows of the output: their columns, and how those of one piece are written.

| column | type | what it is |
|---|---|---|
| input | string | the file, as it is called below the input; `ARCHIVE/MEMBER` in archives |
| index | int64 | the picture's number within that file, from 0 |
| label | string | the class with the highest probability; null for a dead letter |
| confidence | float | that class' calibrated probability; null for a dead letter |
| needs_review | bool | confidence below the threshold, or unfamiliar; null for a dead letter |
| model_version | string | the version that answered |
| error | string | why a record could not be scored; null for all others |
| familiarity | float | if the version says it: 0 to 1, how much the picture looks like those of training |
| unfamiliar | bool | if the version says it: familiarity below its threshold |
| probabilities | list of float | if asked for: one per class, in the order of the metadata `penstock.classes` |
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from components.bundle.model import Probabilities
from components.bundle.reference import Reference
from components.classifier.images import Pixels
from components.readers.records import PassedOver
from components.score.plan import Plan
from components.score.tally import Appearance

PASSED = "passed_over"
"""An extra column of parts: the reason why something is not a record at all; such rows do not go into the output."""


@dataclass
class Scored:
    """A batch of rows in order; `probabilities` (n, K) and `pixels` have one entry for each row whose error is None."""

    inputs: list[str]
    indices: list[int]
    errors: list[str | None]
    passed_over: list[PassedOver]
    pixels: Pixels
    probabilities: Probabilities
    familiarity: npt.NDArray[np.float32] | None = None
    unfamiliar: npt.NDArray[np.bool_] | None = None
    """Both (n,), as `probabilities`."""


def schema(classes: list[str], probabilities: bool, familiarity: bool) -> pa.Schema:
    """Return the output's columns, with the probabilities where asked for, and what a version says about familiarity where it does."""
    fields = [
        pa.field("input", pa.string(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("confidence", pa.float32()),
        pa.field("needs_review", pa.bool_()),
        pa.field("model_version", pa.string(), nullable=False),
        pa.field("error", pa.string()),
    ]
    if familiarity:
        fields += [pa.field("familiarity", pa.float32()), pa.field("unfamiliar", pa.bool_())]
    if probabilities:
        fields.append(pa.field("probabilities", pa.list_(pa.float32())))
    return pa.schema(fields, metadata={"penstock.classes": json.dumps(classes, ensure_ascii=False)})


class PieceFile:
    """Writes the rows of one piece to a local file, batch by batch, and at the end how its pictures look."""

    def __init__(self, path: Path, plan: Plan, reference: Reference | None) -> None:
        self._plan, self._classes = plan, np.array(plan.classes, dtype=object)
        self._schema = schema(plan.classes, plan.settings.probabilities, plan.familiarity).append(pa.field(PASSED, pa.string()))
        self._writer = pq.ParquetWriter(path, self._schema)
        self._buffer: list[pa.RecordBatch] = []
        self.appearance, self.rows = Appearance(reference), 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.add_key_value_metadata({"rows": str(self.rows), "looks": self.appearance.to_json()})
        self._writer.close()

    def add(self, scored: Scored) -> None:
        """Append a batch of rows and what was passed over with it; the caller, who has its pictures, counts them in `appearance`."""
        self.rows += len(scored.inputs)
        self._buffer += [self._rows(scored)] + ([self._passed(scored)] if scored.passed_over else [])
        if sum(len(batch) for batch in self._buffer) >= 16_384:
            self._flush()

    def _flush(self) -> None:
        if self._buffer:
            self._writer.write_table(pa.Table.from_batches(self._buffer, self._schema))
            self._buffer = []

    def _rows(self, scored: Scored) -> pa.RecordBatch:
        count = len(scored.inputs)
        finite = np.isfinite(scored.probabilities).all(axis=1)
        errors = np.array(scored.errors, dtype=object)
        scorable = np.flatnonzero([error is None for error in scored.errors])
        errors[scorable[~finite]] = "the model's answer is not a number"
        good = scorable[finite]
        answers = scored.probabilities[finite]
        label, confidence, needs = np.full(count, None, object), np.zeros(count, np.float32), np.zeros(count, bool)
        familiarity, strange = np.zeros(count, np.float32), np.zeros(count, bool)
        dead = np.ones(count, bool)
        dead[good] = False
        if len(good):
            label[good] = self._classes[answers.argmax(axis=1)]
            confidence[good] = answers.max(axis=1)
            needs[good] = confidence[good] < np.float32(self._plan.settings.review_threshold)
            if scored.unfamiliar is not None and scored.familiarity is not None:
                familiarity[good], strange[good] = scored.familiarity[finite], scored.unfamiliar[finite]
                needs |= strange
        columns = [
            pa.array(scored.inputs, pa.string()),
            pa.array(scored.indices, pa.int64()),
            pa.array(label, pa.string()),
            pa.array(confidence, pa.float32(), mask=dead),
            pa.array(needs, pa.bool_(), mask=dead),
            pa.array([self._plan.version] * count, pa.string()),
            pa.array(errors, pa.string()),
        ]
        if self._plan.familiarity:
            columns += [pa.array(familiarity, pa.float32(), mask=dead), pa.array(strange, pa.bool_(), mask=dead)]
        if self._plan.settings.probabilities:
            columns.append(_lists(answers, good, dead))
        columns.append(pa.nulls(count, pa.string()))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _passed(self, scored: Scored) -> pa.RecordBatch:
        rows = [{"input": p.input, "index": -1, "model_version": self._plan.version, PASSED: p.reason} for p in scored.passed_over]
        return pa.RecordBatch.from_pylist(rows, self._schema)


def _lists(answers: Probabilities, good: npt.NDArray[np.intp], dead: npt.NDArray[np.bool_]) -> pa.Array:
    lengths = np.zeros(len(dead), np.int32)
    lengths[good] = answers.shape[1]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(answers.ravel(), pa.float32()), mask=pa.array(dead))
