"""The pages as a static site: the same text under the same relative addresses, so that a bucket or a folder serves it."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from components.classifier.errors import PenstockError
from components.review.queue import QueuedPicture, ReviewQueue
from components.storage.files import new_directory, write_file
from pipelines import local_runs
from pipelines.ui import reviewing
from pipelines.ui.pages import MAX_QUEUED, Pages
from pipelines.ui.stored import Stored

Made = Callable[[], str | bytes]


def write_site(stored: Stored, directory: Path, tell: Callable[[int, int], object] = lambda done, total: None) -> int:
    """Write all pages into a new folder, without forms and labelling; returns how many there are.

    Of a model's comparisons there are those of each version with the champion and with the version before it. What cannot be shown
    is a page that says why. `tell` is called with the number of files that are written, and with their total. Raises UsageError when
    the folder is there and not empty, and StoreError.
    """
    pages = Pages(stored, static=True)
    with new_directory(directory) as folder:
        site = list(_site(pages))
        for number, (path, make) in enumerate(site, 1):
            destination = folder / path
            destination.parent.mkdir(parents=True, exist_ok=True)
            write_file(destination, [_made(pages, path, make)])
            tell(number, len(site))
    return sum(path.endswith(".html") for path, _ in site)


def _made(pages: Pages, path: str, make: Made) -> bytes:
    try:
        made = make()
    except PenstockError as error:
        made = pages.error(path.count("/"), error) if path.endswith(".html") else b""
    return made if isinstance(made, bytes) else made.encode()


def _site(pages: Pages) -> Iterator[tuple[str, Made]]:
    stored = pages.stored
    yield "index.html", pages.models
    yield "runs.html", pages.runs
    for run in local_runs.list_runs(stored.runs):
        yield f"runs/{run.id}.html", partial(pages.run, run.id)
        log = stored.runs / run.id / "run.log"
        if log.is_file():
            yield f"runs/{run.id}/log.txt", log.read_bytes
    for name in stored.names():
        yield from _model(pages, name)


def _model(pages: Pages, name: str) -> Iterator[tuple[str, Made]]:
    yield f"models/{name}.html", partial(pages.model, name)
    yield f"models/{name}/timeline.html", partial(pages.timeline, name)
    yield f"models/{name}/live.html", partial(pages.live, name)
    yield f"review/{name}.html", partial(pages.review, name)
    for version in pages.stored.listed(name):
        yield f"models/{name}/{version}.html", partial(pages.version, name, version)
        if pages.has_report(name, version):
            yield f"models/{name}/{version}/report.html", partial(pages.report, name, version)
        for other in pages.others(name, version):
            yield f"compare/{name}/{other}/{name}/{version}.html", partial(pages.comparison, (name, other), (name, version))
    queue = pages.stored.queue(name)
    for entry in reviewing.select(queue.entries(), reviewing.EVERYTHING)[:MAX_QUEUED]:
        path = f"review/{name}/pictures/{entry.file_name}.png"
        yield path, partial(_thumbnail, queue, entry)


def _thumbnail(queue: ReviewQueue, entry: QueuedPicture) -> bytes:
    return reviewing.shown(queue.picture(entry), reviewing.THUMBNAIL, entry.prediction.levels)
