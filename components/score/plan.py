"""The input, cut into pieces that are scored, kept and repeated on their own.

A piece is a run of rows: pictures side by side in the order of names, or a range of an array, table or archive. Compressed tars, and
containers that lie in a folder of a store, are one piece each. The plan is a folder:

    plan.json             the run's settings, and the pieces: id, shard
    slices.parquet        which rows of which files make a piece
    passed_over.parquet   what is not an input, and why

A piece's id hashes all that its rows follow from, so that a piece which was scored before is found again, and no other is.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from components.classifier.errors import DataError
from components.readers.archive_rows import ArchiveIndex
from components.readers.records import PassedOver
from components.settings.scoring import ScoringSettings

FORMAT = 1
PIECE_ROWS = 4096
"""Rows of a piece, at most: what is lost when a step is killed."""
BATCH_ROWS = 10_000
"""Rows of what is passed over that are written at once."""
SHARD_ROWS = 50_000
MAX_SHARDS = 16
"""When the number of shards is left to the plan: one for this many rows, and no more shards than this."""

PASSED_OVER = pa.schema([pa.field("input", pa.string(), nullable=False), pa.field("reason", pa.string(), nullable=False)])
_SLICES = pa.schema(
    [
        *(("piece", pa.int32()), ("name", pa.binary()), ("kind", pa.string()), ("size", pa.int64())),
        *(("start", pa.int64()), ("stop", pa.int64()), ("place", pa.string())),
    ]
)


class Source(NamedTuple):  # there may be millions, and these are pickled fastest
    """One input file as `classify_inputs` found it; `name` is the source's own spelling; `rows` is None when only reading tells."""

    name: str
    kind: str
    size: int
    stamp: str
    rows: int | None
    archive: ArchiveIndex | None = None
    """Of an archive that is divided."""


@dataclass(frozen=True)
class Slice:
    """Rows `start` to before `stop` of a file; stop None means to its end."""

    name: str
    kind: str
    size: int
    start: int
    stop: int | None
    place: str = ""
    """Where these rows lie in an archive that is divided."""


@dataclass(frozen=True)
class Piece:
    """Rows that are scored and kept together; `number` is their place in the output."""

    number: int
    id: str
    shard: int
    weight: int = 1
    """Its rows; an estimate where only reading tells, which `counted` says."""
    counted: bool = False


@dataclass(frozen=True)
class Part:
    """The rows of one file of the output: of each piece those from a row to before another one (None: to its end)."""

    number: int
    id: str
    spans: list[tuple[Piece, int, int | None]]


@dataclass(frozen=True)
class Plan:
    """A plan as it was written to a folder."""

    folder: Path
    store: str
    name: str
    version: str
    input: str
    output: str
    classes: list[str]
    settings: ScoringSettings
    pieces: list[Piece]
    refused: list[list[str]]
    """[file, reason] of containers that cannot be scored."""
    key: str
    familiarity: bool = False
    """Whether the version says how familiar pictures are."""

    @classmethod
    def load(cls, folder: str | Path) -> "Plan":
        """Read a plan; raises DataError when the folder holds none."""
        folder = Path(folder)
        try:
            raw = json.loads((folder / "plan.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"no complete plan in {folder} ({error}); run the pipeline again") from error
        raw["settings"] = ScoringSettings(**raw["settings"])
        raw["pieces"] = [Piece(number, *piece) for number, piece in enumerate(raw["pieces"])]
        return cls(folder=folder, **raw)

    def parts(self, most: int | None) -> list[Part]:
        """Cut the rows into parts of about `most` (None: one part); at the same rows for every number of shards."""
        parts = list(_spans(self.pieces, most)) or [[]]
        form = [FORMAT, self.settings.partition_by]
        ids = [_digest([*form, [(piece.id, start, stop) for piece, start, stop in spans]]) for spans in parts]
        return [Part(number, id, spans) for number, (id, spans) in enumerate(zip(ids, parts, strict=True))]

    def slices(self, piece: Piece) -> list[Slice]:
        """Return what makes a piece, in order."""
        with pq.ParquetFile(self.folder / "slices.parquet") as file:
            table = file.read_row_group(piece.number)  # each piece was written as one
        return [Slice(row.pop("name").decode("utf-8", "surrogateescape"), **row) for row in table.drop_columns("piece").to_pylist()]

    def pictures(self, pieces: Iterable[Piece]) -> int:
        """Return how many pictures the pieces hold, estimated from the size of files that do not tell."""
        return sum(piece.weight for piece in pieces)

    def shards(self) -> list[str]:
        """Names of the shards that have work; at least one, since a loop over nothing fails on some runners."""
        return [str(shard) for shard in sorted({piece.shard for piece in self.pieces})] or ["0"]


def write_plan(
    folder: Path,
    about: Mapping[str, Any],
    settings: ScoringSettings,
    sources: Iterable[Source],
    passed_over: Iterable[PassedOver],
    refused: list[list[str]],
    shards: int,
) -> Plan:
    """Cut the sources into pieces, deal them to shards (0: as many as are useful) and write the plan.

    `about` holds the plan's fields from `store` to `classes`, and `familiarity`. `sources` and `passed_over` are gone through twice, and
    never held in memory: there may be millions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = weight = 0
    stamped = True
    for source in sources:
        rows, weight, stamped = rows + (source.rows or 0), weight + _weight(source), stamped and source.stamp != ""
    if settings.engine == "ray":
        shards = shards or 1  # Ray shares the work out by itself
    wanted = shards or min(MAX_SHARDS, -(-weight // SHARD_ROWS) or 1)
    basis = [FORMAT, about["version"], about["input"], settings.review_threshold]
    basis += [settings.probabilities, settings.image_column, settings.names]
    if not stamped:
        basis.append(uuid.uuid4().hex)  # nothing tells whether a file was changed, so nothing of another run is used
    ids, weights, counted = list[str](), list[int](), list[bool]()
    with pq.ParquetWriter(folder / "slices.parquet", _SLICES) as writer:
        for number, piece in enumerate(_cut(sources, min(PIECE_ROWS, -(-rows // wanted) or 1))):
            ids.append(_digest([*basis, [(s.name, s.kind, s.size, s.stamp, start, stop) for s, start, stop in piece]]))
            weights.append(sum(map(_share, piece)))
            counted.append(all(stop is not None for _, _, stop in piece))
            writer.write_table(_slices_table(number, piece))
    content = {
        **about,
        "settings": settings.model_dump(),
        "pieces": list(zip(ids, _deal(weights, wanted), weights, counted, strict=True)),
        "refused": refused,
        "key": _key(ids, passed_over, refused, _form(settings)),
    }
    _write_passed_over(folder / "passed_over.parquet", passed_over)
    (folder / "plan.json").write_text(json.dumps(content, allow_nan=False), "utf-8")
    return Plan.load(folder)


def _form(settings: ScoringSettings) -> list[str]:
    """What of the output's form is not the default: keys of earlier releases knew none."""
    usual = ScoringSettings()
    return [f"{name}={getattr(settings, name)}" for name in ("layout", "partition_by") if getattr(settings, name) != getattr(usual, name)]


def _cut(sources: Iterable[Source], most: int) -> Iterator[list[tuple[Source, int, int | None]]]:
    piece: list[tuple[Source, int, int | None]] = []
    room = most
    for source in sources:
        if source.rows is None:
            if piece:
                yield piece
            yield [(source, 0, None)]
            piece, room = [], most
            continue
        start = 0
        while start < source.rows:
            stop = min(source.rows, start + room)
            piece.append((source, start, stop))
            room -= stop - start
            start = stop
            if room == 0:
                yield piece
                piece, room = [], most
    if piece:
        yield piece


def _spans(pieces: list[Piece], most: int | None) -> Iterator[list[tuple[Piece, int, int | None]]]:
    spans: list[tuple[Piece, int, int | None]] = []
    room = most
    for piece in pieces:
        start = 0
        while room is not None and piece.counted and room < piece.weight - start:
            yield [*spans, (piece, start, start + room)]
            spans, start, room = [], start + room, most
        spans.append((piece, start, None))
        if room is not None and most is not None:
            room -= piece.weight - start
            if room <= 0:
                yield spans
                spans, room = [], most
    if spans:
        yield spans


def _weight(source: Source) -> int:
    return source.rows if source.rows is not None else max(1, source.size // 20_000)


def _share(rows: tuple[Source, int, int | None]) -> int:
    source, start, stop = rows
    return _weight(source) if stop is None else stop - start


def _place(source: Source, start: int, stop: int | None) -> str:
    return "" if source.archive is None or stop is None else source.archive.place(start, stop)


def _deal(weights: list[int], shards: int) -> list[int]:
    """Give each piece its shard: neighbours together, about the same weight each."""
    total, before, dealt = sum(weights) or 1, 0, []
    for weight in weights:
        dealt.append(min(shards - 1, (before + weight // 2) * shards // total))
        before += weight
    return dealt


def _write_passed_over(path: Path, passed_over: Iterable[PassedOver]) -> None:
    remaining = iter(passed_over)
    with pq.ParquetWriter(path, PASSED_OVER) as writer:
        while rows := list(islice(remaining, BATCH_ROWS)):
            columns = [pa.array([p.input for p in rows], pa.string()), pa.array([p.reason for p in rows], pa.string())]
            writer.write_table(pa.table(columns, PASSED_OVER))


def _key(ids: list[str], passed_over: Iterable[PassedOver], refused: list[list[str]], form: list[str]) -> str:
    """The digest of [ids, [[input, reason], …], refused, *form], as `_digest` makes it, without all of its JSON in memory."""
    digest = hashlib.sha256(f"[{json.dumps(ids)}, [".encode())
    for number, passed in enumerate(passed_over):
        digest.update(f"{', ' if number else ''}{json.dumps((passed.input, passed.reason))}".encode())
    digest.update(f"], {json.dumps([refused, *form])[1:]}".encode())
    return digest.hexdigest()[:32]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]


def _slices_table(number: int, piece: list[tuple[Source, int, int | None]]) -> pa.Table:
    rows = [
        (number, s.name.encode("utf-8", "surrogateescape"), s.kind, s.size, start, stop, _place(s, start, stop)) for s, start, stop in piece
    ]
    return pa.table([pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), _SLICES, strict=True)], _SLICES)
