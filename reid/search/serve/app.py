"""The routes of the page and their error handlers."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from reid.errors import InputError, one_line
from reid.inference.embedder import Embedder
from reid.report.pages import render_page
from reid.search.gallery import describe_calibration
from reid.search.serve.authentication import TokenAuthentication, check_token
from reid.search.serve.limits import Limits, RequestError
from reid.search.serve.live_index import LiveIndex
from reid.search.serve.request import read_search_request
from reid.search.serve.security import SecurityMiddleware
from reid.search.serve.service import SearchService
from reid.search.serve.uploads import Uploads
from reid.search.serve.work_queue import WorkQueue
from reid.search.stores import Place

_OTHERS_RUNNING, _OTHERS_QUEUED = 2, 500


def make_app(
    embedder: Embedder,
    place: Place,
    *,
    token: str | None = None,
    limits: Limits | None = None,
    loopback: bool = True,
    prior: float | None = None,
) -> FastAPI:
    """Create the application: `/`, `/search`, `/image/{id}`, `/health`, and `/login` if there is a token.

    Args:
        embedder: Model that embeds the uploaded images.
        place: The folder of the index.
        token: Token that clients must present; None for no authentication.
        limits: Limits of requests, and of the connections of a server that runs this application; None for the
            defaults.
        loopback: Accept only names of this machine as host; otherwise a token is required.
        prior: Share of matching pairs, see `Calibration.probability`.

    Returns:
        ASGI application, for `server.run`.

    Raises:
        InputError: If the index is missing, corrupt or of a different model, the token is missing or weak, or the prior
            is invalid.
    """
    limits = limits or Limits()
    if token is not None:
        check_token(token)
    elif not loopback:
        raise InputError("a page that other machines can reach needs a token")
    describe_calibration(embedder.calibration, prior)
    service = SearchService(embedder, LiveIndex(place, embedder.model_id, embedder.dim), limits, prior)
    service.index.view()
    uploads = Uploads(limits.max_uploads, limits.upload_seconds)
    # The pages of the API documentation would load scripts from other sites.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.limits = limits
    if token is not None:
        app.add_middleware(TokenAuthentication, token=token, uploads=uploads)
    app.add_middleware(SecurityMiddleware, loopback=loopback)  # the last one is the outermost
    _add_routes(app, service, uploads)
    _add_error_handlers(app)
    return app


def _add_routes(app: FastAPI, service: SearchService, uploads: Uploads) -> None:
    limits = service.limits
    searches = WorkQueue(1, limits.max_queued, limits.queue_seconds, limits.search_seconds)
    # The page and its images are shown while a search runs.
    others = WorkQueue(_OTHERS_RUNNING, _OTHERS_QUEUED, limits.queue_seconds, limits.search_seconds)

    @app.get("/")
    async def page(request: Request) -> HTMLResponse:
        async with others.slot():
            about = await others.run(service.describe)
        return HTMLResponse(render_page("serve.html", nonce=request.state.nonce, about=about))

    @app.post("/search")
    async def search(request: Request) -> JSONResponse:
        async with uploads.slot():
            search_request = await read_search_request(request, limits)
        async with searches.slot():
            return JSONResponse(await searches.run(service.search, search_request))

    @app.get("/image/{id}")
    async def image(id: Annotated[int, PathParameter(ge=0, lt=2**53)]) -> Response:
        async with others.slot():
            return Response(await others.run(service.thumbnail, id), media_type="image/jpeg")

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok"}


def _add_error_handlers(app: FastAPI) -> None:
    """Make every error `{"error": MESSAGE}`."""

    @app.exception_handler(RequestError)
    async def rejected(_: Request, error: RequestError) -> JSONResponse:
        headers = {"Retry-After": "1"} if error.status == 503 else {}
        # Unread parts of the request must not be parsed as the next one.
        return JSONResponse({"error": one_line(error.message)}, error.status, {**headers, "Connection": "close"})

    @app.exception_handler(InputError)
    @app.exception_handler(OSError)
    async def index_unreadable(_: Request, error: Exception) -> JSONResponse:
        # The message may name folders, which clients must not see.
        print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
        message = "the index cannot be searched now; see the terminal of the server"
        return JSONResponse({"error": message}, 503)

    @app.exception_handler(RequestValidationError)
    async def invalid_id(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": "no such image: its id is an integer"}, 404)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": one_line(error.detail).lower()}, error.status_code, error.headers)
