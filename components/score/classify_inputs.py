"""Looks through the input and says what kind each file is, what is passed over, and what is refused before any scoring."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from components.classifier.errors import DataError, UsageError
from components.readers import CONTAINERS, HEAD, LABELS, PICTURE, kind_of, not_as_promised, parquet
from components.readers.archive_rows import index_archive
from components.readers.listing import MAX_STREAMED, Fault, Folder, SourceFile, check_count, looks_like_picture, without_twins
from components.readers.places import InputSource, local_path
from components.readers.processes import in_order
from components.readers.records import PassedOver, Reading
from components.readers.spool import Spool
from components.score.plan import Source

MAX_LOOKING = 16
"""Threads that read the first bytes of files."""
LOOKED_AT_ONCE = 64


@dataclass(frozen=True)
class Classified:
    """What the input holds, in order, on disk but for the last."""

    sources: Spool[Source]
    passed_over: Spool[PassedOver]
    refused: list[list[str]]
    """[file, reason] of containers."""


def classify_inputs(source: InputSource, reading: Reading, folder: Path) -> Classified:
    """Return the sources in order, what is passed over, and the containers that are refused; `folder` takes what goes to disk.

    A single file that is refused raises DataError: there is nothing else to do. In a folder the others are scored. Raises it too
    where a name is there in two spellings.
    """
    files = Spool[SourceFile](folder / "files", lambda file: file.name)
    unlisted = Spool[PassedOver](folder / "unlisted", lambda passed: (passed.input, isinstance(passed, Fault)))
    count = 0
    for found in source.found():
        if isinstance(found, SourceFile):
            check_count(source.address, count, MAX_STREAMED)
            count += 1
            files.add(found)
        elif not isinstance(found, Folder):
            unlisted.add(found)
    sources, passed_over, refused = Spool[Source](folder / "sources"), Spool[PassedOver](folder / "passed"), list[list[str]]()
    for passed in unlisted:
        passed_over.add(PassedOver(passed.input, passed.reason))
    for file, kind, problem in _kinds(source, without_twins(files, source.address)):
        if problem and source.single:
            raise DataError(f"{file.name} is {problem}")
        if problem:
            refused.append([file.name, f"{file.name} is {problem}"])
        elif kind is None and not source.single:
            passed_over.add(PassedOver(file.name, "neither its content nor its name is a picture's"))
        elif kind == LABELS and not source.single:
            passed_over.add(PassedOver(file.name, "an IDX file of labels, no pictures"))
        else:
            try:
                if kind == "parquet" and not (source.single or source.remote) and parquet.names_pictures(source.local(file.key), file.name):
                    passed_over.add(PassedOver(file.name, "a table that names pictures, and holds none"))
                    continue
                made = _source(source, file, kind, reading)
            except DataError as error:
                if source.single:
                    raise
                refused.append([file.name, str(error)])
            else:
                sources.add(made)
                for passed in made.archive.passed_over if made.archive else []:
                    passed_over.add(passed)
    return Classified(sources, passed_over, refused)


def refuse_output_in_input(input: str, output: str) -> None:
    """Raise UsageError when the next run would find this one's output among its inputs."""
    if "://" in input.removeprefix("file://") or "://" in output.removeprefix("file://"):
        inside = f"{output.rstrip('/')}/".startswith(f"{input.rstrip('/')}/")
    else:
        source, target = (local_path(value).resolve() for value in (input, output))
        inside = target.is_relative_to(source)
    if inside:
        raise UsageError(f"the output {output} lies in the input {input}, and would be scored by the next run; name another place")


def _kinds(source: InputSource, files: Iterator[SourceFile]) -> Iterator[tuple[SourceFile, str | None, str | None]]:
    """Yield the files with their kinds, and what is wrong with one; pictures by their names are not looked into, but a single one is."""

    def looked_into(file: SourceFile) -> tuple[SourceFile, str | None, str | None]:
        if not source.single and looks_like_picture(file.name):
            return file, PICTURE, None
        try:
            head = source.head(file, HEAD)
        except OSError:
            return file, PICTURE, None  # scoring gives it a row that says why it cannot be read
        kind = kind_of(file.name, head)
        return file, kind, not_as_promised(file.name, head) if kind is None else None

    def look(group: list[SourceFile]) -> list[tuple[SourceFile, str | None, str | None]]:
        return [looked_into(file) for file in group]

    with ThreadPoolExecutor(MAX_LOOKING) as pool:
        for looked in in_order(pool, iter(lambda: list(islice(files, LOOKED_AT_ONCE)), []), look, MAX_LOOKING):
            yield from looked


def _source(source: InputSource, file: SourceFile, kind: str | None, reading: Reading) -> Source:
    if kind is None or kind == PICTURE:
        return Source(file.key, PICTURE, file.size, file.stamp, 1)
    rows = None
    if source.single or not source.remote:  # else it would have to be fetched for that
        if index := index_archive(source, file.key, file.size, file.name, kind, reading):
            return Source(file.key, kind, file.size, file.stamp, index.rows, index)
        rows = CONTAINERS["idx" if kind == LABELS else kind].count(source.local(file.key), file.name, reading)
    return Source(file.key, kind, file.size, file.stamp, rows)
