"""Looks through the input and says what kind each file is, what is passed over, and what is refused before any scoring."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from components.classifier.errors import DataError, UsageError
from components.score.inputs import CONTAINERS, HEAD, LABELS, PICTURE, kind_of
from components.score.inputs.names import display, named_as_picture
from components.score.inputs.records import PassedOver, Reading
from components.score.place import InputFile, Place
from components.score.plan import Source

PEEKERS = 16


def survey(place: Place, reading: Reading) -> tuple[list[Source], list[PassedOver], list[list[str]]]:
    """Return the sources in order, what is passed over, and [file, reason] of containers that are refused.

    A single file that is refused raises DataError: there is nothing else to do. In a folder the others are scored.
    """
    listing = place.listing()
    sources, refused, passed = [], [], listing.passed_over
    kinds = _kinds(place, listing.files)
    for file in listing.files:
        kind = kinds.get(file.name, PICTURE)
        if kind is None and not place.single:
            passed.append(PassedOver(display(file.name), "neither its content nor its name is a picture's"))
        elif kind == LABELS and not place.single:
            passed.append(PassedOver(display(file.name), "an IDX file of labels, no pictures"))
        else:
            try:
                sources.append(_source(place, file, kind, reading))
            except DataError as error:
                if place.single:
                    raise
                refused.append([display(file.name), str(error)])
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


def _kinds(place: Place, files: list[InputFile]) -> dict[str, str | None]:
    """Look into the files whose names do not promise a picture (a single one always); the others are pictures."""

    def kind(file: InputFile) -> str | None:
        try:
            return kind_of(file.name, place.head(file.name, HEAD))
        except OSError:
            return PICTURE  # scoring gives it a row that says why it cannot be read

    unsure = [file for file in files if place.single or not named_as_picture(file.name)]
    with ThreadPoolExecutor(PEEKERS) as pool:
        return {file.name: found for file, found in zip(unsure, pool.map(kind, unsure), strict=True)}


def _source(place: Place, file: InputFile, kind: str | None, reading: Reading) -> Source:
    if kind is None or kind == PICTURE:
        return Source(file.name, PICTURE, file.size, file.stamp, 1)
    rows = None
    if place.single or not place.remote:  # else it would have to be fetched for that
        rows = CONTAINERS["idx" if kind == LABELS else kind].count(place.local(file.name), display(file.name), reading)
    return Source(file.name, kind, file.size, file.stamp, rows)
