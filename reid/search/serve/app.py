"""The addresses of the page, and what stands behind each."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from reid.errors import InputError, one_line
from reid.inference.embedder import Embedder
from reid.report.pages import render_page
from reid.search.gallery import describe_calibration
from reid.search.serve.access import Access, check_token
from reid.search.serve.guard import Guard
from reid.search.serve.limits import Limits, Refused
from reid.search.serve.live_index import LiveIndex
from reid.search.serve.query import Search
from reid.search.serve.queue import Turns
from reid.search.serve.upload import read_asked

_PICTURES = (2, 500)  # decoded side by side, and those that wait


def make_app(
    embedder: Embedder,
    index_path: Path,
    *,
    token: str | None = None,
    limits: Limits | None = None,
    loopback: bool = True,
    prior: float | None = None,
) -> FastAPI:
    """The page and what it asks for: `/`, `/search`, `/image/{id}`, `/health`; and `/login` where there is a token.

    loopback: answer under names of this machine alone; without, there must be a token. prior: see
    `Calibration.probability`. Raises InputError for an index that is missing, broken or another model's, for no token
    where one is needed, and for a prior that is none.
    """
    limits = limits or Limits()
    if token is not None:
        check_token(token)
    elif not loopback:
        raise InputError("a page that other machines can reach needs a token")
    describe_calibration(embedder.calibration, prior)
    search = Search(embedder, LiveIndex(index_path, embedder.model_id, embedder.dim), limits, prior)
    search.index.view()
    # The pages about an interface would load scripts from elsewhere.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    if token is not None:
        app.add_middleware(Access, token=token, limits=limits)
    app.add_middleware(Guard, loopback=loopback)  # the last one is outside
    _add_routes(app, search, limits)
    _add_errors(app)
    return app


def _add_routes(app: FastAPI, search: Search, limits: Limits) -> None:
    turns, pictures = Turns(1, limits.waiting), Turns(*_PICTURES)

    @app.get("/")
    async def page(request: Request) -> HTMLResponse:
        about = await turns.run(search.about)
        return HTMLResponse(render_page("serve.html", nonce=request.state.nonce, about=about))

    @app.post("/search")
    async def answers(request: Request) -> JSONResponse:
        async with turns.place():
            asked = await read_asked(request, limits)
            return JSONResponse(await turns.run(search.answer, asked))

    @app.get("/image/{id}")
    async def image(id: Annotated[int, InPath(ge=0, lt=2**53)]) -> Response:
        async with pictures.place():
            return Response(await pictures.run(search.picture, id), media_type="image/jpeg")

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok"}


def _add_errors(app: FastAPI) -> None:
    """Every error is `{"error": LINE}`."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        headers = {"Retry-After": "1"} if error.status == 503 else {}
        # What was not read of the request must not be taken for the next one.
        return JSONResponse({"error": one_line(error.line)}, error.status, {**headers, "Connection": "close"})

    @app.exception_handler(InputError)
    @app.exception_handler(OSError)
    async def unreadable(_: Request, error: Exception) -> JSONResponse:
        # The line may name folders, which are the business of whoever runs this.
        print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
        line = "the index cannot be searched now; the terminal where the server runs tells why"
        return JSONResponse({"error": line}, 503)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": "no such image: its id is a whole number"}, 404)

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": one_line(error.detail).lower()}, error.status_code, error.headers)
