"""Host and origin checks of requests, and the security headers of responses."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_HEADERS = {
    "Cache-Control": "no-store",  # images of people
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    # With no-referrer, browsers hide the origin of a form from its own server.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_CONTENT_POLICY = (
    "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class SecurityMiddleware:
    """ASGI middleware that rejects other hosts and cross-site requests and adds security headers to every response.

    `scope["state"]["nonce"]` is the nonce for the scripts and styles of a page, new for every request.

    Args:
        app: The application behind it.
        loopback: Accept only names of this machine as host. Otherwise a foreign page whose name is made to resolve to
            this machine (DNS rebinding) would be treated as same-origin.
    """

    def __init__(self, app: ASGIApp, *, loopback: bool) -> None:
        self.app, self.loopback = app, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process an ASGI connection."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(16)
        scope.setdefault("state", {})["nonce"] = nonce
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers["Content-Security-Policy"] = _CONTENT_POLICY.format(nonce)
            await send(message)

        rejection = self._reject(scope)
        if rejection:
            await rejection(scope, receive, send_with_headers)
            return
        try:
            await self.app(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            # The server stops and has closed the connection.
            return
        except Exception:
            if not started:
                message = "internal server error; see the terminal of the server"
                await JSONResponse({"error": message}, 500)(scope, receive, send_with_headers)
            raise

    def _reject(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match is None:
            return _error(400, "a request must have exactly one valid Host header")
        if self.loopback and not is_loopback_host(match[1].strip("[]")):
            return _error(421, "this page is served under localhost and 127.0.0.1 only")
        # Browsers send the origin of a request; other clients need no protection from pages of other sites.
        host = hosts[0].lower()
        same_origin = all(origin.lower() in (f"http://{host}", f"https://{host}") for origin in origins)
        site = headers.get("sec-fetch-site", "none")
        followed_link = (
            scope["method"] == "GET"
            and scope["path"] == "/"
            and (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
        )
        if not same_origin or not (site in ("same-origin", "none") or followed_link):
            return _error(403, "rejected: the request comes from a page of another site")
        return None


def is_loopback_host(name: str) -> bool:
    """Check whether a host name refers to this machine, without resolving it.

    Args:
        name: An IP address or a host name.

    Returns:
        True for localhost and loopback addresses.
    """
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status, {"Connection": "close"})
