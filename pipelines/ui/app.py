"""The server of the pages: addresses, errors as pages, and the two requests that change something, a label and its undo."""

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection
from functools import lru_cache
from importlib import resources
from typing import Annotated
from urllib.parse import urlencode

import python_multipart  # noqa: F401 - FastAPI reads forms by it; where it is missing, this line names it
from fastapi import FastAPI, Form, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from components.classifier.errors import ObjectNotFound, PenstockError, StoreUnavailable, UsageError, VersionNotFound
from components.review.export import classes_of
from components.review.labels import UNUSABLE
from pipelines import local_runs
from pipelines.ui import guard, reviewing
from pipelines.ui.pages import Pages
from pipelines.ui.stored import Stored

MAX_THUMBNAILS = 512
"""Thumbnails that are kept: about 10 kB each."""
MAX_UNDO = 100
"""Labels of a model that can be taken back, the last ones given through this server."""
Levels = Annotated[int, Query(ge=9, le=16)]
_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
_STATUS = ((VersionNotFound, 404), (ObjectNotFound, 404), (UsageError, 400), (StoreUnavailable, 503))


def create_app(stored: Stored, reviewer: str, names: Collection[str] = ()) -> FastAPI:
    """Make the application; `reviewer` gives the labels, `names` are host names that it answers to beside localhost and addresses."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    pages = Pages(stored)
    _add_pages(app, pages)
    _add_runs(app, pages)
    _add_review(app, pages, reviewer)
    _add_errors(app, pages)

    @app.middleware("http")
    async def guarded(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        refused = guard.problem(request.method, request.headers, names)
        response = HTMLResponse(pages.error(_depth(request), refused), 403) if refused else await go_on(request)
        response.headers.update(guard.HEADERS)
        response.headers.setdefault("Cache-Control", "no-cache")
        return response

    return app


def static_file(name: str) -> str:
    """The path of a file that pages load."""
    return str(resources.files("pipelines.ui").joinpath("static", name))


def _add_pages(app: FastAPI, pages: Pages) -> None:
    stored = pages.stored

    def models() -> Response:
        return HTMLResponse(pages.models())

    def compare(first: str = "", second: str = "") -> Response:
        sides = [_side(stored, text) for text in (first, second)]
        return RedirectResponse(f"compare/{'/'.join('/'.join(side) for side in sides)}.html", 303)

    def comparison(first: str, a: str, second: str, b: str) -> Response:
        return HTMLResponse(pages.comparison((first, a), (second, b)))

    def label_js() -> Response:
        return FileResponse(static_file("label.js"), media_type="text/javascript")

    def no_icon() -> Response:
        return Response(status_code=204)

    app.add_api_route("/favicon.ico", no_icon)
    app.add_api_route("/", models)
    app.add_api_route("/index.html", models)
    app.add_api_route("/compare.html", compare)
    app.add_api_route("/compare/{first}/{a}/{second}/{b}.html", comparison)
    app.add_api_route("/static/label.js", label_js)
    by_name: dict[str, Callable[..., str]] = {
        "/models/{name}.html": pages.model,
        "/models/{name}/timeline.html": pages.timeline,
        "/models/{name}/live.html": pages.live,
        "/models/{name}/{version}.html": pages.version,
        "/models/{name}/{version}/report.html": pages.report,
    }
    for path, page in by_name.items():
        app.add_api_route(path, page, response_class=HTMLResponse)


def _add_runs(app: FastAPI, pages: Pages) -> None:
    def log(identity: str) -> Response:
        path = pages.stored.runs / local_runs.find_run(identity, pages.stored.runs).id / "run.log"
        if not path.is_file():
            raise ObjectNotFound(f"run {identity} has no log")
        return FileResponse(path, media_type="text/plain; charset=utf-8")

    app.add_api_route("/runs.html", pages.runs, response_class=HTMLResponse)
    app.add_api_route("/runs/{identity}.html", pages.run, response_class=HTMLResponse)
    app.add_api_route("/runs/{identity}/log.txt", log)


def _add_review(app: FastAPI, pages: Pages, reviewer: str) -> None:
    queue = pages.stored.queue
    given: defaultdict[str, deque[tuple[str, str]]] = defaultdict(lambda: deque(maxlen=MAX_UNDO))
    thumbnail = lru_cache(MAX_THUMBNAILS)(lambda name, file, levels: _picture(pages.stored, name, file, reviewing.THUMBNAIL, levels))

    def review(name: str, state: str = "any", reason: str = "any", version: str = "") -> Response:
        return HTMLResponse(pages.review(name, reviewing.read_chosen(state, reason, version)))

    def small(name: str, file: str, levels: Levels = 16) -> Response:
        return Response(thumbnail(name, file, levels), media_type="image/png", headers=_FOREVER)

    def large(name: str, file: str, levels: Levels = 16) -> Response:
        return Response(_picture(pages.stored, name, file, reviewing.LARGE, levels), media_type="image/png", headers=_FOREVER)

    def show(name: str, state: str = "unlabelled", reason: str = "any", version: str = "", picture: str = "", after: str = "") -> Response:
        chosen = reviewing.read_chosen(state, reason, version)
        last = given[name][-1] if given[name] else None
        return HTMLResponse(pages.label(name, chosen, picture=picture, after=after, last=last))

    def label(
        name: str,
        picture: Annotated[str, Form()],
        label: Annotated[str, Form()],
        state: Annotated[str, Form()] = "unlabelled",
        reason: Annotated[str, Form()] = "any",
        version: Annotated[str, Form()] = "",
    ) -> Response:
        entries = queue(name).get(picture)
        identity = entries[0].id
        if label not in {UNUSABLE, *classes_of(identity, entries)}:
            raise UsageError(f"{label!r} is not a class of the model that predicted {identity}")
        conflicting = entries[0].labels.state == "conflicting"
        if queue(name).label(identity, label, reviewer, resolves=conflicting):
            given[name].append((identity, label))
        return _labelling({"state": state, "reason": reason, "version": version, "after": identity})

    def undo(
        name: str,
        state: Annotated[str, Form()] = "unlabelled",
        reason: Annotated[str, Form()] = "any",
        version: Annotated[str, Form()] = "",
    ) -> Response:
        if not given[name]:
            raise UsageError("no label was given here that could be taken back; penstock review withdraw takes back older ones")
        identity, _ = given[name].pop()
        queue(name).withdraw(identity, reviewer)
        return _labelling({"state": state, "reason": reason, "version": version, "picture": identity})

    app.add_api_route("/review/{name}.html", review)
    app.add_api_route("/review/{name}/pictures/{file}.png", small)
    app.add_api_route("/review/{name}/large/{file}.png", large)
    app.add_api_route("/review/{name}/label.html", show)
    app.add_api_route("/review/{name}/label", label, methods=["POST"])
    app.add_api_route("/review/{name}/undo", undo, methods=["POST"])


def _labelling(asked: dict[str, str]) -> Response:
    return RedirectResponse(f"label.html?{urlencode(asked)}", 303)


def _picture(stored: Stored, name: str, file: str, side: int, levels: int) -> bytes:
    return reviewing.shown(stored.queue(name).picture_named(reviewing.check_file_name(file)), side, levels)


def _side(stored: Stored, text: str) -> tuple[str, str]:
    """The name and version that NAME/VERSION stands for, where VERSION may be champion, previous or a beginning."""
    name, slash, selector = text.strip().partition("/")
    if not slash:
        raise UsageError("two versions are compared, each given as NAME/VERSION; choose both")
    return name, stored.select(name, selector)


def _add_errors(app: FastAPI, pages: Pages) -> None:
    def page(request: Request, text: PenstockError | str, status: int) -> Response:
        return HTMLResponse(pages.error(_depth(request), text), status)

    async def penstock_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, PenstockError)
        return page(request, error, next((status for kind, status in _STATUS if isinstance(error, kind)), 500))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        there = "there is no such page" if error.status_code == 404 else str(error.detail)
        return page(request, f"{request.url.path[:200]}: {there}", error.status_code)

    async def wrong_request(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        return page(request, f"{'.'.join(str(part) for part in first['loc'][1:])}: {first['msg']}", 400)

    app.add_exception_handler(PenstockError, penstock_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, wrong_request)


def _depth(request: Request) -> int:
    return request.url.path.count("/") - 1
