"""Who may ask: this machine's browser, and from no page but our own. And what a browser may do with an answer."""

from __future__ import annotations

import ipaddress
import re
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_HEADERS = {
    "Cache-Control": "no-store",  # pictures of people
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    # With no-referrer, browsers hide the origin of a form from its own server.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_POLICY = (
    "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class Guard:
    """Refuses requests for another host's name and of other sites' pages; puts safe headers on every answer.

    loopback: whether only names of this machine are answered to. Without, a page of somebody else's whose name is made
    to point here (DNS rebinding) would count as ours, and could read along. `scope["state"]["nonce"]` is that of the
    scripts and styles of a page, new every time.
    """

    def __init__(self, app: ASGIApp, *, loopback: bool) -> None:
        self.app, self.loopback = app, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(16)
        scope.setdefault("state", {})["nonce"] = nonce
        started = False

        async def told(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers["Content-Security-Policy"] = _POLICY.format(nonce)
            await send(message)

        refused = self._refused(scope)
        if refused:
            await refused(scope, receive, told)
            return
        try:
            await self.app(scope, receive, told)
        except Exception:
            if not started:
                line = "a fault of the server's; the terminal where it runs tells more"
                await JSONResponse({"error": line}, 500)(scope, receive, told)
            raise

    def _refused(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match is None:
            return _error(400, "a request names one host")
        if self.loopback and not is_loopback(match[1].strip("[]")):
            return _error(421, "this page answers to localhost and 127.0.0.1 only")
        # Browsers tell where a request comes from; what is no browser needs no protection from other sites' pages.
        same = all(urlsplit(origin).netloc.lower() == hosts[0].lower() for origin in origins)
        site = headers.get("sec-fetch-site", "none")
        followed = (
            scope["method"] == "GET"
            and scope["path"] == "/"
            and (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
        )
        if not same or not (site in ("same-origin", "none") or followed):
            return _error(403, "refused: asked for by a page of another site")
        return None


def is_loopback(name: str) -> bool:
    """Whether a host's name is one of this machine for itself, without asking anybody."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def _error(status: int, line: str) -> JSONResponse:
    return JSONResponse({"error": line}, status, {"Connection": "close"})
