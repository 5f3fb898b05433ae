"""The socket of the page and the HTTP server on it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import ipaddress
import socket
import time
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from reid.errors import InputError, stop_signals
from reid.search.serve.connections import LimitedProtocol

_FINISH_SECONDS = 3.0


def bind(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Args:
        host: Name or address of an interface of this machine.
        port: Port number; 0 for any free port.

    Returns:
        Socket that accepts connections, for `run`.

    Raises:
        InputError: If the port is in use, reserved or out of range, or the host is not an address of this machine.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"--port {port}: must be in [0, 65535]; 0 selects a free port")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise InputError(f"--host {host}: not an address of this machine; use 127.0.0.1 or leave it out") from None
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"--port {port}: already in use; choose another one, or 0 for a free port") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise InputError(f"--port {port}: reserved for the system; choose a port above 1023") from None
        raise InputError(f"--host {host}: cannot listen there ({error.strerror})") from None
    return listener


def is_loopback(listener: socket.socket) -> bool:
    """Check whether only this machine can reach a socket.

    Args:
        listener: Socket from `bind`.

    Returns:
        True if it is bound to a loopback address.
    """
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def page_url(listener: socket.socket) -> str:
    """Return the URL to open in a browser.

    Args:
        listener: Socket from `bind`.

    Returns:
        The URL, with a trailing slash.
    """
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


class Server(uvicorn.Server):
    """A server that stops within a few seconds, whatever its clients and searches do, and says nothing about them."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer the complete requests, for a few seconds, and close all connections.

        Args:
            sockets: The listening sockets.
        """
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        connections, tasks = self.server_state.connections, self.server_state.tasks
        for connection in list(connections):
            connection.shutdown()
        end = time.monotonic() + _FINISH_SECONDS
        while (connections or tasks) and time.monotonic() < end:
            await asyncio.sleep(0.02)
        for connection in list(connections):
            cast(LimitedProtocol, connection).abort()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1)


def make_server(app: FastAPI) -> Server:
    """Create a server that logs internal errors only, since URLs may hold a token.

    Args:
        app: Application from `make_app`.

    Returns:
        The server, not started.
    """
    protocol: Any = functools.partial(LimitedProtocol, limits=app.state.limits)
    return Server(
        uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
    )


def run(app: FastAPI, listener: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM; must be called in the main thread.

    Args:
        app: Application from `make_app`.
        listener: Socket from `bind`.
    """
    with contextlib.suppress(KeyboardInterrupt), stop_signals():
        make_server(app).run(sockets=[listener])
