"""Looks through the input and says what kind each file is, what is passed over, and what is refused before any scoring."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from components.classifier.errors import DataError, UsageError
from components.readers import CONTAINERS, HEAD, LABELS, PICTURE, kind_of
from components.readers.archive_rows import index_archive
from components.readers.listing import SourceFile, looks_like_picture
from components.readers.places import InputSource
from components.readers.records import PassedOver, Reading
from components.score.plan import Source

MAX_LOOKING = 16
"""Threads that read the first bytes of files."""


def classify_inputs(source: InputSource, reading: Reading) -> tuple[list[Source], list[PassedOver], list[list[str]]]:
    """Return the sources in order, what is passed over, and [file, reason] of containers that are refused.

    A single file that is refused raises DataError: there is nothing else to do. In a folder the others are scored.
    """
    listing = source.listing()
    sources, refused = [], []
    passed = sorted(listing.passed_over + listing.faults, key=lambda passed: passed.input)
    kinds = _kinds(source, listing.files)
    for file in listing.files:
        kind = kinds.get(file.key, PICTURE)
        if kind is None and not source.single:
            passed.append(PassedOver(file.name, "neither its content nor its name is a picture's"))
        elif kind == LABELS and not source.single:
            passed.append(PassedOver(file.name, "an IDX file of labels, no pictures"))
        else:
            try:
                sources.append(_source(source, file, kind, reading))
                passed += sources[-1].index.passed_over if sources[-1].index else []
            except DataError as error:
                if source.single:
                    raise
                refused.append([file.name, str(error)])
    return sources, passed, refused


def refuse_output_in_input(input: str, output: str) -> None:
    """Raise UsageError when the next run would find this one's output among its inputs."""
    if "://" in input.removeprefix("file://") or "://" in output.removeprefix("file://"):
        inside = f"{output.rstrip('/')}/".startswith(f"{input.rstrip('/')}/")
    else:
        source, target = (Path(value.removeprefix("file://")).expanduser().resolve() for value in (input, output))
        inside = target.is_relative_to(source)
    if inside:
        raise UsageError(f"the output {output} lies in the input {input}, and would be scored by the next run; name another place")


def _kinds(source: InputSource, files: list[SourceFile]) -> dict[str, str | None]:
    """Look into the files whose names do not promise a picture (a single one always); the others are pictures."""

    def kind(file: SourceFile) -> str | None:
        try:
            return kind_of(file.name, source.head(file.key, HEAD))
        except OSError:
            return PICTURE  # scoring gives it a row that says why it cannot be read

    unsure = [file for file in files if source.single or not looks_like_picture(file.name)]
    with ThreadPoolExecutor(MAX_LOOKING) as pool:
        return {file.key: found for file, found in zip(unsure, pool.map(kind, unsure), strict=True)}


def _source(source: InputSource, file: SourceFile, kind: str | None, reading: Reading) -> Source:
    if kind is None or kind == PICTURE:
        return Source(file.key, PICTURE, file.size, file.stamp, 1)
    rows = None
    if source.single or not source.remote:  # else it would have to be fetched for that
        if index := index_archive(source, file.key, file.size, file.name, kind, reading):
            return Source(file.key, kind, file.size, file.stamp, index.rows, index)
        rows = CONTAINERS["idx" if kind == LABELS else kind].count(source.local(file.key), file.name, reading)
    return Source(file.key, kind, file.size, file.stamp, rows)
