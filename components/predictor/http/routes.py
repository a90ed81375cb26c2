"""Routes beside inference, on KServe's FastAPI application: health, metadata, metrics and the API's description."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from components.classifier.errors import RequestError
from components.predictor.errors import Unavailable
from components.predictor.http.openapi import document
from components.predictor.loaded_model import LoadedModel
from components.predictor.logs import log
from components.predictor.model import ServingModel
from components.predictor.protocol import v2
from components.predictor.sdk import metrics_handler

_GET = ["GET", "HEAD"]


def add_routes(app: FastAPI, model: ServingModel) -> None:
    """Replace KServe's routes, which know no model version and report a server without a model as ready."""
    app.router.routes.clear()
    app.router.redirect_slashes = False
    app.include_router(_health(model))
    app.include_router(_metadata(model))
    app.include_router(_description(model))


def add_error_handlers(app: FastAPI) -> None:
    """Give every failure the same form, `{"error": one line}`, without what was raised."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(Unavailable, _unavailable)
    app.add_exception_handler(Exception, _server_error)


def _health(model: ServingModel) -> APIRouter:
    router = APIRouter(default_response_class=JSONResponse)

    async def alive() -> dict[str, Any]:
        return {"status": "alive"}

    async def live() -> dict[str, Any]:
        return {"live": True}

    async def ready() -> dict[str, Any]:
        _check_ready(model)
        told = {"ledger": model.ledger, "behind": model.behind}
        return {"ready": True, **{name: value for name, value in told.items() if value}}

    async def model_ready(name: str, version: str = "") -> dict[str, Any]:
        model.check_name(name)
        _check_ready(model)
        return {"name": name, "version": model.current(version).version, "ready": True}

    router.add_api_route("/", alive, methods=_GET)
    router.add_api_route("/v2/health/live", live, methods=_GET)
    router.add_api_route("/v2/health/ready", ready, methods=_GET)
    for path in ("/v1/models/{name}", "/v2/models/{name}/ready", "/v2/models/{name}/versions/{version}/ready"):
        router.add_api_route(path, model_ready, methods=_GET)
    return router


def _metadata(model: ServingModel) -> APIRouter:
    router = APIRouter(default_response_class=JSONResponse)

    async def server() -> dict[str, Any]:
        return v2.server_metadata()

    async def models() -> dict[str, Any]:
        return {"models": [model.name]}

    async def metadata(name: str, version: str = "") -> dict[str, Any]:
        model.check_name(name)
        loaded = model.current(version)
        return {**v2.model_metadata(loaded), "classes": loaded.classes}

    router.add_api_route("/v2", server, methods=_GET)
    router.add_api_route("/v1/models", models, methods=_GET)
    router.add_api_route("/v2/models", models, methods=_GET)
    router.add_api_route("/v2/models/{name}", metadata, methods=_GET)
    router.add_api_route("/v2/models/{name}/versions/{version}", metadata, methods=_GET)
    return router


def _description(model: ServingModel) -> APIRouter:
    router = APIRouter(default_response_class=JSONResponse)
    page = Path(__file__).with_name("docs.html").read_text("utf-8")

    written: tuple[LoadedModel | None, bytes | memoryview] = None, b""  # kept, for writing it holds all else for a millisecond

    async def description() -> Response:
        nonlocal written
        if written[0] is not (loaded := model.current()):
            written = loaded, JSONResponse(document(loaded, model.settings)).body
        return Response(written[1], media_type="application/json")

    async def docs() -> HTMLResponse:
        return HTMLResponse(page)

    router.add_api_route("/metrics", metrics_handler, methods=_GET)
    router.add_api_route("/openapi.json", description, methods=_GET)
    router.add_api_route("/docs", docs, methods=_GET)
    return router


def _check_ready(model: ServingModel) -> None:
    model.current()
    if model.draining:
        raise Unavailable("the server is shutting down; ask another replica", retry_after=5)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = {404: "no such path; /docs lists those there are", 405: "this path does not accept that method"}
    return JSONResponse({"error": message.get(error.status_code, "the request cannot be answered")}, error.status_code, error.headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the request's path or query cannot be read"}, 400)


async def _request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return JSONResponse({"error": str(error)}, error.status)


async def _unavailable(request: Request, error: Exception) -> Response:
    assert isinstance(error, Unavailable)
    return JSONResponse({"error": str(error)}, 503, {"retry-after": str(error.retry_after)})


async def _server_error(request: Request, error: Exception) -> Response:
    log().error("request failed", path=request.url.path, exc_info=error)
    return JSONResponse({"error": "the server failed; its log has more"}, 500)
