"""Connections that cannot be kept open without making requests, which uvicorn's own limits do not ensure."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from reid.search.serve.limits import Limits


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 with a limited time for the head of a request, and limited idle connections per address.

    A new connection is never refused because of idle ones: it replaces the oldest of them. So clients that send a
    request at once are served whatever number of connections others hold open, even from the same address.

    Args:
        limits: Limits of connections.
        **options: Arguments of uvicorn's protocol.
    """

    def __init__(self, *, limits: Limits, **options: Any) -> None:
        super().__init__(**options)
        self.limits = limits
        self.address = ""
        self.idle_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request.

        Args:
            transport: The connection.
        """
        super().connection_made(transport)
        self.address = _client(self.client[0]) if self.client else ""
        self._update()
        connections = [other for other in self.connections if isinstance(other, LimitedProtocol)]
        idle = sorted((one for one in connections if one.idle_since is not None), key=lambda one: one.idle_since or 0.0)
        of_client = [other for other in idle if other.address == self.address]
        if len(of_client) > self.limits.idle_per_address:
            of_client[0].abort()
        elif len(connections) > self.limits.max_connections:
            idle[0].abort()  # possibly this one

    def data_received(self, data: bytes) -> None:
        """Parse a part of a request.

        Args:
            data: The bytes.
        """
        try:
            super().data_received(data)
        except h11.LocalProtocolError:  # a malformed rest of a request that is answered
            self.abort()
        self._update()

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request, or close the connection if its answer may have begun.

        Args:
            msg: What is wrong.
        """
        if self.cycle is None or self.cycle.response_complete:
            super().send_400_response(msg)
        else:
            self.abort()

    def pause_writing(self) -> None:
        """Begin to wait for the client to read a part of the response."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.limits.idle_seconds, self.abort)

    def resume_writing(self) -> None:
        """Continue with the response."""
        super().resume_writing()
        self._stop_write_timer()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._update()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the connection.

        Args:
            exc: Why it was lost, if not closed.
        """
        self._stop_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close the connection, after the response if the request is complete, because the server stops."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        elif self.cycle.more_body:
            self.abort()
        else:
            self.cycle.keep_alive = False

    def abort(self) -> None:
        """Close the connection without waiting for the client to read what was sent."""
        self._stop_timer()
        self.connections.discard(self)
        if self.cycle is not None:
            self.cycle.disconnected = True  # so the application does not answer
            self.cycle.message_event.set()
        self.transport.abort()

    def _update(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_timer()
        elif self._timer is None and self in self.connections:
            self.idle_since = self.loop.time()
            self._timer = self.loop.call_later(self.limits.idle_seconds, self.abort)

    def _stop_timer(self) -> None:
        self.idle_since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def _client(host: str) -> str:
    """Return the address of a client; for IPv6 the network of 64 bits, all of whose addresses one client may use."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network((int(address), 64), strict=False))
