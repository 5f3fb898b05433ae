"""Token authentication for a page that other machines can reach; browsers keep a session cookie."""

from __future__ import annotations

import hmac
import secrets
from urllib.parse import parse_qs, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from reid.errors import InputError
from reid.report.pages import render_page
from reid.search.serve.limits import RequestError
from reid.search.serve.request import read_body
from reid.search.serve.uploads import Uploads

MIN_TOKEN_LENGTH = 16  # too long to guess
_LOGIN_BYTES = 4096


class TokenAuthentication:
    """ASGI middleware that requires the session cookie or `Authorization: Bearer TOKEN`, except for `/health`.

    The cookie is set in exchange for the token, in `/?token=TOKEN` or by the login form. It holds another secret, which
    is valid until the process ends.

    Args:
        app: The application behind it.
        token: Secret that clients must present.
        uploads: Limits of uploads.
    """

    def __init__(self, app: ASGIApp, *, token: str, uploads: Uploads) -> None:
        self.app, self.uploads = app, uploads
        self._token, self._session = token.encode(), secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process an ASGI connection."""
        if scope["type"] != "http" or scope["path"] == "/health":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        response = await self._authenticate(request)
        await (self.app if response is None else response)(scope, receive, send)

    async def _authenticate(self, request: Request) -> Response | None:
        """Return None if the request may pass, else the response to it."""
        path, method = request.url.path, request.method
        if (method, path) == ("GET", "/") and "token" in request.query_params:
            return self._log_in(request, request.query_params["token"])
        if (method, path) == ("POST", "/login"):
            try:
                async with self.uploads.slot():
                    body = await read_body(request, _LOGIN_BYTES)
            except RequestError as error:
                return _login_page(request, error.message, error.status)
            return self._log_in(request, _form_field(body, "token"))
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if _equals_secret(request.cookies.get(_cookie(request), ""), self._session.encode()) or (
            scheme.lower() == "bearer" and _equals_secret(token, self._token)
        ):
            return None
        if (method, path) == ("GET", "/"):
            return _login_page(request, "", 401)
        message = "not logged in: reload the page and enter the token"
        return JSONResponse({"error": message}, 401, {"WWW-Authenticate": "Bearer"})

    def _log_in(self, request: Request, token: str) -> Response:
        if not _equals_secret(token, self._token):
            return _login_page(request, "That is not the token.", 403)
        response = RedirectResponse(f"/{_search(request)}", 303)  # a URL without the token
        response.set_cookie(_cookie(request), self._session, httponly=True, samesite="strict")
        return response


def check_token(token: str) -> None:
    """Check that a token cannot be guessed and fits into a header.

    Args:
        token: Secret that clients must present.

    Raises:
        InputError: If it is too short, or holds spaces or characters other than printable ASCII.
    """
    if len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(
            f"the token must have at least {MIN_TOKEN_LENGTH} ASCII characters and no spaces; --token without a value "
            "generates one"
        )


def _cookie(request: Request) -> str:
    """Return the name of the cookie; browsers share cookies among the servers of a host, whatever their ports."""
    port = request.headers.get("host", "").rpartition(":")[2]
    return f"reid_session_{port if port.isdecimal() else 80}"


def _search(request: Request) -> str:
    """Return the search in the URL, which is kept over the login: "?" and the query without the token, or ""."""
    query = urlencode([(name, value) for name, value in request.query_params.multi_items() if name != "token"])
    return f"?{query}" if query else ""


def _form_field(body: bytes, name: str) -> str:
    """Return a field of a URL-encoded form, "" if it is missing."""
    try:
        return parse_qs(body.decode("utf-8", "replace"), max_num_fields=8).get(name, [""])[0]
    except ValueError:
        return ""


def _equals_secret(text: str, secret: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(text.encode("utf-8", "surrogateescape"), secret)


def _login_page(request: Request, message: str, status: int) -> Response:
    page = render_page("serve_login.html", nonce=request.state.nonce, wrong=message, search=_search(request))
    return HTMLResponse(page, status)
