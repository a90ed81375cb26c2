"""What lies in the output: finished pieces and parts while scoring goes on, and at the end the whole, its manifest last.

_parts/ID.parquet                  a piece that is complete; ID.failed.json is one that is not, with its reason
_assembled/ID/…                    a part: its rows in rows/, what was passed over, and last part.json, which tells digests and counts
predictions.parquet                all rows in order, or as a dataset: predictions/part-00000.parquet and so on
_passed_over/passed_over.parquet   what was not an input, and why
summary.json                       counts, classes, drift, warnings
manifest.json                      last: SHA-256 of these files; without it the output is not complete
_incomplete/…                      after a run in which something failed: the rows of the rest

What is not rows lies in folders whose names begin with _: readers of datasets pass over these, and `*.parquet` does not catch them.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from components.classifier.errors import DataError, IntegrityError, ObjectNotFound
from components.readers.listing import readable
from components.registry.manifest import hash_file
from components.score.plan import Part, Piece, Plan, Slice
from components.storage import open_store
from components.storage.store import check_key

PREDICTIONS, DATASET = "predictions.parquet", "predictions"
"""The name of one file, and of the folder that holds nothing but the parts of a dataset."""
PASSED_OVER, SUMMARY, MANIFEST = "_passed_over/passed_over.parquet", "summary.json", "manifest.json"
INCOMPLETE = "_incomplete"
FORMER = ("passed_over.parquet", "incomplete.parquet")
"""What earlier releases wrote beside the rows, and a new run takes away."""
PIECES, ASSEMBLED = "_parts", "_assembled"


@dataclass(frozen=True)
class StoredPart:
    """A part that is complete: its files of rows by their names below its folder, each with its rows and SHA-256, and its counts."""

    rows: dict[str, tuple[int, str]]
    tally: str


class Output:
    """The output of one run, in a store."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._store = open_store(url)

    def complete(self) -> set[str]:
        """Return the ids of all pieces that are complete."""
        return {entry.key.removeprefix(f"{PIECES}/").removesuffix(".parquet") for entry in self._store.list(f"{PIECES}/")}

    def put_piece(self, piece: Piece, path: Path) -> None:
        """Keep a complete piece."""
        self._store.upload(path, _piece(piece))
        self._store.delete(_failure(piece))

    def get_piece(self, piece: Piece, path: Path) -> bool:
        """Copy a piece's rows to a file; False when it is not complete."""
        try:
            self._store.download(_piece(piece), path)
        except ObjectNotFound:
            return False
        return True

    def put_part(self, part: Part, rows: Path, passed_over: Path, tally: str) -> StoredPart:
        """Keep a part: the files in the folder `rows`, what was passed over, and its counts."""
        files = {path.relative_to(rows).as_posix(): path for path in sorted(rows.rglob("*.parquet"))}
        for name, path in files.items():
            self._store.upload(path, f"{_assembled(part)}/rows/{name}")
        self._store.upload(passed_over, f"{_assembled(part)}/passed_over.parquet")
        stored = StoredPart({name: (pq.read_metadata(path).num_rows, hash_file(path).sha256) for name, path in files.items()}, tally)
        self._store.replace(f"{_assembled(part)}/part.json", json.dumps(asdict(stored)).encode())
        return stored

    def part(self, part: Part) -> StoredPart | None:
        """Return what is known of a part, None where it is not complete."""
        try:
            return StoredPart(**json.loads(self._store.read(f"{_assembled(part)}/part.json")))
        except ObjectNotFound:
            return None

    def get_passed_over(self, part: Part, path: Path) -> None:
        """Copy what was passed over in a part to a file; raises ObjectNotFound."""
        self._store.download(f"{_assembled(part)}/passed_over.parquet", path)

    def put_failure(self, piece: Piece, slices: list[Slice], reason: str) -> None:
        """Record why a piece could not be scored."""
        names = [readable(rows.name) for rows in slices]
        record = {"inputs": names[:3] + (["…"] if len(names) > 3 else []), "reason": reason}
        self._store.replace(_failure(piece), json.dumps(record).encode())

    def failure(self, piece: Piece) -> str:
        """Return why a piece is not there, in one line that names its shard and inputs."""
        try:
            record = json.loads(self._store.read(_failure(piece)))
        except ObjectNotFound:
            return f"shard {piece.shard} ended before it scored piece {piece.number}, or another scoring into the same output took it away"
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

    def fetch(self, plan: Plan, parts: list[Part], folder: Path) -> None:
        """Copy a complete output to a folder, of a dataset all but its rows.

        Raises IntegrityError for files that are not what the manifest says, rows of a dataset too.
        """
        manifest = self.manifest() or {"files": {}}
        self._store.download(SUMMARY, folder / SUMMARY)
        for name, digest in manifest["files"].items():
            path = folder / check_key(name)
            if name.startswith(f"{DATASET}/"):
                same = digest == self._store.sha256(name)
            else:
                self._store.download(name, path)
                same = digest == hash_file(path).sha256
            if not same:
                raise IntegrityError(f"{name} in {self.url} was changed; remove manifest.json there and run again")
        self._clear(plan.pieces, parts)  # in case the run that committed it ended just then

    def commit(self, plan: Plan, folder: Path, parts: list[tuple[Part, StoredPart]]) -> None:
        """Replace what was there; manifest.json is deleted first and written last, so it never describes other files.

        The rows of parts are copied within the store; only one file of rows comes into the folder, beside what was passed over and
        the summary, which lie there. The manifest vouches for the rows and for what was passed over: the same bytes whenever the
        same plan is run, where the summary tells seconds.
        """
        dataset = plan.settings.layout == "dataset" or plan.settings.partition_by != "" or len(parts) > 1
        rows = {
            _final(part, name) if dataset else PREDICTIONS: (f"{_assembled(part)}/rows/{name}", *known)
            for part, stored in parts
            for name, known in stored.rows.items()
        }
        for name, (source, _, digest) in rows.items():
            if not self._store.exists(source):
                self._require_committed(name, digest)
        self._store.delete(MANIFEST)  # not before: what another scoring has committed stays
        for name, (source, _, digest) in rows.items():
            try:
                self._store.copy(source, name)
            except ObjectNotFound:
                self._require_committed(name, digest)
        for name in (PASSED_OVER, SUMMARY):
            self._store.upload(folder / name, name)
        former = [PREDICTIONS, *FORMER, *(entry.key for entry in self._store.list(f"{DATASET}/"))]
        for name in set(former) - rows.keys():
            self._store.delete(name)
        if not dataset:
            self._store.download(PREDICTIONS, folder / PREDICTIONS)
        manifest = {
            "plan": plan.key,
            "model": {"name": plan.name, "version": plan.version},
            "input": plan.input,
            "files": {name: rows[name][2] for name in sorted(rows)} | {PASSED_OVER: hash_file(folder / PASSED_OVER).sha256},
            "rows": {name: rows[name][1] for name in sorted(rows)},
        }
        self._store.replace(MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
        for place in (PIECES, ASSEMBLED, INCOMPLETE):  # of scorings too that were killed, and whose input has changed since
            self._store.delete_all(f"{place}/")

    def _require_committed(self, name: str, digest: str) -> None:
        """Raise DataError unless a file of rows has its name already: another merge of the same plan was first, and tidied up."""
        if not self._store.exists(name) or digest != self._store.sha256(name):
            raise DataError(f"another scoring into {self.url} ended meanwhile, and replaced what lay there; run again")

    def clear_incomplete(self) -> None:
        """Remove what an earlier run left of the pieces that were complete."""
        self._store.delete_all(f"{INCOMPLETE}/")

    def put_incomplete(self, part: Part, path: Path) -> None:
        """Keep the rows of the pieces that are complete, under a name that says so."""
        self._store.upload(path, f"{INCOMPLETE}/part-{part.number:05d}.parquet")

    def _clear(self, pieces: Iterable[Piece], parts: Iterable[Part]) -> None:
        for piece in pieces:
            self._store.delete(_piece(piece))
            self._store.delete(_failure(piece))
        for part in parts:
            self._store.delete_all(f"{_assembled(part)}/")
        self.clear_incomplete()


def _piece(piece: Piece) -> str:
    return f"{PIECES}/{piece.id}.parquet"


def _failure(piece: Piece) -> str:
    return f"{PIECES}/{piece.id}.failed.json"


def _assembled(part: Part) -> str:
    return f"{ASSEMBLED}/{part.id}"


def _final(part: Part, name: str) -> str:
    """A file's name in a dataset: `part-00003.parquet`, in the directories that it has in its part, where it may be split."""
    folder, _, base = name.rpartition("/")
    split = base.removeprefix("part-0").removeprefix("part").removesuffix(".parquet")
    return "/".join(filter(None, (DATASET, folder, f"part-{part.number:05d}{split}.parquet")))
