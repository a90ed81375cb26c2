"""What lies in the output: finished pieces while scoring goes on, and at the end the whole, its manifest last.

_parts/ID.parquet                  a piece that is complete; ID.failed.json is one that is not, with its reason
predictions.parquet                all rows in order, or as a dataset: predictions/part-00000.parquet and so on
_passed_over/passed_over.parquet   what was not an input, and why
summary.json                       counts, classes, drift, warnings
manifest.json                      last: SHA-256 of these files; without it the output is not complete
_incomplete/…                      after a run in which something failed: the rows of the rest

What is not rows lies in folders whose names begin with _: readers of datasets pass over these, and `*.parquet` does not catch them.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from components.classifier.errors import IntegrityError, ObjectNotFound
from components.readers.listing import readable
from components.score.parts import DATASET, PREDICTIONS
from components.score.plan import Piece, Plan, Slice
from components.storage import open_store
from components.storage.store import check_key

PASSED_OVER, SUMMARY, MANIFEST = "_passed_over/passed_over.parquet", "summary.json", "manifest.json"
INCOMPLETE = "_incomplete"
FORMER = ("passed_over.parquet", "incomplete.parquet")
"""What earlier releases wrote beside the rows, and a new run takes away."""
PARTS = "_parts"


class Output:
    """The output of one run, in a store."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._store = open_store(url)

    def has_part(self, piece: Piece) -> bool:
        """Say whether a piece is complete."""
        return self._store.exists(_part(piece))

    def put_part(self, piece: Piece, path: Path) -> None:
        """Keep a complete piece."""
        self._store.upload(path, _part(piece))
        self._store.delete(_failure(piece))

    def get_part(self, piece: Piece, path: Path) -> bool:
        """Copy a piece's rows to a file; False when it is not complete."""
        try:
            self._store.download(_part(piece), path)
        except ObjectNotFound:
            return False
        return True

    def put_failure(self, piece: Piece, slices: list[Slice], reason: str) -> None:
        """Record why a piece could not be scored."""
        names = [readable(part.name) for part in slices]
        record = {"inputs": names[:3] + (["…"] if len(names) > 3 else []), "reason": reason}
        self._store.replace(_failure(piece), json.dumps(record).encode())

    def failure(self, piece: Piece) -> str:
        """Return why a piece is not there, in one line that names its shard and inputs."""
        try:
            record = json.loads(self._store.read(_failure(piece)))
        except ObjectNotFound:
            return f"shard {piece.shard} ended before it scored piece {piece.number}"
        names, reason = ", ".join(record["inputs"]), record["reason"]
        named = reason if reason.startswith(tuple(record["inputs"])) else f"{names}: {reason}"
        return f"shard {piece.shard}: {named}"

    def manifest(self) -> dict[str, Any] | None:
        """Return the manifest of a complete output, or None."""
        try:
            return dict(json.loads(self._store.read(MANIFEST)))
        except ObjectNotFound:
            return None

    def is_complete(self, plan: Plan) -> bool:
        """Say whether exactly this plan's result lies here already."""
        manifest = self.manifest()
        if manifest is None or manifest.get("plan") != plan.key:
            return False
        return all(self._store.exists(name) for name in (*manifest["files"], SUMMARY))

    def fetch(self, plan: Plan, folder: Path) -> None:
        """Copy a complete output to a folder; raises IntegrityError for files that are not what the manifest says."""
        manifest = self.manifest() or {"files": {}}
        self._store.download(SUMMARY, folder / SUMMARY)
        for name, digest in manifest["files"].items():
            path = folder / check_key(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._store.download(name, path)
            if digest != sha256(path):
                raise IntegrityError(f"{name} in {self.url} was changed; remove manifest.json there and run again")
        self._clear(plan.pieces)  # in case the run that committed it ended just then

    def commit(self, plan: Plan, folder: Path, rows: list[str]) -> None:
        """Replace what was there; manifest.json is deleted first and written last, so it never describes other files.

        `rows` names the files of the rows, in order. The manifest vouches for them and for what was passed over: the same bytes
        whenever the same plan is run, where the summary tells seconds.
        """
        self._store.delete(MANIFEST)
        for name in (*rows, PASSED_OVER, SUMMARY):
            self._store.upload(folder / name, name)
        former = [PREDICTIONS, *FORMER, *(entry.key for entry in self._store.list(f"{DATASET}/"))]
        for name in set(former) - set(rows):
            self._store.delete(name)
        manifest = {
            "plan": plan.key,
            "model": {"name": plan.name, "version": plan.version},
            "input": plan.input,
            "files": {name: sha256(folder / name) for name in (*rows, PASSED_OVER)},
            "rows": {name: pq.read_metadata(folder / name).num_rows for name in rows},
        }
        self._store.replace(MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
        self._clear(plan.pieces)

    def put_incomplete(self, parts: list[Path]) -> None:
        """Keep the rows of the pieces that are complete, under a name that says so."""
        self._clear_incomplete()
        for part in parts:
            self._store.upload(part, f"{INCOMPLETE}/{part.name}")

    def _clear_incomplete(self) -> None:
        for name in [entry.key for entry in self._store.list(f"{INCOMPLETE}/")]:
            self._store.delete(name)

    def _clear(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            self._store.delete(_part(piece))
            self._store.delete(_failure(piece))
        self._clear_incomplete()


def sha256(path: Path) -> str:
    """Hash a file; returns 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _part(piece: Piece) -> str:
    return f"{PARTS}/{piece.id}.parquet"


def _failure(piece: Piece) -> str:
    return f"{PARTS}/{piece.id}.failed.json"
