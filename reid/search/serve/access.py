"""A token, for a page that others can reach: asked for once, and kept by the browser as a cookie."""

from __future__ import annotations

import hmac
import secrets
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from reid.errors import InputError
from reid.report.pages import render_page
from reid.search.serve.limits import Limits, Refused
from reid.search.serve.upload import bounded

COOKIE = "reid_session"
SHORTEST = 16  # letters, so that nobody tries them all
_FORM_BYTES = 4096


class Access:
    """Lets a request pass that has the session's cookie or `Authorization: Bearer TOKEN`.

    The cookie is given for the token, in `/?token=TOKEN` or by the form that stands in for the page; it holds another
    secret, which ends with the process. `/health` needs none.
    """

    def __init__(self, app: ASGIApp, *, token: str, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self._token, self._session = token.encode(), secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/health":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        response = await self._answer(request)
        await (self.app if response is None else response)(scope, receive, send)

    async def _answer(self, request: Request) -> Response | None:
        """None where the request may pass."""
        path, method = request.url.path, request.method
        if (method, path) == ("GET", "/") and "token" in request.query_params:
            return self._let_in(request, request.query_params["token"])
        if (method, path) == ("POST", "/login"):
            try:
                body = await bounded(request, _FORM_BYTES, self.limits.seconds)
            except Refused as refused:
                return _form(request, refused.line, refused.status)
            return self._let_in(request, _field(body, "token"))
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if _equal(request.cookies.get(COOKIE, ""), self._session.encode()) or (
            scheme.lower() == "bearer" and _equal(given, self._token)
        ):
            return None
        if (method, path) == ("GET", "/"):
            return _form(request, "", 401)
        line = "not logged in: open the page again and give the token"
        return JSONResponse({"error": line}, 401, {"WWW-Authenticate": "Bearer"})

    def _let_in(self, request: Request, token: str) -> Response:
        if not _equal(token, self._token):
            return _form(request, "That is not the token.", 403)
        response = RedirectResponse("/", 303)  # the address without the token
        response.set_cookie(COOKIE, self._session, httponly=True, samesite="strict")
        return response


def check_token(token: str) -> None:
    """Raise InputError for a token that could be guessed or that a header cannot carry."""
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(
            f"a token has {SHORTEST} letters or more, of ASCII and without spaces; --token alone makes one"
        )


def _field(body: bytes, name: str) -> str:
    """A field of a form as browsers send them by themselves; "" where it has none."""
    try:
        return parse_qs(body.decode("utf-8", "replace"), max_num_fields=8).get(name, [""])[0]
    except ValueError:
        return ""


def _equal(given: str, wanted: bytes) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted)


def _form(request: Request, wrong: str, status: int) -> Response:
    page = render_page("serve_login.html", nonce=request.state.nonce, wrong=wrong)
    return HTMLResponse(page, status)
